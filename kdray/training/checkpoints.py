"""A run's folders of files become checkpoints in the storage, the last of which that is whole is where it goes on.

What writes or deletes one may be killed in between; a seal beside its files, written last, says what belongs to it.
Knows nothing about what a checkpoint holds.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pyarrow.fs import FileSelector, FileSystem, FileType

from kdray.storage import Store

SEAL = "files.json"


class Checkpoints:
    """The checkpoints of a run, in the folder `place` of the storage. Each of its processes has one of these."""

    def __init__(self, store: Store, place: tuple[str, ...]):
        self._store, self._place = store, place
        self.last = max(whole(store.file_system, store.path(*place)), default=-1)
        """Number of the one to go on from, -1 where there is none; processes that do not see the same set the same."""

    def fetch(self) -> Path | None:
        """The last one, downloaded."""
        if self.last < 0:
            return None
        folder = Path(tempfile.mkdtemp(prefix="kdray-restored-"))
        self._store.download(folder, *self._place, _name(self.last))
        return folder

    def read(self, name: str) -> bytes | None:
        """A file of the last one."""
        return self._store.read(*self._place, _name(self.last), name) if self.last >= 0 else None

    def write(self, folder: Path) -> None:
        """This process's files of the next one."""
        self._store.upload(folder, *self._place, _name(self.last + 1))

    def finish(self, seals: bool = True) -> None:
        """All processes have written theirs. The one that `seals` makes it whole, then deletes those before it."""
        self.last += 1
        if seals:
            name = _name(self.last)
            data = seal(self._store.file_system, self._store.path(*self._place, name))
            self._store.write(data, *self._place, name, SEAL)
            for other in self._store.names(*self._place):
                if -1 < _number(other) < self.last:
                    self._store.delete_folder(*self._place, other)


def _name(number: int) -> str:
    return f"checkpoint_{number:06d}"


def _number(name: str) -> int:
    """The number in a checkpoint's name, -1 where it is the name of something else."""
    found = re.fullmatch(r"checkpoint_(\d{6,})", name)
    return int(found[1]) if found else -1


def seal(files: FileSystem, checkpoint: str) -> bytes:
    """What makes a checkpoint whole, where it lies beside its files as `SEAL`: their names and bytes."""
    found = files.get_file_info(FileSelector(checkpoint, recursive=True))
    return json.dumps({one.path.removeprefix(f"{checkpoint}/"): one.size for one in found
                       if one.type == FileType.File and one.base_name != SEAL}).encode()


def whole(files: FileSystem, folder: str) -> Iterator[int]:
    """Numbers of the sealed checkpoints in `folder` of which every byte is there."""
    names = (one.base_name for one in files.get_file_info(FileSelector(folder, allow_not_found=True)))
    return (_number(name) for name in names if _number(name) >= 0 and _is_whole(files, f"{folder}/{name}"))


def _is_whole(files: FileSystem, checkpoint: str) -> bool:
    try:
        with files.open_input_stream(f"{checkpoint}/{SEAL}") as stream:
            sizes = json.loads(stream.readall())
    except (FileNotFoundError, ValueError):
        return False
    found = files.get_file_info([f"{checkpoint}/{name}" for name in sizes])
    return all(one.type == FileType.File and one.size == size for one, size in zip(found, sizes.values(), strict=True))
