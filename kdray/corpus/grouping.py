"""Lengths become batches of similar length, limited by padded tokens.

Knows nothing about rows or models, and imports no torch: serving on ONNX uses it too.
"""

import numpy as np

_PADDING = 0.1
"""Share of a row that may be padding before a batch ends early, once a quarter of its tokens is reached."""


def length_batches(lengths: np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """Indices into `lengths` as batches of similar length, longest first, each within `max_tokens` padded.

    A batch of at least a quarter of `max_tokens` ends where the next row would be more than a tenth padding. A row
    longer than `max_tokens` is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    falling = -lengths[order]
    batches, start = [], 0
    while start < len(order):
        longest = max(1, -int(falling[start]))
        similar = int(np.searchsorted(falling, -(1 - _PADDING) * longest, side="right"))
        rows = min(max(similar - start, max_tokens // 4 // longest, 1), max(max_tokens // longest, 1))
        batches.append(order[start:start + rows])
        start += rows
    return batches


def placed(lengths: np.ndarray, sizes: np.ndarray, counts: np.ndarray,
           positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entry and token of each target, (targets,) both, among the entries of a batch.

    `lengths` are the tokens of each row, `sizes` those of each entry, `counts` the targets of each row and `positions`
    the token of each target in its row.
    """
    row = np.repeat(np.arange(len(lengths)), counts)
    if len(sizes) == len(lengths):
        return row, positions
    places, ends = (np.cumsum(lengths) - lengths)[row] + positions, np.cumsum(sizes)
    entry = np.searchsorted(ends, places, "right")
    return entry, places - (ends - sizes)[entry]
