"""Lengths become batches of similar length, limited by padded tokens.

Knows nothing about rows or models, and imports no torch: serving on ONNX uses it too.
"""

import numpy as np


def length_batches(lengths: np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """Indices into `lengths` as batches of similar length, longest first, each within `max_tokens` padded.

    A row longer than `max_tokens` is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        rows = max(1, max_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start:start + rows])
        start += rows
    return batches
