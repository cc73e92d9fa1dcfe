"""Rows without splits become train, validation and test rows: stratified, seeded, equal texts kept together.

Knows nothing about tokens; a row is its stratum and its text.
"""

from collections import Counter

import numpy as np

from kdray.errors import DataError

_RARE = 10


def cut(strata: list[str], texts: list[str], share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted row indices (kept, cut off), about `share` of the distinct texts cut off.

    Rows with the same text go to the same side, so that no duplicate leaks from train to test. Strata with
    fewer than 10 rows are cut as one. Raises DataError where there are too few rows.
    """
    from sklearn.model_selection import train_test_split

    first_of: dict[str, int] = {}
    group = np.array([first_of.setdefault(text, index) for index, text in enumerate(texts)])
    leaders = np.unique(group)
    counts = Counter(strata[index] for index in leaders)
    coarse = ["" if counts[strata[index]] < _RARE else strata[index] for index in leaders]
    stratify = coarse if min(Counter(coarse).values()) > 1 else None
    try:
        kept, off = train_test_split(leaders, test_size=share, random_state=seed, stratify=stratify)
    except ValueError as error:
        raise DataError(f"cannot cut {share:.0%} off {len(leaders)} distinct rows ({error}). Give more rows, or "
                        "splits of your own") from error
    rows = np.arange(len(texts))
    return rows[np.isin(group, kept)], rows[np.isin(group, off)]
