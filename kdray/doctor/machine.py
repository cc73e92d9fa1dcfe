"""What a process sees of its machine, as plain data. Judges nothing.

Imports nothing of kdray but inside functions: a node is sent these, and what counts there is its own kdray, if any.
"""

import hashlib
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("ray", "torch", "transformers", "tokenizers", "deepspeed", "pyarrow", "numpy")
"""What two processes that share work must have in the same version, kdray aside."""
ABSENT = "absent"
_PATIENCE = 40.0
_SEEN_BY_TORCH = "import json, torch; print(json.dumps([torch.cuda.get_device_name(i) for i in range(" \
                 "torch.cuda.device_count())]))"


def look(storage: str | None, witness: str | None, folders: list[str], gpus: bool) -> dict[str, Any]:
    """The fields of `findings.Facts`.

    `storage` is tried where it is given; `witness` names a file in it that another machine has written. `folders` are
    of models. GPUs are looked for on request: importing torch takes seconds.
    """
    return {"versions": _versions(),
            "storage": _within(_PATIENCE, lambda: _try(storage, witness)) if storage else None,
            "folders": {folder: _fingerprint(folder) for folder in folders}, "gpus": _gpus() if gpus else None,
            "shared_memory": shutil.disk_usage("/dev/shm").total}


def _versions() -> dict[str, str | None]:
    """Version of Python and of each package, None where it is missing; kdray's with a digest of its source."""
    found: dict[str, str | None] = {"python": platform.python_version(), "kdray": _kdray()}
    return found | {name: installed(name) for name in PACKAGES}


def installed(name: str) -> str | None:
    """A distribution's version without what a build adds (`2.13.0+cpu`), None where there is none."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


def _kdray() -> str | None:
    try:
        root = Path(str(importlib.import_module("kdray").__file__)).parent
    except ImportError:
        return None
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return f"{importlib.import_module('kdray').__version__} (source {digest.hexdigest()[:8]})"


def _try(uri: str, witness: str | None) -> str | None:
    """None where the witness is there and a file can be written, read and deleted; ABSENT, or what went wrong."""
    from kdray.storage import Store

    name = probe()
    try:
        store = Store(uri)
        if witness and not store.exists(witness):
            return ABSENT
        store.write(b"kdray", name)
        try:
            same = store.read(name) == b"kdray"
        finally:
            store.delete(name)
        return None if same else "what was written reads back as something else"
    except Exception as error:
        return " ".join(str(error).replace(name, "FILE").split()).rstrip(".")


def probe() -> str:
    """A new name for a file that is there for a moment."""
    return f".probe-{uuid.uuid4().hex}"


def _within(seconds: float, act: Callable[[], str | None]) -> str | None:
    said: list[str | None] = []
    thread = threading.Thread(target=lambda: said.append(act()), daemon=True)
    thread.start()
    thread.join(seconds)
    return said[0] if said else f"no answer in {seconds:g} s"


def _fingerprint(folder: str) -> str | None:
    from kdray.models.folder import fingerprint

    return fingerprint(Path(folder)) if Path(folder, "config.json").exists() else None


def _gpus() -> list[str]:
    """Names of the GPUs that torch sees in a process to which Ray hides none."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run([sys.executable, "-c", _SEEN_BY_TORCH], capture_output=True, text=True, env=environment)
    return json.loads(done.stdout) if done.returncode == 0 else []

