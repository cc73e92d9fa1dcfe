"""A student becomes the files that serve it on a CPU, each checked against it: ONNX in int8, in float32, or none.

Knows nothing about how the student was found, nor where its files are copied to. What is optional never fails: a file
that does not answer like the student is left out, and the manifest says why.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdray.cache.truth import truth
from kdray.corpus.rows import Rows
from kdray.errors import ExportError
from kdray.evaluation.answers import HERE, Answers, Asked, Where, ask
from kdray.evaluation.comparison import lost_by_chance
from kdray.export.onnx import FLOAT32, export_onnx
from kdray.export.quantise import INT8, WAYS, quantise
from kdray.models.forward import collate, head_logits, taken
from kdray.models.load import load_model
from kdray.models.onnx_file import OnnxModel
from kdray.storage import Store, content_key
from kdray.tasks import TASKS, Task
from kdray.tasks.base import scores_of

KIND, _LENT = "exports", "lent"
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
Check = dict[str, Any]


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
        expected = head_logits(model(**given))
    apart = (found - expected)[:, :int(rows["attention_mask"][1].sum())].abs().max().item()
    if not apart < _LARGEST_DIFFERENCE:
        raise ExportError(f"{type(model).__name__} in ONNX does not answer as in PyTorch: logits are up to {apart:.3g} "
                          f"apart (allowed below {_LARGEST_DIFFERENCE}). Choose a student of another architecture "
                          "(student.model)")


def student_files(store: Store, student: dict[str, Any], max_drop: float, where: Where = HERE) -> dict[str, Any]:
    """Publishes the files of a student, whose manifest is given, or finds them; returns the manifest.

    `backend` is the quickest whose file answers like the student on the validation split, `checks` what each file did
    there, `refused` why the others are not there. `max_drop`: the loss of the metric that int8 may have, chance aside.
    Student and files are asked `where` the others of their kind are.
    """
    key = content_key({"student": student["key"], "max_drop": max_drop, "layout": _LAYOUT})
    made = store.manifest(KIND, key)
    if made is not None:
        return made
    logger.info("export: making %s", key[:12])
    with store.staging(KIND) as folder:
        found = Export(store, student, folder, where).files(max_drop)
        return store.publish(KIND, key, folder, {"parents": {"student": student["key"]}, **found})


class Export:
    """A student, and the validation split that its files are checked on."""

    def __init__(self, store: Store, student: dict[str, Any], folder: Path, where: Where):
        self.store, self.task, self.labels = store, TASKS[student["task"]], list(student["labels"])
        self.folder, self.where, self.refused = folder, where, dict[str, str]()
        corpus = store.manifest("corpus", student["parents"]["corpus"])
        assert corpus is not None
        self.truth = truth(store, corpus, "validation", student["parents"].get("cache"))
        self.rows, self.pad = Rows.of_split(store, corpus, "validation"), corpus["pad_token_id"]
        self.source = store.fetch("students", student["key"])
        self.asked = Asked(store.uri, self.task.name, tuple(self.labels), corpus["key"], "validation",
                           store.uri_of("students", student["key"]), num_gpus=where.num_gpus,
                           batch_tokens=_BATCH_TOKENS, threshold=student.get("threshold", 0.0))

    def files(self, max_drop: float) -> dict[str, Any]:
        """Writes the files that are accepted; what the manifest says of them."""
        checks = self._accepted(max_drop) if self._exported() else {}
        backend = next(name for name in ("onnx-int8", "onnx", "torch") if name in checks or name == "torch")
        if backend != "onnx-int8":
            logger.warning("package: no int8 file is served, but %s: %s", backend, "; ".join(
                f"{what}: {why}" for what, why in self.refused.items()))
        sizes = {name: (self.folder / name).stat().st_size for name in (FLOAT32, INT8) if (self.folder / name).exists()}
        return {"backend": backend, "checks": checks, "refused": self.refused, "bytes": sizes}

    def _exported(self) -> bool:
        model = load_model(self.task, self.source, self.labels).eval()
        try:
            export_onnx(model, list(taken(model, collate(self.rows, np.arange(1), self.pad).model)), self.folder)
            return True
        except ExportError as error:
            self._refuse("float32 ONNX", FLOAT32, str(error))
            return False

    def _accepted(self, max_drop: float) -> dict[str, Check]:
        """The files' checks by backend."""
        quickest, *others = WAYS
        quantise(self.folder, quickest)
        float32, int8 = self._check(FLOAT32, INT8)
        if why := unlike(float32):
            self._refuse("float32 ONNX", FLOAT32, why)
            (self.folder / INT8).unlink()
            return {}
        for way in WAYS:
            if way in others:
                quantise(self.folder, way)
                (int8,) = self._check(INT8)
            why = too_lossy(int8, max_drop)
            if not why:
                return {"onnx": float32, "onnx-int8": {**int8, "way": way}}
            self._refuse(f"int8, {way}", INT8, why)
        return {"onnx": float32}

    def _check(self, *files: str) -> list[Check]:
        """What each file says of all rows, against the student."""
        with lent(self.store, self.folder, self.where) as place:
            found = [replace(self.asked, place=place, file=file) for file in files]
            ((expected, *answers),) = ask([(self.asked, *found)], len(self.rows), self.where)
        return [compare(self.task, self.truth, self.labels, expected, one) for one in answers]

    def _refuse(self, what: str, file: str, why: str) -> None:
        (self.folder / file).unlink(missing_ok=True)
        self.refused[what] = why
        logger.info("package: %s is refused: %s", what, why)


@contextmanager
def lent(store: Store, folder: Path, where: Where) -> Iterator[str]:
    """Where every machine that is asked finds the files of a local folder, for as long as the context lasts."""
    if store.local or where is HERE:
        yield str(folder)
        return
    key = content_key([store.uri, str(folder), [file.stat().st_mtime_ns for file in sorted(folder.rglob("*"))]])
    store.publish(_LENT, key, folder, {})
    try:
        yield store.uri_of(_LENT, key)
    finally:
        store.delete_folder(_LENT, key)


def compare(task: Task, truth: list[Any], labels: list[str], expected: Answers, found: Answers) -> Check:
    """Answers `found` by ONNX against those `expected` of PyTorch, on all rows.

    Gives the task's first metric of both, the share of units decided alike, the largest difference of a logit, and `p`,
    how often chance alone makes a loss of the metric that large.
    """
    metric, (ours, theirs) = task.metrics[0], (answers.by_row() for answers in (expected, found))
    return {
        "metric": metric, "value": scores_of(task, truth, theirs, labels)[metric],
        "torch": scores_of(task, truth, ours, labels)[metric], "units": len(found.decided),
        "agreement": float(task.output.alike(expected.decided, found.decided).mean()),
        "largest_difference": found.largest,
        "p": lost_by_chance(task, metric, truth, ours, theirs, labels),
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
