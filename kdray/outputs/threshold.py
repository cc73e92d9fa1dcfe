"""How good decisions are at each threshold becomes the threshold. Knows nothing about outputs."""

import numpy as np

_FAR = 1e6
_SAME = 1e-9


def best_threshold(values: np.ndarray, quality: np.ndarray) -> float:
    """Of rising `values`, (n,), a point between two of them with the best `quality`: (n + 1,), with 0 to n below it.

    Of several gaps that are as good the one nearest to 0: 0 itself where it is in one, else the middle.
    """
    values = np.clip(np.nan_to_num(values), -_FAR, _FAR)
    edges = np.concatenate([values[:1] - 1, values, values[-1:] + 1])
    below, above = edges[:-1], edges[1:]
    between = np.where((below < 0) & (above > 0), 0.0, (below + above) / 2)
    apart = above > below
    best = np.flatnonzero(apart & (quality >= quality[apart].max() - _SAME))
    return float(between[best[np.abs(between[best]).argmin()]])
