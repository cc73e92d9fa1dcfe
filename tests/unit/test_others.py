"""What another user of the machine has planted, where the names of kdray's files are known, is not touched."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kdray.copies import local_copy
from kdray.errors import StorageError
from kdray.serving.haproxy import services
from kdray.storage import Store, machine_folder, machine_lock, own_folder
from tests.others import NOBODY, does, everybodys, needs_root

__all__ = ["everybodys"]
PLANTED = rf"kdray-{os.getuid()} belongs to nobody \(uid {NOBODY}\), and not to .*: what is in it may be planted\. " \
          r"Remove it, or set TMPDIR to a folder of your own"


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def test_the_machine_s_folder_is_this_user_s_alone(everybodys):
    made = machine_folder()
    assert made.parent == everybodys and mode(made) == 0o700 and machine_folder() == made


def test_one_that_others_could_look_into_is_closed_and_one_that_they_could_write_to_is_refused(tmp_path):
    folder = tmp_path / "earlier"
    folder.mkdir()
    folder.chmod(0o755)
    assert mode(own_folder(folder)) == 0o700
    folder.chmod(0o770)
    with pytest.raises(StorageError, match=r"earlier may be written to by others \(mode 770\): .* Remove it"):
        own_folder(folder)


def test_a_link_is_no_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="link is no folder, and belongs to "):
        own_folder(tmp_path / "link")


def test_a_lock_empties_no_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("precious")
    with machine_lock(path):
        assert path.read_text() == "precious"


@needs_root
def test_a_folder_that_another_user_made_is_refused_with_its_path_its_owner_and_what_to_do(everybodys):
    planted = everybodys / f"kdray-{os.getuid()}"
    does(lambda: (planted / "services" / "8000-a").mkdir(parents=True))
    does(lambda: (planted / "services" / "8000-a" / "about.json").write_text(json.dumps(
        {"address": "127.0.0.1:1", "auth_mode": "token"})))
    for act in (machine_folder, services):
        with pytest.raises(StorageError, match=PLANTED):
            act()


@needs_root
def test_a_link_that_another_user_made_empties_no_file_and_leads_nowhere(everybodys, tmp_path):
    (tmp_path / "copies").mkdir()
    precious = tmp_path / "copies" / ".lock-ab"
    precious.write_text("precious")
    planted = everybodys / f"kdray-{os.getuid()}"
    does(lambda: planted.symlink_to(tmp_path))
    with pytest.raises(StorageError, match=rf"kdray-{os.getuid()} is no folder, and belongs to nobody"):
        local_copy(Store(str(tmp_path)), ("shards", "x"), "ab")
    assert precious.read_text() == "precious"


@needs_root
def test_metrics_are_not_written_into_another_user_s_folder(everybodys):
    planted = everybodys / "kdray-metrics-8000"
    does(planted.mkdir)
    done = subprocess.run([sys.executable, "-c", "import kdray.serving.metrics"], capture_output=True, text=True,
                          env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(planted)})
    assert done.returncode == 1 and f"{planted} belongs to nobody" in done.stderr
