"""The labels of the data become ids: those of the teacher, or in the order of their names.

Knows nothing about files or tokens.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdray.errors import DataError

logger = logging.getLogger("kdray")
_NUMBER = re.compile(r"\d+")
_SHOWN = 20
_NO_VALUE = ("nan", "null", "<na>")


@dataclass(frozen=True)
class Found:
    """Where a label is in a split."""

    rows: int
    first: int
    """The first of these rows."""


Seen = dict[str, Found]
"""The labels of a split, as they are written."""


@dataclass(frozen=True)
class Labels:
    """Label names by id, and the id of each label as the data writes it."""

    names: list[str]
    ids: dict[str, int]


def merge(one: Seen, other: Seen) -> Seen:
    """The labels of rows, and of more rows behind them."""
    both = {name: Found(one[name].rows + other[name].rows, one[name].first) for name in one.keys() & other.keys()}
    return {**other, **one, **both}


def fixed(names: Sequence[str], order: list[str] | None, train: Seen, fewest: int) -> Labels:
    """The labels of a task that has its own `names`, by the ids of the teacher's `order`.

    Raises DataError where the teacher has more or fewer, or the rows of train say fewer than `fewest` things.
    """
    if len(train) < fewest:
        raise DataError(f"all rows of the train split say the same ({', '.join(train)}): nothing to learn")
    if order is not None and len(order) != len(names):
        raise DataError(f"the teacher says {len(order)} things of a row ({_some(order)}), this task {len(names)} "
                        f"({', '.join(names)}). Take a teacher of this task, or fine-tune it (teacher.finetune)")
    return Labels(list(names), {name: index for index, name in enumerate(names)})


def label_ids(seen: Mapping[str, Seen], order: list[str] | None, fewest: int = 2) -> Labels:
    """The labels of the splits, by the ids of the teacher's `order`, else sorted by name.

    Raises DataError where train has fewer than `fewest`, another split has a label that train lacks, or the labels are
    not those of `order`.
    """
    train = seen["train"]
    if len(train) < fewest:
        raise DataError(f"the train split has one class only ({', '.join(train)}): nothing to learn" if train else
                        "no row of the train split has a label: nothing to learn")
    if order is not None:
        return Labels(order, _ids_in(order, set().union(*seen.values())))
    for split, found in seen.items():
        _check_known(split, found, train)
    _warn(train)
    names = sorted(train)
    return Labels(names, {name: index for index, name in enumerate(names)})


def _check_known(split: str, found: Seen, train: Seen) -> None:
    strange = [f"{name!r} ({found[name].rows} rows, the first is row {found[name].first})"
               for name in sorted(found.keys() - train.keys())]
    if strange:
        raise DataError(f"the {split} split has labels that no row of train has: {_some(strange)}. Put rows of "
                        f"{'it' if len(strange) == 1 else 'each'} into train, or take these out of {split}; train has "
                        f"{_some(sorted(train))}")


def _warn(train: Seen) -> None:
    """Says which labels of train look like slips."""
    alike: dict[str, list[str]] = {}
    for name in sorted(train):
        alike.setdefault(_plain(name), []).append(name)
    if slips := [_counted(train, names) for names in alike.values() if len(names) > 1]:
        logger.warning("labels of train that differ in spaces or case alone are classes of their own: %s. Where they "
                       "are one, write them alike", "; ".join(slips[:_SHOWN]))
    if lost := [name for name in train if name.strip().lower() in _NO_VALUE]:
        logger.warning("labels of train that look like missing ones are classes: %s. Where they are missing, take "
                       "these rows out", _counted(train, lost))


def _counted(seen: Seen, names: Iterable[str]) -> str:
    return ", ".join(f"{name!r} ({seen[name].rows} rows)" for name in names)


def _ids_in(order: list[str], names: set[str]) -> dict[str, int]:
    """The teacher's id of each of the data's `names`: by name, by the number in its name, or as an id. Says which."""
    exact, alike, numbers = _by_name(order), _by_name(map(_plain, order)), _by_number(order)
    ids = {str(index): index for index in range(len(order))}
    if names <= exact.keys():
        return {name: exact[name] for name in names}
    if len(alike) == len(order) and all(_plain(name) in alike for name in names):
        return _told(logging.INFO, "the teacher's, written otherwise", order,
                     {name: alike[_plain(name)] for name in names})
    if names <= numbers.keys() and numbers != ids:
        return _told(logging.INFO, "the numbers in the teacher's names", order,
                     {name: numbers[name] for name in names})
    if names <= ids.keys() and numbers in ({}, ids):
        missing = "" if "0" in names else ". None is 0: where they count from 1, all are off by one"
        return _told(logging.WARNING if missing else logging.INFO, "the teacher's ids", order,
                     {name: ids[name] for name in names}, missing)
    doubt = ", whose numbers are not their ids" if names <= ids.keys() else ""
    raise DataError(f"the teacher's labels are {_some(order)}{doubt}, but the data "
                    f"{'has' if doubt else 'also has'} {_some(sorted(names - exact.keys()))}. Rename the labels in the "
                    "data, or fine-tune the teacher (teacher.finetune)")


def _told(level: int, what: str, order: list[str], ids: dict[str, int], more: str = "") -> dict[str, int]:
    logger.log(level, "the labels of the data are %s: %s%s", what,
               _some([f"{name!r} is {order[ids[name]]!r}" for name in sorted(ids)]), more)
    return ids


def _by_name(names: Iterable[str]) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


def _by_number(order: list[str]) -> dict[str, int]:
    """Ids by the only number in each name, as in 1 star to 5 stars; none where a name has none, or two have one."""
    found = [_NUMBER.findall(name) for name in order]
    numbers = _by_name(str(int(each[0])) for each in found if len(each) == 1)
    return numbers if len(numbers) == len(order) else {}


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
