"""A start and an end among a row's own targets: a softmax over those of a window, with two logits a target.

A target is a token of the text in which an answer is looked for, and its unit the character that it starts at. A row is
read in one window or in several, and in each a first target says that there is no answer (`windows`). So units say what
belongs together, and two tokenizers meet in them.

What is decided of a row is (first character, the one after the last), (NONE, NONE) where there is no answer. Units say
where tokens start, so that an answer ends where the next token starts: to leave out spaces is for those who have the
text.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdray.outputs.base import UNLABELLED, AllSaid, Said, Summary, Usual
from kdray.outputs.doubts import ENOUGH, constant, strange, unfit
from kdray.outputs.threshold import best_threshold
from kdray.outputs.windows import LONGEST, NONE, Candidate, Windows, ends, spans_of, token_at, token_starts

if TYPE_CHECKING:
    from torch import Tensor

_NEVER = -1e4
"""Logit of what a model cannot say, since its tokenizer cuts elsewhere: finite, with a probability of 0 at any T."""
_BINS = 10
_SPREAD, _RIGHT, _TOLD = 0.01, 0.02, 0.55


class Span(Usual):
    """The start and the end whose logits add up to most, unless no answer has more in every window."""

    losses: tuple[str, ...] = ("kl",)
    tempered: tuple[str, ...] = ("kl",)
    sure = True
    named = False
    unknown: float = UNLABELLED
    whole = True
    fewest = 2
    tunable = True

    def __init__(self, targets: np.ndarray | None = None):
        self._windows = Windows(np.empty(0, np.int64) if targets is None else np.asarray(targets))

    def among(self, targets: np.ndarray) -> "Span":
        """The output of these targets."""
        return Span(targets)

    def shape(self, labels: int) -> tuple[int, ...]:
        """First character, and the one after the last."""
        return (2,)

    def units(self, targets: Sequence[int]) -> int:
        """A row is one."""
        return 1

    def counted(self, targets: np.ndarray) -> int:
        """A window counts as one."""
        return len(Windows(targets).starts)

    def gold(self, said: Sequence[str], ids: Mapping[str, int], labels: int) -> list[float]:
        """The two characters."""
        return [int(place) for place in said]

    def known(self, gold: np.ndarray) -> np.ndarray:
        """Those that are not unknown."""
        return gold[..., 0] != UNLABELLED

    def seen(self, gold: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The row's gold, as wide as the tokens that it is in; none where there are no targets."""
        characters = token_starts(targets)
        if not len(characters) or gold[0, 0] < 0:
            return gold[:len(Windows(targets).rows)]
        first, last = token_at(characters, gold[0, 0]), token_at(characters, gold[0, 1] - 1)
        return np.array([[first, ends(np.array([last]), characters)[0]]], gold.dtype)

    def taught(self, gold: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """(targets, 2): 1 where a window's start and end are, which are its first target where it has not got both."""
        if gold[0, 0] == UNLABELLED:
            return np.full((len(targets), 2), UNLABELLED)
        flags, characters = np.zeros((len(targets), 2), np.int64), token_starts(targets)
        wanted = [token_at(characters, place) for place in (gold[0, 0], gold[0, 1] - 1)]
        for window in spans_of(targets):
            found = [np.flatnonzero(targets[window] == unit) for unit in wanted] if gold[0, 0] >= 0 else []
            start, stop = (place[0] for place in found) if found and all(map(len, found)) else (0, 0)
            flags[window.start + start, 0] = flags[window.start + stop, 1] = 1
        return flags

    def matched(self, targets: np.ndarray, theirs: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Starts where tokens start alike, ends where they end alike, of the window of theirs that shares most text.

        What is not among theirs gets no probability, so that theirs adds up to 1 over what is.
        """
        found, known = np.full((len(targets), 2), _NEVER, np.float32), np.zeros(len(targets), bool)
        sides = [(units, ends(units, token_starts(units))) for units in (targets, theirs)]
        for window in spans_of(targets):
            its = max(spans_of(theirs), key=lambda one: _shared(targets[window], theirs[one]))
            found[window.start], known[window.start] = logits[its.start], True
            for column, (ours, others) in enumerate(zip(*sides, strict=True)):
                _, here, there = np.intersect1d(ours[window][1:], others[its][1:], return_indices=True)
                found[window.start + 1 + here, column] = logits[its.start + 1 + there, column]
                known[window.start + 1 + here] = True
        return found, known

    def common(self, found: Sequence[Said]) -> tuple[np.ndarray, np.ndarray]:
        """The first model's targets."""
        units = found[0][0]
        return units, np.stack([self._at(units, own, logits) for own, logits in found])

    def _at(self, targets: np.ndarray, theirs: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return logits if np.array_equal(targets, theirs) else self.matched(targets, theirs, logits)[0]

    def decide(self, logits: np.ndarray) -> np.ndarray:
        """(rows, 2): the best answer of each row, or that there is none."""
        return self.settle(self.unsettled(logits), 0.0)

    def unsettled(self, logits: np.ndarray) -> np.ndarray:
        """(rows, 3): the best answer of each row, and by how much no answer is better, in logits."""
        found = [(max(those, key=_total), none) if those else (none, none)
                 for those, none in self._windows.answers(logits)]
        return np.array([(one.start, one.stop, none.total - one.total) for one, none in found]).reshape(-1, 3)

    def settle(self, unsettled: np.ndarray, threshold: float) -> np.ndarray:
        """No answer where that is better by more than `threshold`."""
        return np.where(unsettled[..., 2:] > threshold, NONE, unsettled[..., :2]).astype(np.int32)

    def moved(self, logits: np.ndarray, targets: np.ndarray, threshold: float) -> np.ndarray:
        """With less for no answer, by the threshold."""
        return logits - np.where(targets < 0, threshold / 2, 0.0).astype(np.float32)[:, None]

    def alike(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether they are the same characters."""
        return (one == other).all(-1)

    def told(self, decided: np.ndarray, labels: Sequence[str]) -> list[Any]:
        """Both characters as a list, an empty one where there is no answer."""
        return [[] if start == NONE else [start, stop] for start, stop in decided.tolist()]

    def confidence(self, logits: np.ndarray) -> np.ndarray:
        """(rows,): probability of the start times that of the end."""
        return np.array([max([*those, none], key=_total).sure for those, none in self._windows.answers(logits)])

    def confidences(self, counts: np.ndarray, said: AllSaid, labels: int) -> np.ndarray:
        """That of each row."""
        return self.among(np.concatenate(said[0])).confidence(np.concatenate(said[1]))

    def compared(self, counts: np.ndarray, first: AllSaid, said: AllSaid, labels: int) -> tuple[np.ndarray, float]:
        """Row by row; where tokenizers differ, by what they have in common."""
        one = np.concatenate([self._at(own, units, logits) for own, units, logits in zip(said[0], *first, strict=True)])
        other = np.concatenate(said[1])
        divergence = self.among(np.concatenate(said[0])).divergence(one, other)
        return divergence.sum(-1), float(np.abs(other - one)[one > _NEVER].max(initial=0.0))

    def divergence(self, one: np.ndarray, other: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """(rows, 2): mean over a row's windows of half the KL of the start, and of the end."""
        windows = self._windows
        before, after = windows.likely(one, temperature), windows.likely(other, temperature)
        return windows.by_row(windows.sums(np.exp(before) * (before - after))) / 2

    def mean(self, stack: np.ndarray, weights: np.ndarray, temperature: float) -> np.ndarray:
        """T times the logarithm of the mean probability."""
        likely = np.exp([self._windows.likely(logits, temperature) for logits in stack])
        with np.errstate(divide="ignore"):
            return np.maximum(temperature * np.log((weights[:, None, None] * likely).sum(0)), _NEVER)

    def task_loss(self, logits: "Tensor", gold: "Tensor") -> "Tensor":
        """Mean cross-entropy of start and end: what is at the targets of a window adds up to its loss."""
        from kdray.outputs.losses import log_softmax_within

        return -(gold.clamp_min(0) * log_softmax_within(logits, self._windows.of)).mean(-1)

    def kl(self, student: "Tensor", teacher: "Tensor", temperature: "float | Tensor") -> "Tensor":
        """Mean of start and end: what is at the targets of a window adds up to its loss."""
        from kdray.outputs.losses import kl_within

        return kl_within(student, teacher, temperature, self._windows.of)

    def certainty(self, teacher: "Tensor") -> "Tensor":
        """Largest probability of a window, mean of start and end, rescaled: the same at all of its targets."""
        windows = self._windows
        largest = np.maximum.reduceat(np.exp(windows.likely(teacher.cpu().numpy())), windows.starts).mean(-1)
        chance = 1 / windows.sizes
        return teacher.new_tensor(((largest - chance) / (1 - chance)).clip(0)[windows.of])

    def information(self, teacher: "Tensor") -> "Tensor":
        """1 - H / log n in a window of n targets, mean of start and end: the same at all of its targets."""
        windows, likely = self._windows, self._windows.likely(teacher.cpu().numpy())
        entropy = -windows.sums(np.exp(likely) * likely).mean(-1)
        return teacher.new_tensor((1 - entropy / np.log(windows.sizes))[windows.of])

    def breakdown(self, gold: np.ndarray, decided: np.ndarray, confidence: np.ndarray,
                  labels: Sequence[str]) -> dict[str, Any]:
        """Nothing: what is right is for those who have the text."""
        return {}

    def summary(self, logits: np.ndarray, gold: np.ndarray, labels: Sequence[str]) -> Summary:
        """Rows answered exactly, rows with an answer, confidence; of rows with and without answer, how many are right.

        At the threshold at which most rows are right, where gold is known.
        """
        known, there, sure = self.known(gold), gold[:, 0] >= 0, self.confidence(logits)
        unsettled = self.unsettled(logits)
        exact = (gold == unsettled[:, :2]).all(-1) & there
        decided = self.settle(unsettled, answer_threshold(unsettled[known, 2], exact[known], ~there[known])
                              if known.any() else 0.0)
        right = self.alike(gold, decided)
        facts = {"rows answered exactly": float(right[known].mean())} if known.any() else {}
        lines = [(name, int(mine.sum()), (float(right[mine].mean()), float(sure[mine].mean())))
                 for name, mine in (("answer", known & there), ("no answer", known & ~there)) if mine.any()]
        counts, edges = np.histogram(sure, _BINS, (0, 1))
        return Summary({**facts, "rows with an answer": float((decided[:, 0] >= 0).mean()),
                        "mean confidence": float(sure.mean())},
                       "confidence", edges.tolist(), counts.tolist(), ("exact", "confidence"), lines)

    def doubt(self, teacher: np.ndarray, gold: np.ndarray) -> str | None:
        """Constant logits, or answers that are not the gold's."""
        starts = self._windows.starts
        spread = float((np.maximum.reduceat(teacher, starts) - np.minimum.reduceat(teacher, starts)).max())
        if spread < _SPREAD:
            return constant(f"{len(gold)} rows of train, no two logits of a window differ by more than {spread:.2g}")
        if wrong := _wrong(gold, self.unsettled(teacher)):
            return strange(f"do not go with the answers: of {len(gold)} rows of train {wrong}")
        return None

    def check_teacher(self, gold: np.ndarray, unsettled: np.ndarray, labels: Sequence[str]) -> None:
        """By answers that are the gold's; silent about fewer than 100 rows."""
        wrong = _wrong(gold, unsettled) if len(gold) >= ENOUGH else ""
        if wrong:
            raise unfit(f"the teacher does not know this task: of the first {len(gold)} rows {wrong}")


def answers(logits: np.ndarray, targets: np.ndarray, longest: int = LONGEST) -> tuple[list[Candidate], Candidate]:
    """Answers of one row of at most `longest` tokens, the best first, each once; and what says that there is none."""
    ((those, none),) = Windows(targets).answers(logits, longest)
    best = dict[tuple[int, int], Candidate]()
    for one in sorted(those, key=_total, reverse=True):
        best.setdefault((one.start, one.stop), one)
    return list(best.values()), none


def _total(one: Candidate) -> float:
    return one.total


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    """Characters that the tokens of two windows both reach over."""
    return int(min(one[-1], other[-1]) - max(one[:2][-1], other[:2][-1]))


def answer_threshold(margins: np.ndarray, answered: np.ndarray, silent: np.ndarray) -> float:
    """The threshold at which the sum of what rows earn is largest; of several, the one next to 0.

    All (rows,): by how much no answer is better, and what the row earns with its answer and without one.
    """
    order = np.argsort(margins, kind="stable")
    earned = (answered.astype(float) - silent)[order].cumsum()
    return best_threshold(margins[order], np.concatenate([[0.0], earned]))


def _wrong(gold: np.ndarray, unsettled: np.ndarray) -> str:
    """Why decisions are no better than chance, whatever the threshold; empty where they are."""
    there, margins = gold[:, 0] >= 0, unsettled[:, 2]
    exact = (gold == unsettled[:, :2]).all(-1)[there].mean() if there.any() else 0.0
    told = (margins[there, None] < margins[~there]).mean() if there.any() and not there.all() else 0.5
    if exact >= _RIGHT or told >= _TOLD:
        return ""
    return (f"{exact:.1%} of the answers are found, and of a row with an answer and one without, the former is taken "
            f"for it in {told:.0%} of the pairs")
