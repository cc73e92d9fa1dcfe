"""Tags of words become entities, whichever scheme they are written in.

IO, IOB1, IOB2, IOBES, BILOU and BMES differ in which tags begin and which end an entity. Labels tell them apart, all
but IOB1 and IOB2, which one rule reads rightly: whoever has a model's labels can read its tags.
"""

from collections.abc import Iterable
from dataclasses import dataclass

OUTSIDE = "O"
_SIGNS = {"IO": "I", "IOB": "IB", "IOBES": "IBES", "BILOU": "BILU", "BMES": "BMES"}
_ALL = frozenset("IBESLUM")
_BEGIN, _END = frozenset("BSU"), frozenset("ELSU")
_NAMELESS = "entity"
"""The kind of entities where tags are B, I and O alone."""


@dataclass(frozen=True)
class Scheme:
    """How to read tags."""

    name: str | None
    """IO, IOB, IOBES, BILOU or BMES; None where tags are names alone."""
    outside: bool
    """Whether there is a tag for what is no entity."""

    def split(self, tag: str) -> tuple[str, str]:
        """Sign and kind of a tag that is not O. A name alone is I, and a unit of its own where all words have one."""
        sign, kind = _signed(tag) if self.name else ("", "")
        return (sign, kind) if sign else ("I" if self.outside else "U", tag)


def scheme_of(labels: Iterable[str]) -> Scheme:
    """The scheme of a set of tags: the smallest that has all their signs, some names alone aside.

    What ends has begun: E- without B- is a name.
    """
    tags = set(labels)
    signs = {_signed(tag)[0] for tag in tags if tag != OUTSIDE}
    sound = "B" in signs or not signs & set("ELM")
    known = (name for name, of_it in _SIGNS.items() if signs - {""} <= set(of_it))
    return Scheme(next(known, None) if sound and signs != {""} else None, OUTSIDE in tags)


def _signed(tag: str) -> tuple[str, str]:
    """Sign and kind of a tag; no sign where it is a name alone."""
    sign, _, kind = tag.partition("-")
    return (sign, kind or _NAMELESS) if sign in _ALL else ("", tag)


def spans(tags: list[str], scheme: Scheme) -> list[tuple[str, int, int]]:
    """Entities (kind, first word, word after the last).

    Tags that a scheme does not allow are read as conlleval reads them: what continues nothing begins an entity.
    """
    found: list[tuple[str, int, int]] = []
    going_on = False
    for index, tag in enumerate(tags):
        if tag == OUTSIDE:
            going_on = False
            continue
        sign, kind = scheme.split(tag)
        if going_on and sign not in _BEGIN and kind == found[-1][0]:
            found[-1] = kind, found[-1][1], index + 1
        else:
            found.append((kind, index, index + 1))
        going_on = sign not in _END
    return found


def neighbours(tags: list[str]) -> set[tuple[str, str]]:
    """Every tag with the one before it."""
    return set(zip([OUTSIDE, *tags], tags, strict=False))


def remark(labels: Iterable[str], pairs: set[tuple[str, str]]) -> str | None:
    """What is to be said of the tags of some rows, None of IOB2; `pairs` are their `neighbours`."""
    scheme = scheme_of(labels)
    if scheme.name is None:
        return ("tags have no signs such as B- and I-: neighbours with the same tag are one entity" if scheme.outside
                else "no tag is O: every word is scored by itself")
    if scheme.name != "IOB":
        return f"tags are {scheme.name}"
    first = {scheme.split(tag)[0] for before, tag in pairs if tag != OUTSIDE and not _same_kind(before, tag, scheme)}
    if "I" not in first:
        return None
    return "tags are IOB2, and some entities begin with I- all the same" if "B" in first else "tags are IOB1"


def _same_kind(before: str, tag: str, scheme: Scheme) -> bool:
    return before != OUTSIDE and scheme.split(before)[1] == scheme.split(tag)[1]
