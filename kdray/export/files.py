"""A student becomes the files that serve it on a CPU, each checked against it: ONNX in int8, in float32, or none.

Knows nothing about how the student was found, nor where its files are copied to. What is optional never fails: a file
that does not answer like the student is left out, and the manifest says why.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdray.corpus.rows import Rows
from kdray.errors import ExportError
from kdray.evaluation.comparison import lost_by_chance
from kdray.export.onnx import FLOAT32, OnnxModel, export_onnx, onnx_predict
from kdray.export.quantise import INT8, WAYS, quantise
from kdray.models.forward import collate, decisions, predict, taken
from kdray.models.load import load_model
from kdray.storage import Store, content_key
from kdray.tasks import TASKS, Task

KIND = "exports"
FAMILIES = frozenset({"albert", "bert", "deberta-v2", "distilbert", "electra", "gpt2", "llama", "mobilebert",
                      "modernbert", "mpnet", "qwen2", "qwen3", "roberta", "xlm-roberta"})
"""Those that became files that answer alike, in each of the tests' cells."""
logger = logging.getLogger("kdray")
_LAYOUT = 1
_BATCH_TOKENS = 4096
_LARGEST_DIFFERENCE = 1e-3
_AGREEMENT = 0.999
_CHANCE = 0.05
"""Share of such losses that chance may explain, below which one is taken for real."""


def check_export(model: Any, rows: dict[str, torch.Tensor]) -> None:
    """Raises ExportError where a model of this family cannot become ONNX files; `rows` are two, the second padded.

    Families that are known to become files are not tried: it takes seconds.
    """
    if model.config.model_type in FAMILIES:
        return
    given = taken(model, rows)
    with tempfile.TemporaryDirectory(prefix="kdray-tried-") as name, torch.no_grad():
        found = OnnxModel(export_onnx(model, list(given), Path(name)), 1)(**given).logits
        quantise(Path(name), next(iter(WAYS)))
        expected = model(**given).logits
    apart = (found - expected)[:, :int(rows["attention_mask"][1].sum())].abs().max().item()
    if not apart < _LARGEST_DIFFERENCE:
        raise ExportError(f"{type(model).__name__} in ONNX does not answer as in PyTorch: logits are up to {apart:.3g} "
                          f"apart (allowed below {_LARGEST_DIFFERENCE}). Choose a student of another architecture "
                          "(student.model)")


def student_files(store: Store, student: dict[str, Any], max_drop: float, threads: int) -> dict[str, Any]:
    """Publishes the files of a student, whose manifest is given, or finds them; returns the manifest.

    `backend` is the quickest whose file answers like the student on the validation split, `checks` what each file did
    there, `refused` why the others are not there. `max_drop`: the loss of the metric that int8 may have, chance aside.
    """
    key = content_key({"student": student["key"], "max_drop": max_drop, "layout": _LAYOUT})
    made = store.manifest(KIND, key)
    if made is not None:
        return made
    corpus = store.manifest("corpus", student["parents"]["corpus"])
    assert corpus is not None
    with store.staging(KIND) as folder:
        found = Export(store, student, corpus, folder, threads).files(max_drop)
        return store.publish(KIND, key, folder, {"parents": {"student": student["key"]}, **found})


