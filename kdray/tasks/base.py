"""The interface that every task fills: columns in, model head, targets, metrics, answer out.

A *unit* is what gets one label: the row itself for a sequence task, a word for a token task. A *target* is a unit that
the model sees, so that it has a vector of logits. What these say is the task's *output*.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array, vstack

from kdray.outputs import Output
from kdray.outputs.base import AllSaid

Row = dict[str, Any]
_SWAPPED = 0.2
"""Share of a phrase's words that give way to others."""


@dataclass(frozen=True)
class Units:
    """A text, cut up for phrases."""

    parts: list[str]
    between: str
    """What stands between two of them."""
    others: Sequence[str]
    """What may take the place of one."""


Cut = Callable[[str], Units]
"""Cuts a text into words; into tokens, where its script has no spaces."""


def phrase_of(words: list[str], random: np.random.Generator, others: Sequence[str]) -> list[str]:
    """Two words or more that follow each other, any number and place as likely; a fifth of them give way to `others`.

    After Tang et al. 2019 (arXiv 1903.12136), who make transfer sets of n-grams and of replaced words for a BiLSTM. A
    single word is a run of itself; where there are no others, none gives way.
    """
    length = int(random.integers(min(2, len(words)), len(words) + 1))
    start = int(random.integers(len(words) - length + 1))
    run, swapped = words[start:start + length], random.random(length) < _SWAPPED
    if not others:
        return run
    return [others[place] if swap else word
            for word, swap, place in zip(run, swapped, random.integers(len(others), size=length), strict=True)]


@dataclass(frozen=True)
class Encoded:
    """Tokenised rows, one list entry a row."""

    input_ids: list[list[int]]
    token_type_ids: list[list[int]] | None
    targets: list[list[int]]
    """Index of the unit of each target."""
    positions: list[list[int]]
    """Token whose output is each target's logits; unused where the head pools the row."""
    entries: list[list[int]] | None = None
    """Where a row may be read in several entries, one after another in all that is above: tokens of each."""


class Tally(Protocol):
    """What some rows show of a model's quality."""

    def rates(self, weights: np.ndarray) -> dict[str, float]:
        """Every metric that there is gold for, of the rows each taken `weights` times: (rows,)."""

    def beside(self, other: Any) -> "Tally":
        """Of these rows, and behind them of those of another tally of the same task and labels."""


@dataclass(frozen=True)
class Counts:
    """A tally that adds up: the metrics follow from sums over rows."""

    counts: csr_array
    """(rows, counts)."""
    rated: Callable[[np.ndarray], dict[str, float]]
    """Every metric, from summed counts."""

    def rates(self, weights: np.ndarray) -> dict[str, float]:
        """Those of the weighed sums."""
        return self.rated(weights @ self.counts)

    def beside(self, other: "Counts") -> "Counts":
        """Rows of both."""
        return Counts(csr_array(vstack([self.counts, other.counts])), self.rated)


class Task(Protocol):
    """One task, named as Hugging Face names its model head."""

    name: str
    output: Output
    pipeline_tag: str
    """The task's name in the Hugging Face inference protocol."""
    auto_class: str
    """Name of the class in `transformers` that loads the model with its head."""
    codec: str
    """How a cache stores the task's logits where the config leaves it open."""
    columns: dict[str, bool]
    """Task columns, and whether the data must have them."""
    label_column: str
    names: tuple[str, ...]
    """The labels, where they are the same for all data; empty where the data has them."""
    problem: str | None
    """What `transformers` calls the problem where its head does not see it from the labels."""
    unit: str
    """What a unit is called."""
    shown: str
    """How the service's page shows an answer: labels, flags, number, vectors, entities or answer."""
    ranked: bool
    """Whether an answer is a list of labels with scores, best first."""
    markers: Mapping[str, str]
    """Tokens that the task puts into rows, and words that say what each means; mostly none."""
    example: Any
    """An input of the inference protocol."""
    labelled: bool
    """Whether rows say what is right; where none does, a teacher alone is learned from, and measured against."""
    options: tuple[str, ...]
    """Parameters that the inference protocol has at the root of a request."""
    routes: tuple[str, ...]
    """What answers beside the inference protocol: embeddings, rerank."""
    use: tuple[str, str] | None
    """A library that loads what is packed, and Python that uses it; None where that is a pipeline of transformers."""
    metrics: tuple[str, ...]
    """Metrics that may pick the winner, the one that does first; all are better when larger."""
    fields: tuple[str, ...]
    """What an input of the task is made of where each part has a tensor of its own; one alone is the input itself."""

    def plain(self, columns: dict[str, Any]) -> dict[str, Any]:
        """The task's columns, Arrow arrays as they were read, with texts or lists of them in the place of all else."""

    def complaint(self, row: Row) -> str | None:
        """What is wrong with a row's columns, None where nothing is; the label matters where the row has its column."""

    def phrase(self, row: Row, random: np.random.Generator, cut: Cut) -> Row:
        """A random run of the row's words, some of which give way to others, without a label."""

    def labels(self, row: Row) -> list[str]:
        """What the row says of its units: names of labels, or numbers."""

    def stratum(self, row: Row) -> str:
        """What a stratified cut keeps in proportion."""

    def traits(self, row: Row) -> set[Any]:
        """What the row shows of how labels are written; the union over all rows is what `remarks` takes."""

    def remarks(self, labels: list[str], traits: set[Any]) -> Iterator[tuple[int, str]]:
        """What is to be said of the labels of a corpus and their `traits`: levels of logging, and texts."""

    def rows(self, row: Row) -> list[Row]:
        """The rows of the corpus that a row of data becomes; mostly itself."""

    def item(self, row: Row) -> Any:
        """The row as an input of the inference protocol; equal rows have equal items."""

    def group(self, row: Row) -> str:
        """What a cut keeps on one side: rows with the same would tell each other's labels."""

    def space(self, tokenizer: Any) -> str:
        """What goes before each word that is given by itself, so that it is read as within a text; mostly nothing."""

    def encode(self, tokenizer: Any, rows: list[Row], max_length: int) -> Encoded:
        """Tokenises rows with a fast `transformers` tokenizer; at most `max_length` tokens a row."""

    def gather(self, logits: Any, row: Any, position: Any) -> Any:
        """Model output to targets: a tensor (rows, [tokens,] labels) to (targets, labels).

        `row` and `position` are integer tensors (targets,): each target's row in the batch and its token.
        """

    def decide(self, logits: np.ndarray, targets: np.ndarray, units: int, labels: list[str]) -> np.ndarray:
        """The output's decision for each of the row's `units`, from logits (targets, labels)."""

    def truth(self, gold: list[np.ndarray], raw: pa.Table, teacher: list[np.ndarray]) -> list[Any]:
        """What each row's decisions are measured with: mostly its gold (units, ...).

        `raw` are the rows' columns; `teacher` its logits (targets, labels) of each where the task is not `labelled`,
        else empty.
        """

    def right(self, truth: Any, decided: np.ndarray) -> bool:
        """Whether all that is decided of a row is right."""

    def tally(self, truth: list[Any], predicted: list[np.ndarray], labels: list[str]) -> Tally:
        """What decides the metrics of any of these rows, from the truth and the decisions (units, ...) of each."""

    def tuned(self, truth: list[Any], unsettled: list[np.ndarray]) -> float:
        """The threshold that `unsettled` decisions of rows are best settled at; asked where the output is tunable."""

    def say(self, told: Any, row: Row) -> str:
        """What the output told of a unit of a row, for people."""

    def cut_by_pipeline(self, max_length: int) -> dict[str, Any] | None:
        """What makes `transformers.pipeline` cut rows at so many tokens, where it takes that as an option.

        None where no pipeline gives the task's answers.
        """

    def taught(self, row: Row, said: list[Any]) -> Row | None:
        """A row of `requests` as data, with what a model said of it; None where that is not of all its units."""

    def requests(self, item: Any, tokenizer: Any, max_length: int) -> list[Row]:
        """Rows to run for one input of the inference protocol, raising ValueError where it is none."""

    def answer(self, rows: list[Row], logits: list[np.ndarray], targets: list[np.ndarray], labels: list[str],
               parameters: dict[str, Any]) -> Any:
        """The inference protocol's answer to one input, from the logits of its rows."""


