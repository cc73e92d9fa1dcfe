"""A student becomes a package: its folder, ONNX files that were checked against it, and a model card.

Knows nothing about how the student was found. A package is published only if every file in it answers like
the student.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from kdray.corpus.rows import Rows
from kdray.corpus.tokenizer import copy_tokenizer, load_tokenizer
from kdray.errors import ExportError
from kdray.export.card import model_card
from kdray.export.onnx import FLOAT32, INT8, export_onnx, onnx_predict, quantise
from kdray.models.forward import collate, decisions, predict, taken
from kdray.models.load import load_model
from kdray.serving.backends import torch_model
from kdray.serving.parity import INPUTS, write_parity
from kdray.serving.predictor import Predictor
from kdray.serving.texts import spread
from kdray.storage import Store
from kdray.tasks import Task

KIND = "packages"
_BATCH_TOKENS = 4096
_LARGEST_DIFFERENCE = 1e-3
_AGREEMENT = 0.999
_CHANCE = 2.0


def build_package(store: Store, key: str, student_folder: Path, manifest_parts: dict[str, Any], task: Task,
                  labels: list[str], corpus_folder: Path, pad_token_id: int, max_length: int, max_drop: float,
                  threads: int) -> dict[str, Any]:
    """Publishes the package of the student under `key` and returns its manifest.

    `manifest_parts` has `parents`, and `numbers` and `lineage` for the model card. Raises ExportError where
    an ONNX file does not answer like the student on the corpus' validation split.
    """
    rows = Rows.open(corpus_folder, "validation")
    with store.staging(KIND) as folder:
        _copy_model(task, student_folder, folder)
        model = load_model(task, folder, labels).eval()
        export_onnx(model, list(taken(model, collate(rows, np.arange(1), pad_token_id).model)), folder)
        quantise(folder)
        whole = np.arange(len(rows))
        expected = predict(model, task, rows, whole, pad_token_id, _BATCH_TOKENS)
        checks = {
            backend: compare(task, rows, labels, expected, onnx_predict(
                folder / file, task, rows, whole, pad_token_id, _BATCH_TOKENS, threads))
            for backend, file in (("onnx", FLOAT32), ("onnx-int8", INT8))}
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


def compare(task: Task, rows: Rows, labels: list[str], expected: list[np.ndarray],
            found: list[np.ndarray]) -> dict[str, Any]:
    """Logits `found` by ONNX against those `expected` of PyTorch, on all `rows`.

    Gives the task's first metric of both, the share of units decided alike and the largest difference.
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
    }


def _copy_model(task: Task, source: Path, target: Path) -> None:
    for file in [source / "config.json", *source.glob("*.safetensors"), *source.glob("*.index.json")]:
        shutil.copyfile(file, target / file.name)
    copy_tokenizer(source, target, task)


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
