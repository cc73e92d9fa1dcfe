"""A package and inputs become measures of every backend that can run it here.

Knows nothing about Ray, runs or HTTP: the times are those of the predictor alone.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdray.config import ServeConfig
from kdray.errors import DataError, ModelError
from kdray.models.precision import resolve_precision
from kdray.outputs import Output
from kdray.progress import Progress, progress
from kdray.serving.backends import FILES, resolve_backend
from kdray.serving.predictor import Predictor, load_predictor, read_package
from kdray.serving.texts import spread
from kdray.tasks import TASKS

REFERENCE = "torch float32"
"""What labels are compared with."""
_TOGETHER = 64
"""Inputs of a bulk call: what /v1/predict has in the queue at a time."""
_ROUNDS = 3
_SINGLES = 200
_SECONDS = 3.0
"""What a bulk pass may take in PyTorch float32: a slow model is timed on fewer texts."""


@dataclass(frozen=True)
class Contender:
    """A way to run the package."""

    name: str
    backend: str
    num_gpus: float = 0
    servable: bool = True
    """Whether settings of `serve` lead to it."""

    @property
    def setting(self) -> str:
        """The settings of `serve` that lead to it."""
        return f"serve.backend={self.backend}" + (" serve.num_gpus=1" if self.num_gpus else "")


@dataclass(frozen=True)
class Measure:
    """What a contender did; times are those of its best round."""

    contender: Contender
    bulk: float
    """Texts a second, many at a time."""
    p50: float
    """Milliseconds that a text takes alone: the median."""
    p99: float
    alike: int
    """Labels that are those of PyTorch in float32."""
    size: int
    """Bytes of the file that it reads."""


@dataclass(frozen=True)
class Comparison:
    """What was measured; the first is what the settings lead to today."""

    measures: list[Measure]
    absent: list[str]
    """Backends that are not among them, and why."""
    texts: int
    labels: int
    """Labels of all texts."""

    def agreement(self, measure: Measure) -> float:
        """Share of the labels that are those of PyTorch in float32."""
        return measure.alike / self.labels if self.labels else 1.0


def compare(folder: Path, items: list[Any], settings: ServeConfig) -> Comparison:
    """Runs `items`, inputs of the inference protocol, through every backend of the package in `folder`, in turn.

    Raises ModelError where what `settings` lead to is not there, DataError where the task refuses an input.
    """
    contenders = _contenders(folder, settings)
    predictors, absent = _load_all(folder, contenders, settings, items[0])
    reference = next(one for contender, one in predictors.items() if contender.name == REFERENCE)
    bulk = spread(items, max(_TOGETHER, int(_SECONDS * _rate(reference, items))))
    singles = spread(bulk, _SINGLES)
    bar = progress("bench", len(predictors) * (len(items) + _ROUNDS * (len(bulk) + len(singles))), "texts")
    found = {contender: _said(one, items, bar) for contender, one in predictors.items()}
    times: dict[Contender, list[tuple[float, float, float]]] = {contender: [] for contender in predictors}
    for _ in range(_ROUNDS):
        for contender, one in predictors.items():
            times[contender].append((_bulk(one, bulk, bar), *_alone(one, singles, bar)))
    bar.close()
    expected = next(said for contender, said in found.items() if contender.name == REFERENCE)
    output = TASKS[read_package(folder)["task"]].output
    alike = {one: _alike(output, expected, said) for one, said in found.items()}
    return Comparison([_measure(folder, one, times[one], alike[one]) for one in predictors], absent, len(items),
                      sum(map(len, expected)))


def _contenders(folder: Path, settings: ServeConfig) -> list[Contender]:
    """All that may run here; the one that `settings` lead to first."""
    import torch

    precision = resolve_precision("auto")
    found = [*(Contender(name, name) for name in FILES if name != "torch"), Contender(f"torch {precision}", "torch")]
    if torch.cuda.is_available():
        found.append(Contender("torch on GPU", "torch", 1))
    backend = resolve_backend(folder, settings.backend, settings.num_gpus)
    on_gpu = backend == "torch" and settings.num_gpus > 0
    default = [one for one in found if one.backend == backend and (one.num_gpus > 0) == on_gpu]
    if not default:
        raise ModelError(f"serve.num_gpus = {settings.num_gpus} and this machine has no GPU that PyTorch can use: "
                         "measure where the service is to run, or say num_gpus=0")
    if precision != "float32":
        found.append(Contender(REFERENCE, "torch", servable=False))
    return sorted(found, key=lambda one: one != default[0])


def _load_all(folder: Path, contenders: list[Contender], settings: ServeConfig,
              item: Any) -> tuple[dict[Contender, Predictor], list[str]]:
    """Predictors that have answered once, and which there are not. Raises what keeps those that must be there."""
    loaded, absent = {}, []
    for contender in contenders:
        try:
            loaded[contender] = _load(folder, contender, settings)
            loaded[contender].predict([(item, {})])
        except Exception as error:
            if contender is contenders[0] or contender.name == REFERENCE:
                raise
            loaded.pop(contender, None)
            absent.append(f"{contender.name}: {str(error).strip().partition(chr(10))[0]}")
    return loaded, absent


def _load(folder: Path, contender: Contender, settings: ServeConfig) -> Predictor:
    return load_predictor(folder, contender.backend, contender.num_gpus, max(1, int(settings.num_cpus)),
                          settings.batch_tokens, "float32" if contender.name == REFERENCE else "auto")


def _said(predictor: Predictor, items: list[Any], bar: Progress) -> list[list[Any]]:
    """What is said of each input's targets. Raises DataError where the task refuses one."""
    found: list[list[Any]] = []
    for group in _groups(items):
        for prediction in predictor.predict([(item, {}) for item in group]):
            if isinstance(prediction, Exception):
                raise DataError(f"text {len(found)} (from 0) cannot be answered: {prediction}") from prediction
            found.append(prediction.said)
        bar.advance(len(group))
    return found


