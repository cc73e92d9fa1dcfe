"""Logits become the columns of a shard, smaller where asked, and back; and what that costs.

Knows nothing about files. `int8` is affine by target: q = round((z - offset) / scale), offset the middle of the
target's logits and scale their spread / 254, so that no logit moves by more than half a scale.
"""

from dataclasses import dataclass

import numpy as np

from kdray.errors import CacheError
from kdray.outputs import Output

CODECS = ("float32", "float16", "int8")
TEMPERATURES = (1, 2, 4, 8)
_STEPS = 254


@dataclass(frozen=True)
class Loss:
    """What a codec changed in some targets' logits."""

    targets: int
    largest: float
    """Largest difference of a logit."""
    kl: tuple[float, ...]
    """KL(logits || decoded) summed over the targets, at each T of TEMPERATURES."""


def encode(logits: np.ndarray, codec: str) -> dict[str, np.ndarray]:
    """Logits, float32 (targets, labels), as columns: `logits`, and for int8 `scale` and `offset`, each (targets,).

    Raises CacheError where float16 cannot hold a logit.
    """
    if codec == "float32":
        return {"logits": logits}
    if codec == "float16":
        largest = np.abs(logits).max(initial=0)
        if largest > np.finfo(np.float16).max:
            raise CacheError(f"a logit of {largest:g} is too large for cache.codec: float16. Use float32 or int8")
        return {"logits": logits.astype(np.float16)}
    low, high = logits.min(-1, initial=np.inf), logits.max(-1, initial=-np.inf)
    scale, offset = (high - low) / _STEPS, (high + low) / 2
    steps = (logits - offset[:, None]) / np.where(scale > 0, scale, 1)[:, None]
    return {"logits": np.rint(steps).astype(np.int8), "scale": scale, "offset": offset}


def decode(logits: np.ndarray, scale: np.ndarray | None, offset: np.ndarray | None) -> np.ndarray:
    """Columns of some targets as float32 (targets, labels); float32 columns are given back as they are."""
    if scale is None or offset is None:
        return logits.astype(np.float32, copy=False)
    return logits * scale[:, None] + offset[:, None]


def loss(output: Output, logits: np.ndarray, decoded: np.ndarray) -> Loss:
    """What became of `logits` (targets, labels), which an output is among, in `decoded`."""
    if decoded is logits:
        return Loss(len(logits), 0.0, (0.0,) * len(TEMPERATURES))
    apart = [output.divergence(logits, decoded, temperature) for temperature in TEMPERATURES]
    return Loss(len(apart[0]), float(np.abs(logits - decoded).max(initial=0)), tuple(float(kl.sum()) for kl in apart))
