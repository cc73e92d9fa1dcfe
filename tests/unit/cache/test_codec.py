"""Codecs keep logits within what they promise, and measure what they lose with an independent formula."""

import numpy as np
import pytest
import torch

from kdray.cache.codec import CODECS, TEMPERATURES, decode, encode, loss
from kdray.errors import CacheError
from kdray.outputs import Choice


def logits(targets: int, labels: int, scale: float = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=(targets, labels)).astype(np.float32)


def through(values: np.ndarray, codec: str) -> np.ndarray:
    columns = encode(values, codec)
    return decode(columns["logits"], columns.get("scale"), columns.get("offset"))


@pytest.mark.parametrize("labels", [1, 2, 9, 1000])
@pytest.mark.parametrize("codec", CODECS)
def test_no_logit_moves_by_more_than_the_codec_allows(codec, labels):
    values = logits(50, labels)
    spread = values.max(-1, keepdims=True) - values.min(-1, keepdims=True)
    allowed = {"float32": 0, "float16": np.abs(values) * 2**-11, "int8": spread / 508 + 1e-5}[codec]
    found = through(values, codec)
    assert found.dtype == np.float32 and (np.abs(found - values) <= allowed).all()


def test_two_labels_survive_int8_almost_exactly_and_equal_logits_exactly():
    assert np.abs(through(logits(100, 2), "int8") - logits(100, 2)).max() < 1e-5
    assert np.array_equal(through(np.full((3, 4), 1.5, np.float32), "int8"), np.full((3, 4), 1.5))


@pytest.mark.parametrize("codec", CODECS)
def test_no_targets_are_no_targets(codec):
    assert through(np.empty((0, 3), np.float32), codec).shape == (0, 3)


def test_float16_refuses_what_it_cannot_hold():
    with pytest.raises(CacheError, match=r"70000 is too large for cache.codec: float16. Use float32 or int8"):
        encode(np.array([[70000, 0]], np.float32), "float16")


@pytest.mark.parametrize("codec", ["float16", "int8"])
def test_what_is_lost_is_what_torch_says(codec):
    values = logits(40, 7)
    found = loss(Choice(), values, through(values, codec))
    assert found.targets == 40 and found.largest == np.abs(values - through(values, codec)).max()
    one, two = (torch.from_numpy(z).double() for z in (values, through(values, codec)))
    for temperature, kl in zip(TEMPERATURES, found.kl, strict=True):
        wanted = torch.nn.functional.kl_div((two / temperature).log_softmax(-1), (one / temperature).log_softmax(-1),
                                            reduction="sum", log_target=True)
        assert kl == pytest.approx(float(wanted), abs=1e-12) and kl > 0
