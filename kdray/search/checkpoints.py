"""The checkpoint that Tune remembers of a trial becomes one that is whole.

Tune deletes a trial's older checkpoint before it writes down that there is a newer one. Where its driver is killed in
between, what it remembers is gone or in pieces; the newer one is whole then, since it was there before the deletion
began. Knows nothing about what is in a checkpoint.
"""

import json
from pathlib import Path

from pyarrow.fs import FileSelector, FileSystem, FileType
from ray.tune import Checkpoint

_SEAL = "files.json"


def seal(folder: Path) -> None:
    """Writes down the files of a checkpoint's folder and their bytes, so that a missing piece is seen."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    (folder / _SEAL).write_text(json.dumps(sizes))


def whole(checkpoint: Checkpoint) -> Checkpoint | None:
    """The sealed `checkpoint` itself where all of it is there, else the first later one of its trial that is whole."""
    recorded, files = Path(checkpoint.path), checkpoint.filesystem
    beside = files.get_file_info(FileSelector(recorded.parent.as_posix(), allow_not_found=True))
    later = sorted(one.path for one in beside
                   if one.type == FileType.Directory and recorded.name <= one.base_name
                   and one.base_name.startswith("checkpoint_"))
    path = next((path for path in later if _is_whole(files, path)), None)
    return None if path is None else Checkpoint(path, files)


def _is_whole(files: FileSystem, folder: str) -> bool:
    try:
        with files.open_input_stream(f"{folder}/{_SEAL}") as stream:
            sizes = json.loads(stream.readall())
    except (FileNotFoundError, ValueError):
        return False
    found = files.get_file_info([f"{folder}/{name}" for name in sizes])
    return all(one.type == FileType.File and one.size == size for one, size in zip(found, sizes.values(), strict=True))
