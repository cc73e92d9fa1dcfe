"""A config becomes one that means the same in any folder, and the paths of this machine that it names.

Knows nothing about where it is to run.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kdray.config import PLACES, Config, parse
from kdray.corpus import files
from kdray.models import folder


def resolved(config: Config) -> tuple[Config, dict[str, str]]:
    """The config with every local path absolute, and these paths by the setting that names them."""
    tree = config.model_dump(mode="json")
    paths = {}
    for setting, part, name, is_local in _places(tree):
        if part[name] is not None and is_local(part[name]):
            part[name] = paths[setting] = _absolute(part[name])
    return parse(tree, "the resolved config"), paths


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(Path(path).expanduser())


def _places(tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str, Callable[[str], bool]]]:
    """Where a config may name a path: the setting, the mapping that holds it, its key there, and whether it is one."""
    yield "storage", tree, "storage", lambda uri: "://" not in uri or uri.startswith("file://")
    for name in PLACES:
        yield f"data.{name}", tree["data"], name, files.is_local
    yield "teacher.model", tree["teacher"], "model", folder.is_local
    students = {"student": tree["student"] or {}, **{f"students.{name}": own for name, own in tree["students"].items()}}
    for setting, student in students.items():
        if "model" in student:
            yield f"{setting}.model", student, "model", folder.is_local
