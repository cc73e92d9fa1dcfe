"""What looks odd in rows that were read is said once, however many files and rows have it."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

logger = logging.getLogger("kdray")


@dataclass(frozen=True)
class Oddity:
    """What is to be said of rows."""

    what: str
    """`{count}` in it is how often it is there."""
    where: str
    """One place that has it."""
    count: int = 1
    level: int = logging.WARNING


Told = Callable[[Oddity], None]


def unheard(oddity: Oddity) -> None:
    """A `Told` that says nothing, for rows that are read again."""


def merged(oddities: Iterable[Oddity]) -> list[Oddity]:
    """The same with one of each kind, at the first place, that counts all of them."""
    found: dict[tuple[int, str], Oddity] = {}
    for oddity in oddities:
        before = found.setdefault((oddity.level, oddity.what), replace(oddity, count=0))
        found[oddity.level, oddity.what] = replace(before, count=before.count + oddity.count)
    return list(found.values())


def tell(oddities: Iterable[Oddity]) -> None:
    """Says each kind of oddity once: how many there are, and the first place."""
    for oddity in merged(oddities):
        logger.log(oddity.level, "%s: %s", oddity.where, oddity.what.replace("{count}", str(oddity.count)))
