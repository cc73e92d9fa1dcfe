"""A folder of checkpoints becomes those that are whole.

What writes or deletes a checkpoint may be killed in between; a seal beside its files says what belongs to it. Knows
nothing about what a checkpoint holds.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from pyarrow.fs import FileSelector, FileSystem, FileType

PREFIX = "checkpoint_"
SEAL = "files.json"


def seal(folder: Path) -> bytes:
    """What makes a checkpoint with the files of `folder` whole, where it lies beside them as `SEAL`: their bytes."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return json.dumps(sizes).encode()


def whole(files: FileSystem, folder: str) -> Iterator[str]:
    """Names of the sealed checkpoints in `folder` of which every byte is there, in the order of their numbers."""
    names = (one.base_name for one in files.get_file_info(FileSelector(folder, allow_not_found=True)))
    return (name for name in sorted(names) if name.startswith(PREFIX) and _is_whole(files, f"{folder}/{name}"))


def _is_whole(files: FileSystem, checkpoint: str) -> bool:
    try:
        with files.open_input_stream(f"{checkpoint}/{SEAL}") as stream:
            sizes = json.loads(stream.readall())
    except (FileNotFoundError, ValueError):
        return False
    found = files.get_file_info([f"{checkpoint}/{name}" for name in sizes])
    return all(one.type == FileType.File and one.size == size for one, size in zip(found, sizes.values(), strict=True))