class Usual:
    """What most tasks say alike."""

    names: tuple[str, ...] = ()
    problem: str | None = None
    markers: Mapping[str, str] = {}
    fields: tuple[str, ...] = ("text",)
    labelled = True
    options: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    use: tuple[str, str] | None = None

    def plain(self, columns: dict[str, Any]) -> dict[str, Any]:
        """As they are."""
        return columns

    def traits(self, row: Row) -> set[Any]:
        """None."""
        return set()

    def remarks(self, labels: list[str], traits: set[Any]) -> Iterator[tuple[int, str]]:
        """None."""
        return iter(())

    def rows(self, row: Row) -> list[Row]:
        """Itself."""
        return [row]

    def group(self: Any, row: Row) -> str:
        """All that is read."""
        return str(self.item(row))

    def space(self, tokenizer: Any) -> str:
        """Nothing: texts are given whole."""
        return ""

    def truth(self, gold: list[np.ndarray], raw: pa.Table, teacher: list[np.ndarray]) -> list[Any]:
        """The gold."""
        return gold

    def right(self, truth: Any, decided: np.ndarray) -> bool:
        """Whether it is the gold."""
        return np.array_equal(truth, decided)

    def tuned(self, truth: list[Any], unsettled: list[np.ndarray]) -> float:
        """Decisions stay as they are."""
        return 0.0

    def say(self, told: Any, row: Row) -> str:
        """The name, the names, or the number."""
        if isinstance(told, float):
            return f"{told:.3f}" if told == told else "not known"
        return ", ".join(told) or "none" if isinstance(told, list) else str(told)

    def cut_by_pipeline(self, max_length: int) -> dict[str, Any] | None:
        """It takes no such option."""
        return {}


def measured(task: Task, gold: list[np.ndarray], raw: pa.Table) -> list[str]:
    """The metrics that there is gold for, (units, ...) of each row, of a task that is not `labelled`."""
    nothing = [np.zeros((len(part), 1)) for part in gold]
    return list(scores_of(task, task.truth(gold, raw, nothing), nothing, []))


def scores_of(task: Task, truth: list[Any], predicted: list[np.ndarray], labels: list[str]) -> dict[str, float]:
    """Every metric, from the truth and the decisions (units, ...) of each row."""
    return task.tally(truth, predicted, labels).rates(np.ones(len(truth)))


def decisions(task: Task, said: AllSaid, units: np.ndarray, labels: list[str]) -> list[np.ndarray]:
    """Decisions (units, ...) of rows, from what a model says of the targets of each and how many `units` each has."""
    return [task.decide(logits, targets, count, labels)
            for targets, logits, count in zip(*said, units.tolist(), strict=True)]


def unsettled(task: Task, said: AllSaid) -> list[np.ndarray]:
    """The same before a threshold settles them, of what is decided of the targets of each row."""
    return [task.output.among(targets).unsettled(logits) for targets, logits in zip(*said, strict=True)]


def whole(parameters: dict[str, Any], name: str, usual: int) -> int:
    """A parameter of a request that is a whole number above 0, `usual` where it is not there. Raises ValueError."""
    value = parameters.get(name)
    if value is None:
        return usual
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number above 0, not {value!r}")
    return value
