"""Targets of rows become the windows that they are in; logits of windows become probabilities and answers.

Units are characters that tokens start at, and, before the tokens of each window, a target for no answer: NONE in the
first window of a row, AGAIN in those after it. Knows nothing about gold or losses.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

NONE, AGAIN = -1, -2
LONGEST = 30
"""Tokens that an answer has at most."""
_BEST = 20
"""Starts and ends of a window that are looked at."""
_LAST = 2**31 - 1
"""Where an answer ends that ends with its text."""


@dataclass(frozen=True)
class Candidate:
    """An answer that a row may have: its first character and the one after the last, or NONE twice."""

    start: int
    stop: int
    total: float
    """Sum of its two logits."""
    sure: float
    """Probability of its start times that of its end, in its window."""


@dataclass(frozen=True)
class Windows:
    """Windows of several rows, one after another."""

    units: np.ndarray
    """(targets,)."""

    @cached_property
    def starts(self) -> np.ndarray:
        """(windows,): the first target of each."""
        return np.flatnonzero(self.units < 0)

    @cached_property
    def of(self) -> np.ndarray:
        """(targets,): the window of each."""
        return np.cumsum(self.units < 0) - 1

    @cached_property
    def rows(self) -> np.ndarray:
        """(rows,): the first window of each."""
        return np.flatnonzero(self.units[self.starts] == NONE)

    @cached_property
    def sizes(self) -> np.ndarray:
        """(windows,): targets of each, 2 where there is one: what probabilities are compared with."""
        return np.maximum(np.diff(self.starts, append=len(self.units)), 2)

    def likely(self, logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Log-probabilities over each window, float64 (targets, labels)."""
        shrunk = logits.astype(np.float64) / temperature
        shifted = shrunk - np.maximum.reduceat(shrunk, self.starts)[self.of]
        return shifted - np.log(self.sums(np.exp(shifted)))[self.of]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Values of targets, summed over each window."""
        return np.add.reduceat(values, self.starts)

    def by_row(self, values: np.ndarray) -> np.ndarray:
        """Values of windows, (windows, labels), as the mean of each row's."""
        counts = np.diff(self.rows, append=len(self.starts))[:, None]
        return np.add.reduceat(values, self.rows) / counts if len(self.rows) else values

    def answers(self, logits: np.ndarray, longest: int = LONGEST) -> Iterator[tuple[list[Candidate], Candidate]]:
        """Of each row, answers of at most `longest` tokens, and what says that there is none.

        The latter is of the window that thinks least of it, so that an answer in one window is enough.
        """
        likely, ends = self.likely(logits), [*self.starts[1:], len(self.units)]
        spans = [slice(first, end) for first, end in zip(self.starts, ends, strict=True)]
        for first, last in zip(self.rows, [*self.rows[1:], len(spans)], strict=True):
            mine = spans[first:last]
            least = min((span.start for span in mine), key=lambda place: logits[place].sum())
            none = Candidate(NONE, NONE, float(logits[least].sum()), float(np.exp(likely[least].sum())))
            characters = token_starts(self.units[mine[0].start:mine[-1].stop])
            yield [one for span in mine for one in _candidates(
                self.units[span], logits[span], likely[span], characters, longest)], none


def spans_of(units: np.ndarray) -> list[slice]:
    """Where the windows of a row are among its targets."""
    firsts = np.flatnonzero(units < 0)
    return [slice(first, end) for first, end in zip(firsts, [*firsts[1:], len(units)], strict=True)]


def token_starts(units: np.ndarray) -> np.ndarray:
    """Rising characters at which the tokens of a row start."""
    return np.unique(units[units >= 0])


def ends(units: np.ndarray, characters: np.ndarray) -> np.ndarray:
    """Where each of a row's tokens ends: where the next one starts, of those that start at `characters`."""
    return np.append(characters, _LAST)[np.searchsorted(characters, units, "right")]


def token_at(characters: np.ndarray, character: int) -> int:
    """The unit of the token, of those that start at `characters`, that a character is in: NONE before the first."""
    place = int(np.searchsorted(characters, character, "right")) - 1
    return int(characters[place]) if place >= 0 else NONE


def _candidates(units: np.ndarray, logits: np.ndarray, likely: np.ndarray, characters: np.ndarray,
                longest: int) -> list[Candidate]:
    """Answers in a window: of the best starts with the best ends, each best first, those that can be."""
    first, last = (1 + np.argsort(-logits[1:, column], kind="stable")[:_BEST] for column in (0, 1))
    length = last[None, :] - first[:, None] + 1
    one, other = np.nonzero((length > 0) & (length <= longest))
    starts, stops = first[one], last[other]
    totals = logits[starts, 0] + logits[stops, 1]
    order = np.argsort(-totals, kind="stable")
    starts, stops, totals = starts[order], stops[order], totals[order]
    sure = np.exp(likely[starts, 0] + likely[stops, 1])
    return [Candidate(*found) for found in zip(units[starts].tolist(), ends(units[stops], characters).tolist(),
                                               totals.tolist(), sure.tolist(), strict=True)]
