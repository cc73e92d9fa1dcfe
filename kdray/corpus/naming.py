"""Names of splits, as data sets and files have them, become kdray's.

Knows nothing about rows.
"""

import logging
from collections.abc import Sequence

from kdray.config import DataConfig
from kdray.errors import DataError

logger = logging.getLogger("kdray")
SPLIT_NAMES = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation",
               "val": "validation", "test": "test"}


def named_splits(there: Sequence[str], data: DataConfig) -> dict[str, str]:
    """The name in `data.source`, which has the splits `there`, of each split: the one configured, else a usual one.

    Says which splits are left out. Raises DataError where one that is configured is not there, or none is train.
    """
    found, named = {}, {split: getattr(data, split) for split in ("train", "validation", "test")}
    for split, own in named.items():
        if own is not None and own not in there:
            raise DataError(f"data.{split} = {own} beside data.source names a split of {data.source}, which has "
                            f"{', '.join(there)}. Where it is a source of its own, name that of the training rows as "
                            "data.train, and leave data.source out")
        usual = (name for name in there if SPLIT_NAMES.get(name) == split and name not in named.values())
        name = own or next(usual, None)
        if name is not None:
            found[split] = name
    if "train" not in found:
        raise DataError(f"{data.source} has no train split, only {', '.join(there)}. Name one: data.train: SPLIT")
    _tell(data, found, [name for name in there if name not in found.values()])
    return found


def _tell(data: DataConfig, found: dict[str, str], unused: list[str]) -> None:
    if not unused:
        return
    cut = [split for split in ("validation", "test") if split not in found]
    text = f", and {' and '.join(cut)} cut off train" if cut else ""
    logger.log(logging.WARNING if cut else logging.INFO, "%s: its splits %s are left out%s. To use one, name it: "
               "data.%s: %s", data.source, ", ".join(unused), text, cut[0] if cut else "validation", unused[0])