class Export:
    """A student, and the validation split that its files are checked on."""

    def __init__(self, store: Store, student: dict[str, Any], corpus: dict[str, Any], folder: Path, threads: int):
        self.task, self.labels, self.folder, self.threads = TASKS[student["task"]], student["labels"], folder, threads
        self.rows = Rows.open(store.fetch("corpus", corpus["key"]), "validation")
        self.pad, self.refused = corpus["pad_token_id"], dict[str, str]()
        self.model = load_model(self.task, store.fetch("students", student["key"]), self.labels).eval()
        self.expected = predict(self.model, self.task, self.rows, self.whole, self.pad, _BATCH_TOKENS)

    @property
    def whole(self) -> np.ndarray:
        """Every row."""
        return np.arange(len(self.rows))

    def files(self, max_drop: float) -> dict[str, Any]:
        """Writes the files that are accepted; what the manifest says of them."""
        checks = self._float32()
        if checks:
            checks |= self._int8(max_drop)
        backend = next(name for name in ("onnx-int8", "onnx", "torch") if name in checks or name == "torch")
        if backend != "onnx-int8":
            logger.warning("package: no int8 file is served, but %s: %s", backend, "; ".join(
                f"{what}: {why}" for what, why in self.refused.items()))
        sizes = {name: (self.folder / name).stat().st_size for name in (FLOAT32, INT8) if (self.folder / name).exists()}
        return {"backend": backend, "checks": checks, "refused": self.refused, "bytes": sizes}

    def _float32(self) -> dict[str, dict[str, Any]]:
        inputs = list(taken(self.model, collate(self.rows, self.whole[:1], self.pad).model))
        try:
            export_onnx(self.model, inputs, self.folder)
            check = self._check(FLOAT32)
            why = unlike(check)
        except ExportError as error:
            why = str(error)
        if not why:
            return {"onnx": check}
        self._refuse("float32 ONNX", FLOAT32, why)
        return {}

    def _int8(self, max_drop: float) -> dict[str, dict[str, Any]]:
        for way in WAYS:
            quantise(self.folder, way)
            check = self._check(INT8)
            why = too_lossy(check, max_drop)
            if not why:
                return {"onnx-int8": {**check, "way": way}}
            self._refuse(f"int8, {way}", INT8, why)
        return {}

    def _check(self, file: str) -> dict[str, Any]:
        found = onnx_predict(self.folder / file, self.task, self.rows, self.whole, self.pad, _BATCH_TOKENS,
                             self.threads)
        return compare(self.task, self.rows, self.labels, self.expected, found)

    def _refuse(self, what: str, file: str, why: str) -> None:
        (self.folder / file).unlink(missing_ok=True)
        self.refused[what] = why
        logger.info("package: %s is refused: %s", what, why)


def compare(task: Task, rows: Rows, labels: list[str], expected: list[np.ndarray],
            found: list[np.ndarray]) -> dict[str, Any]:
    """Logits `found` by ONNX against those `expected` of PyTorch, on all `rows`.

    Gives the task's first metric of both, the share of units decided alike, the largest difference of a logit, and `p`,
    how often chance alone makes a loss of the metric that large.
    """
    gold, metric = rows.gold(), task.metrics[0]
    torch_ids, onnx_ids = (decisions(task, rows, np.arange(len(rows)), logits, labels)
                           for logits in (expected, found))
    same = np.concatenate(torch_ids) == np.concatenate(onnx_ids)
    return {
        "metric": metric, "value": task.scores(gold, onnx_ids, labels)[metric],
        "torch": task.scores(gold, torch_ids, labels)[metric], "units": len(same),
        "agreement": float(same.mean()),
        "largest_difference": float(np.abs(np.concatenate(found) - np.concatenate(expected)).max()),
        "p": lost_by_chance(task, metric, gold, torch_ids, onnx_ids, labels),
    }


def unlike(check: dict[str, Any]) -> str:
    """Why a float32 file is not the student's; empty where it is."""
    apart = round((1 - check["agreement"]) * check["units"])
    allowed = max(1, int((1 - _AGREEMENT) * check["units"]))
    if check["largest_difference"] < _LARGEST_DIFFERENCE and apart <= allowed:
        return ""
    return (f"on validation a logit is up to {check['largest_difference']:.3g} apart (allowed below "
            f"{_LARGEST_DIFFERENCE}) and {apart} of {check['units']} decisions differ (allowed {allowed}): the "
            "exporter does not follow this architecture")


def too_lossy(check: dict[str, Any], max_drop: float) -> str:
    """Why an int8 file loses too much; empty where its loss is within `max_drop`, or may be chance."""
    drop = check["torch"] - check["value"]
    if drop <= max_drop or check["p"] >= _CHANCE:
        return ""
    return (f"{check['metric']} on validation is {check['value']:.4f}, the student's {check['torch']:.4f}: a drop of "
            f"{drop:.4f}, where export.max_drop = {max_drop:g}, and not by chance (p = {check['p']:.2g})")
