"""A student becomes a package: its folder, ONNX files that were checked against it, and a model card.

Knows nothing about how the student was found. A package is published only if every file in it answers like
the student.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kdray.corpus.rows import Rows
from kdray.corpus.tokenizer import copy_tokenizer, load_tokenizer
from kdray.errors import ExportError
from kdray.evaluation.answers import HERE, Answers, Asked, Where, ask
from kdray.export.card import model_card
from kdray.export.onnx import ATTENTION, FLOAT32, INT8, export_onnx, quantise
from kdray.models.forward import collate
from kdray.models.load import load_model
from kdray.models.precision import attention
from kdray.serving.backends import torch_model
from kdray.serving.parity import INPUTS, write_parity
from kdray.serving.predictor import Predictor
from kdray.serving.texts import spread
from kdray.storage import Store, content_key
from kdray.tasks import Task

KIND, _LENT = "packages", "lent"
_BATCH_TOKENS = 4096
_LARGEST_DIFFERENCE = 1e-3
_AGREEMENT = 0.999
_CHANCE = 2.0


def build_package(store: Store, key: str, student_folder: Path, manifest_parts: dict[str, Any], task: Task,
                  corpus: dict[str, Any], max_drop: float, threads: int, where: Where = HERE) -> dict[str, Any]:
    """Publishes the package of the student under `key` and returns its manifest.

    `manifest_parts` has `parents`, and `numbers` and `lineage` for the model card; `corpus` is the manifest of the
    student's rows. Raises ExportError where an ONNX file does not answer like the student on their validation split.
    """
    labels, max_length, pad_token_id = corpus["labels"], corpus["max_length"], corpus["pad_token_id"]
    rows = Rows.of_split(store, corpus, "validation")
    with store.staging(KIND) as folder:
        _copy_model(student_folder, folder)
        model = load_model(task, folder, labels, attn_implementation=ATTENTION).eval()
        export_onnx(model, list(collate(rows, np.arange(1), pad_token_id).model), folder)
        quantise(folder)
        checks = _checks(store, task, corpus, folder, rows, where)
        _accept_float32(checks["onnx"])
        _accept_int8(checks["onnx-int8"], max_drop)
        predictor = Predictor(task, labels, max_length, load_tokenizer(folder),
                              torch_model(folder, task, labels, 0, threads, "float32"), _BATCH_TOKENS)
        write_parity(folder, predictor, spread(rows.items(task), INPUTS))
        manifest = {**manifest_parts, "task": task.name, "labels": labels, "max_length": max_length,
                    "pad_token_id": pad_token_id, "checks": checks, "bytes": _sizes(folder)}
        card = model_card(task, labels, max_length, manifest.get("numbers", {}), checks, manifest["bytes"],
                          manifest.get("lineage", {}))
        (folder / "README.md").write_text(card, encoding="utf-8")
        return store.publish(KIND, key, folder, manifest)


def _checks(store: Store, task: Task, corpus: dict[str, Any], folder: Path, rows: Rows,
            where: Where) -> dict[str, dict[str, Any]]:
    """What the files in `folder` say of all validation `rows`, against the model there, by backend."""
    with lent(store, folder, where) as place:
        student = Asked(store.uri, task.name, tuple(corpus["labels"]), corpus["key"], "validation", place,
                        num_gpus=where.num_gpus, attention=attention(where.num_gpus), batch_tokens=_BATCH_TOKENS)
        files = {"onnx": FLOAT32, "onnx-int8": INT8}
        ((expected, *found),) = ask([(student, *(replace(student, file=file) for file in files.values()))], len(rows),
                                    where)
    return {backend: compare(task, rows.gold(), corpus["labels"], expected, answers)
            for backend, answers in zip(files, found, strict=True)}


@contextmanager
def lent(store: Store, folder: Path, where: Where) -> Iterator[str]:
    """Where every machine that is asked finds the files of a local folder, for as long as the context lasts."""
    if store.local or where is HERE:
        yield str(folder)
        return
    key = content_key([store.uri, str(folder)])
    store.publish(_LENT, key, folder, {})
    try:
        yield store.uri_of(_LENT, key)
    finally:
        store.delete_folder(_LENT, key)


def compare(task: Task, gold: list[np.ndarray], labels: list[str], expected: Answers, found: Answers) -> dict[str, Any]:
    """Answers `found` by ONNX against those `expected` of PyTorch, on all rows.

    Gives the task's first metric of both, the share of units decided alike and the largest difference of a logit.
    """
    metric = task.metrics[0]
    value, torch_value = (task.scores(gold, answers.by_row(), labels)[metric] for answers in (found, expected))
    return {"metric": metric, "value": value, "torch": torch_value, "units": len(found.ids),
            "agreement": float((found.ids == expected.ids).mean()), "largest_difference": found.largest}


def _copy_model(source: Path, target: Path) -> None:
    for file in [source / "config.json", *source.glob("*.safetensors"), *source.glob("*.index.json")]:
        shutil.copyfile(file, target / file.name)
    copy_tokenizer(source, target)


def _sizes(folder: Path) -> dict[str, int]:
    files = [*sorted(path.name for path in folder.glob("*.safetensors")), FLOAT32, INT8]
    return {name: (folder / name).stat().st_size for name in files}


def _accept_float32(check: dict[str, Any]) -> None:
    apart = round((1 - check["agreement"]) * check["units"])
    allowed = max(1, int((1 - _AGREEMENT) * check["units"]))
    if not check["largest_difference"] < _LARGEST_DIFFERENCE or apart > allowed:
        raise ExportError(
            f"{FLOAT32} does not answer like the student: on validation a logit is up to "
            f"{check['largest_difference']:.3g} apart (allowed below {_LARGEST_DIFFERENCE}) and {apart} of "
            f"{check['units']} decisions differ (allowed {allowed}). The exporter does not follow this "
            "architecture: choose a student of another one (student.model)")


def _accept_int8(check: dict[str, Any], max_drop: float) -> None:
    """A drop of two units is chance, however few units validation has."""
    drop = check["torch"] - check["value"]
    if drop > max(max_drop, _CHANCE / check["units"]):
        raise ExportError(
            f"{INT8} loses too much: {check['metric']} on validation is {check['value']:.4f}, the student's "
            f"{check['torch']:.4f}: a drop of {drop:.4f}, and export.max_drop is {max_drop}. Raise "
            "export.max_drop, and serve the float32 file where the loss matters (serve.backend: onnx)")