def _alike(output: Output, expected: list[list[Any]], found: list[list[Any]]) -> int:
    return sum(output.told_alike(one, two) for wanted, got in zip(expected, found, strict=True)
               for one, two in zip(wanted, got, strict=True))


def _rate(predictor: Predictor, items: list[Any]) -> float:
    """Texts/s of a first bulk call."""
    group = spread(items, _TOGETHER)
    started = time.perf_counter()
    predictor.predict([(item, {}) for item in group])
    return len(group) / (time.perf_counter() - started)


def _bulk(predictor: Predictor, items: list[Any], bar: Progress) -> float:
    """Texts/s."""
    started = time.perf_counter()
    for group in _groups(items):
        predictor.predict([(item, {}) for item in group])
    seconds = time.perf_counter() - started
    bar.advance(len(items))
    return len(items) / seconds


def _alone(predictor: Predictor, items: list[Any], bar: Progress) -> tuple[float, float]:
    """Median and 99th percentile of the milliseconds of a text."""
    seconds = []
    for item in items:
        started = time.perf_counter()
        predictor.predict([(item, {})])
        seconds.append(time.perf_counter() - started)
    bar.advance(len(items))
    return float(np.percentile(seconds, 50)) * 1e3, float(np.percentile(seconds, 99)) * 1e3


def _groups(items: list[Any]) -> list[list[Any]]:
    return [items[start:start + _TOGETHER] for start in range(0, len(items), _TOGETHER)]


def _measure(folder: Path, contender: Contender, rounds: list[tuple[float, float, float]], alike: int) -> Measure:
    bulk, p50, p99 = zip(*rounds, strict=True)
    size = (folder / FILES[contender.backend]).stat().st_size
    return Measure(contender, max(bulk), min(p50), min(p99), alike, size)
