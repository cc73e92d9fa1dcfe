"""Rows without splits become train, validation and test rows: stratified, seeded, equal texts kept together.

Knows nothing about tokens; a row is its stratum, its labels and its text.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from kdray.errors import DataError

_RARE = 10


def cut(strata: Sequence[str], labels: Sequence[Sequence[str]], texts: Sequence[str], share: float,
        seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted row indices (kept, cut off), about `share` of the distinct texts cut off.

    Rows with the same text go to the same side, so that no duplicate leaks from train to test. Strata with fewer than
    10 rows are cut as one; of a label that no kept row has, the first row goes back. Raises DataError where there are
    too few rows.
    """
    first_of: dict[str, int] = {}
    group = np.array([first_of.setdefault(text, index) for index, text in enumerate(texts)])
    leaders = np.unique(group)
    counts = Counter(strata[index] for index in leaders)
    coarse = ["" if counts[strata[index]] < _RARE else strata[index] for index in leaders]
    rows, off = np.arange(len(texts)), np.zeros(len(texts), bool)
    off[np.isin(group, _drawn(leaders, coarse, share, seed))] = True
    _give_back(off, labels, group)
    if not off.any():
        raise DataError(f"cannot cut {share:.0%} off {len(leaders)} distinct rows: each has a label of its own. Give "
                        "more rows a label, or splits of your own")
    return rows[~off], rows[off]


def _drawn(leaders: np.ndarray, strata: list[str], share: float, seed: int) -> np.ndarray:
    """A share of the leaders, and of each stratum; of all as one where a stratum has one row, or the share fewer rows
    than there are strata."""
    from sklearn.model_selection import train_test_split

    sizes = Counter(strata)
    alike = min(sizes.values()) > 1 and len(sizes) <= math.ceil(share * len(leaders))
    try:
        _, drawn = train_test_split(leaders, test_size=share, random_state=seed, stratify=strata if alike else None)
    except ValueError as error:
        raise DataError(f"cannot cut {share:.0%} off {len(leaders)} distinct rows ({error}). Give more rows, or "
                        "splits of your own") from error
    return drawn


def _give_back(off: np.ndarray, labels: Sequence[Sequence[str]], group: np.ndarray) -> None:
    """Unmarks in `off` the first row, and those with its text, of each label that is in none of the other rows."""
    kept = {label for index in np.flatnonzero(~off).tolist() for label in labels[index]}
    marked: dict[int, list[int]] = {}
    for index in np.flatnonzero(off).tolist():
        marked.setdefault(group[index], []).append(index)
    for rows in marked.values():
        found = {label for row in rows for label in labels[row]}
        if not found <= kept:
            off[rows] = False
            kept |= found
