"""A package's lineage becomes its teacher, which answers beside the student, and keeps what they differ on.

Knows nothing about HTTP; Ray Serve holds it as a deployment of its own.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from kdray.cache.reader import SoftTargets
from kdray.config import ServeConfig
from kdray.corpus.rows import Rows
from kdray.corpus.tokenizer import load_tokenizer
from kdray.errors import ModelError
from kdray.serving.advice import choose_threshold
from kdray.serving.backends import torch_model
from kdray.serving.batcher import Batcher
from kdray.serving.predictor import Item, Prediction, Predictor, load_predictor, read_package
from kdray.serving.roster import fetch_package, tokens_of
from kdray.storage import Store, artefact
from kdray.tasks import TASKS, Row, Task
from kdray.teacher.verify import cached_teacher


class Teacher:
    """The teacher of a package: a Ray Serve deployment."""

    def __init__(self, package: str, settings: dict[str, Any]):
        """`package`: the student's; `settings`: a ServeConfig as plain data, whose `teacher` is there."""
        wanted = ServeConfig.model_validate(settings)
        own = wanted.teacher
        assert own is not None
        self._manifest, folder = teacher_of(package)
        self._task = TASKS[self._manifest["task"]]
        self._tokenizer = load_tokenizer(folder)
        model = torch_model(folder, self._task, self._manifest["labels"], own.num_gpus, max(1, int(own.num_cpus)))
        predictor = Predictor(self._task, self._manifest["labels"], self._manifest["max_length"], self._tokenizer,
                              model, wanted.batch_tokens, _tuned(self._manifest))
        self._batcher: Batcher[Item, Prediction] = Batcher(
            predictor.predict, tokens_of(self._manifest["max_length"]), wanted.batch_tokens, wanted.max_queue)
        self._kept = Kept(Path(own.keep).expanduser(), own.keep_mib) if own.keep else None

    async def predict(self, inputs: list[Any], parameters: dict[str, Any]) -> list[Prediction | Exception]:
        """The prediction of each input, or what is wrong with it. Raises FullError where too many wait."""
        return await self._batcher.submit([(item, parameters) for item in inputs])

    async def compare(self, inputs: list[Any], said: list[list[Any]]) -> list[bool]:
        """Whether the teacher says of each input what the student `said`; keeps those where it does not."""
        found = await self.predict(inputs, {})
        agrees = []
        for item, student, prediction in zip(inputs, said, found, strict=True):
            if isinstance(prediction, Prediction):
                agrees.append(_alike(self._task, student, prediction.said))
                if self._kept and not agrees[-1]:
                    self._kept.add(self._row(item, prediction.said), student)
        return agrees

    def _row(self, item: Any, said: list[Any]) -> Row | None:
        """The input as a row of data with what the teacher said; None where it was cut."""
        rows = self._task.requests(item, self._tokenizer, self._manifest["max_length"])
        return self._task.taught(rows[0], said) if len(rows) == 1 else None


class Kept:
    """Rows on which teacher and student differ, as JSON lines: data of a later run. The oldest go first."""

    def __init__(self, folder: Path, mib: float):
        self._file, self._most = folder / "disagreements.jsonl", mib * 2**20 / 2
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it will hold texts of requests

    def add(self, row: Row | None, student: list[Any]) -> None:
        """Adds a row, labelled by the teacher, with what the student said beside."""
        if row is None:
            return
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "student": student}, ensure_ascii=False) + "\n")
            full = file.tell() > self._most
        if full:
            self._file.replace(self._file.with_name("disagreements-before.jsonl"))


def teacher_of(package: str) -> tuple[dict[str, Any], Path]:
    """Manifest of the package at a URI, and the folder of the teacher that it was distilled from.

    Raises ModelError where its lineage leads to no one teacher.
    """
    manifest, cache, store = _lineage(package)
    return manifest, cached_teacher(store, cache)


def threshold(package: str, settings: ServeConfig, quality: float) -> float:
    """Confidence of the package's student below which its teacher must answer, by the validation split.

    So the two have at least `quality` times the rows right that the teacher has.
    """
    manifest, cache, store = _lineage(package)
    task, labels = TASKS[manifest["task"]], manifest["labels"]
    rows = Rows.open(store.fetch("corpus", cache["parents"]["corpus"]), "validation")
    predictor = load_predictor(fetch_package(package), settings.backend, 0, max(1, int(settings.num_cpus)),
                               settings.batch_tokens)
    found = [one if isinstance(one, Prediction) else Prediction([], [], 0.0)
             for one in predictor.predict([(item, {}) for item in rows.items(task)])]
    soft = SoftTargets(store, cache["key"], "validation")
    output, shape = task.output, task.output.shape(len(labels))
    gold = [output.told(output.seen(rows.gold_of(row, shape), soft[row][0]), labels) for row in range(len(rows))]
    tuned = _tuned(manifest)
    teacher = [output.told(output.among(units).decide(output.moved(logits, units, tuned)), labels)
               for units, logits in map(soft.__getitem__, range(len(rows)))]
    return choose_threshold(
        np.array([one.confidence for one in found]),
        np.array([_alike(task, right, one.said) for one, right in zip(found, gold, strict=True)]),
        np.array([_alike(task, right, one) for one, right in zip(teacher, gold, strict=True)]), quality)


def _tuned(package: dict[str, Any]) -> float:
    """What the teacher's decisions are settled at, where its task has a threshold."""
    return float(package.get("numbers", {}).get("thresholds", {}).get("teacher", 0.0))


def _alike(task: Task, one: list[Any], other: list[Any]) -> bool:
    """Whether the same is said of all targets."""
    return len(one) == len(other) and all(map(task.output.told_alike, one, other))


def _lineage(package: str) -> tuple[dict[str, Any], dict[str, Any], Store]:
    manifest = read_package(fetch_package(package))
    found, key = artefact(package, "packages"), manifest.get("lineage", {}).get("cache")
    cache = found[0].manifest("caches", key) if found and key else None
    if found is None or cache is None or "members" in cache:
        raise ModelError(f"{package} leads to no one teacher: serve.teacher needs the storage in which the run was "
                         "made, and a cache of one teacher")
    return manifest, cache, found[0]
