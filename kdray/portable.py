"""A config becomes one that means the same in any folder, and what it names on this machine: paths and modules.

Knows nothing about where it is to run.
"""

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from kdray.config import Config, parse
from kdray.corpus import files
from kdray.models import folder


def resolved(config: Config) -> tuple[Config, dict[str, str]]:
    """The config with every local path absolute, and these paths by the setting that names them."""
    tree = config.model_dump(mode="json")
    paths = {}
    for setting, part, name, is_local in _places(tree, config.data.places):
        if part[name] is not None and is_local(part[name]):
            part[name] = paths[setting] = _absolute(part[name])
    return parse(tree, "the resolved config"), paths


def modules_beside(config: Config, folder: Path) -> list[Path]:
    """The Python modules in `folder` and the packages there that the config names; none where it names none of them.

    What functions of the data are in, and may import, so that it can go where the config goes.
    """
    folder, sources = folder.resolve(), [place for place in config.data.places.values() if place.startswith("package:")]
    named = {source.split(":")[1].partition(".")[0] for source in sources} - {"kdray"}
    found = [place for name in named if (spec := importlib.util.find_spec(name))
             for place in (spec.origin, *(spec.submodule_search_locations or ()))
             if place and Path(place).is_relative_to(folder)]
    packages = sorted({folder / Path(place).relative_to(folder).parts[0] for place in found})
    return [*sorted(folder.glob("*.py")), *(path for path in packages if path.is_dir())] if found else []


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(Path(path).expanduser())


def _places(tree: dict[str, Any],
            data: Iterable[str]) -> Iterator[tuple[str, dict[str, Any], str, Callable[[str], bool]]]:
    """Where a config may name a path: the setting, the mapping that holds it, its key there, and whether it is one."""
    yield "storage", tree, "storage", lambda uri: "://" not in uri or uri.startswith("file://")
    for name in data:
        yield f"data.{name}", tree["data"], name, files.is_local
    yield "teacher.model", tree["teacher"], "model", folder.is_local
    students = {"student": tree["student"] or {}, **{f"students.{name}": own for name, own in tree["students"].items()}}
    for setting, student in students.items():
        if "model" in student:
            yield f"{setting}.model", student, "model", folder.is_local
