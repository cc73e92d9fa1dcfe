"""A student becomes a package: its folder, the files that serve it, a parity sample and a model card.

Knows nothing about how the student was found, nor how its files were accepted.
"""

import shutil
from pathlib import Path
from typing import Any

from kdray.corpus.rows import Rows
from kdray.corpus.tokenizer import copy_tokenizer, load_tokenizer
from kdray.errors import ExportError
from kdray.export.card import model_card
from kdray.export.files import KIND as EXPORTS
from kdray.models.pooling import copy_pooling, pools, write_length
from kdray.serving.backends import FILES, torch_model
from kdray.serving.parity import INPUTS, write_parity
from kdray.serving.predictor import Predictor
from kdray.serving.texts import spread
from kdray.storage import Store, content_key
from kdray.tasks import TASKS, Task

KIND = "packages"
_BATCH_TOKENS = 4096
_LAYOUT = 3


def package_key(parents: dict[str, str]) -> str:
    """Content key of a package; `parents` are the keys of its `student`, `export` and `evaluation`."""
    return content_key({**parents, "layout": _LAYOUT})


def build_package(store: Store, key: str, student: dict[str, Any], export: dict[str, Any], facts: dict[str, Any],
                  threads: int) -> dict[str, Any]:
    """Publishes the package under `key` and returns its manifest.

    `student` and `export` are manifests, of the student and of the files that serve it; `facts` has `parents`, and
    `numbers` and `lineage` for the model card.
    """
    task, labels = TASKS[student["task"]], student["labels"]
    corpus = store.manifest("corpus", student["parents"]["corpus"])
    assert corpus is not None
    with store.staging(KIND) as folder:
        _copy_model(task, store.fetch("students", student["key"]), folder)
        if pools(task):
            write_length(folder, corpus["max_length"])
        _copy_files(store.fetch(EXPORTS, export["key"]), list(export["bytes"]), folder)
        predictor = Predictor(task, labels, corpus["max_length"], load_tokenizer(folder),
                              torch_model(folder, task, labels, 0, threads, "float32"), _BATCH_TOKENS,
                              student.get("threshold", 0.0))
        rows = Rows.of_split(store, corpus, "validation")
        write_parity(folder, predictor, spread(rows.items(task), INPUTS))
        manifest = {**facts, "task": task.name, "labels": labels, "max_length": corpus["max_length"],
                    "pad_token_id": corpus["pad_token_id"],
                    **{name: export[name] for name in ("backend", "checks", "refused")},
                    **({"threshold": student["threshold"]} if "threshold" in student else {}),
                    "bytes": {**_weights(folder), **export["bytes"]}}
        (folder / "README.md").write_text(model_card(task, manifest), encoding="utf-8")
        return store.publish(KIND, key, folder, manifest)


def check_backend(package: dict[str, Any], backend: str) -> None:
    """Raises ExportError where a package has not got the file of the backend that was asked for by name."""
    if backend in ("auto", "torch") or FILES[backend] in package["bytes"]:
        return
    raise ExportError(f"serve.backend = {backend} needs {FILES[backend]}, and none was accepted: "
                      + "; ".join(f"{what}: {why}" for what, why in package["refused"].items())
                      + f". Raise export.max_drop, or leave serve.backend out: {package['backend']} is served then")


def _copy_model(task: Task, source: Path, target: Path) -> None:
    for file in [source / "config.json", *source.glob("*.safetensors"), *source.glob("*.index.json")]:
        shutil.copyfile(file, target / file.name)
    copy_pooling(source, target)
    copy_tokenizer(source, target, task)


def _copy_files(source: Path, names: list[str], target: Path) -> None:
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, target / name)


def _weights(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*.safetensors"))}
