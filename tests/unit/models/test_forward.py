"""A batch's logits are those of its rows one by one."""

import numpy as np
import pytest
import torch

from kdray.models.forward import collate, predict
from kdray.models.load import load_model
from kdray.models.precision import resolve_precision


@pytest.fixture(params=["corpus", "token_corpus"])
def part(request):
    """A corpus, its train rows and its model, with larger weights so that rows have different logits."""
    corpus = request.getfixturevalue(request.param)
    model = load_model(corpus.task, corpus.model, corpus.labels).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight *= 8
    return corpus, corpus.rows("train"), model


@torch.no_grad()
def alone(corpus, rows, model, index: int) -> np.ndarray:
    """Logits of one row without padding, as the model itself gives them."""
    logits = model(torch.tensor(rows.input_ids[index][None].astype(np.int64)),
                   token_type_ids=torch.tensor(rows.token_type_ids[index][None].astype(np.int64))).logits
    return (logits if logits.ndim == 2 else logits[0, rows.positions[index].astype(np.int64)]).numpy()


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000, None])
def test_logits_are_those_of_each_row_alone_in_the_order_asked_for(part, batch_tokens):
    corpus, rows, model = part
    indices = np.random.default_rng(0).permutation(len(rows))[:30]
    found = predict(model, corpus.task, rows, indices, corpus.manifest["pad_token_id"], batch_tokens)
    assert len(found) == 30 and np.concatenate(found)[:, 0].std() > 0.05
    for index, logits in zip(indices, found, strict=True):
        assert logits.dtype == np.float32
        assert logits.shape == (len(rows.targets[index]), len(corpus.labels))
        np.testing.assert_allclose(logits, alone(corpus, rows, model, index), atol=1e-5)


def test_done_is_told_every_row_once(part):
    corpus, rows, model = part
    told: list[int] = []
    predict(model, corpus.task, rows, np.arange(20), corpus.manifest["pad_token_id"], 64, told.append)
    assert sum(told) == 20 and len(told) > 1


def test_a_batch_is_padded_on_the_right_and_masked(token_corpus):
    rows = token_corpus.rows("train")
    indices = np.array([3, 0, 7])
    inputs = collate(rows, indices, 99)
    longest = rows.lengths[indices].max()
    for line, index in enumerate(indices):
        length = rows.lengths[index]
        assert inputs.model["input_ids"][line].tolist() == [*rows.input_ids[index], *[99] * (longest - length)]
        assert inputs.model["attention_mask"][line].tolist() == [1] * length + [0] * (longest - length)
    assert inputs.row.tolist() == [line for line, i in enumerate(indices) for _ in rows.targets[i]]
    assert inputs.position.tolist() == [p for i in indices for p in rows.positions[i]]


def test_logits_of_a_bfloat16_model_are_float32(corpus):
    model = load_model(corpus.task, corpus.model, corpus.labels, dtype=torch.bfloat16).eval()
    [logits] = predict(model, corpus.task, corpus.rows("test"), np.array([0]), 0, 64)
    assert logits.dtype == np.float32


@pytest.mark.parametrize("precision, gpus, wanted", [
    ("float32", 1, "float32"), ("float16", 0, "float16"), ("auto", 1, "bfloat16"), ("auto", 0.5, "bfloat16")])
def test_precision_is_as_asked_and_auto_is_bfloat16_on_a_gpu(precision, gpus, wanted):
    assert resolve_precision(precision, gpus) == wanted


@pytest.mark.parametrize("native, wanted", [(True, "bfloat16"), (False, "float32")])
def test_auto_on_a_processor_follows_its_instructions(monkeypatch, native, wanted):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert resolve_precision("auto") == wanted
