"""What a process sees of a machine: real folders, a real package that hides another, no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdray.doctor import machine
from kdray.doctor.findings import Facts
from kdray.models.folder import fingerprint
from kdray.storage import Store
from tests.small import make_model


def test_storage_is_written_read_and_left_as_it_was(tmp_path: Path) -> None:
    Store(str(tmp_path)).write(b"", "witness")
    assert machine.look(str(tmp_path), "witness", [], False)["storage"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["witness"]
    assert machine.look(str(tmp_path / "other"), "witness", [], False)["storage"] == machine.ABSENT
    assert not (tmp_path / "other").exists()


def test_storage_that_cannot_be_a_folder_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = Facts(**machine.look(str(tmp_path / "file" / "store"), None, [], False)).storage
    assert said and "Not a directory" in said and ".probe" not in said


def test_storage_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PATIENCE", 0.2)
    os.mkfifo(tmp_path / "witness")  # opened by nobody: reading it would wait for ever
    monkeypatch.setattr(machine, "_try", lambda uri, witness: (tmp_path / "witness").read_text())
    assert machine.look(str(tmp_path), "witness", [], False)["storage"] == "no answer in 0.2 s"
    os.close(os.open(tmp_path / "witness", os.O_WRONLY))


def test_models_are_known_by_their_fingerprint(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    found = machine.look(None, None, [str(model), str(tmp_path / "none")], False)["folders"]
    assert found == {str(model): fingerprint(model), str(tmp_path / "none"): None}


def test_versions_are_those_of_what_is_imported_first(tmp_path: Path) -> None:
    (tmp_path / "kdray").mkdir()
    (tmp_path / "kdray" / "__init__.py").write_text('__version__ = "0.0.9"\n')
    (tmp_path / "torch-1.0.dist-info").mkdir()
    (tmp_path / "torch-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0+cpu\n")
    code = f"exec(open({machine.__file__!r}).read()); found = look(None, None, [], False)['versions']; " \
           "print(found['kdray'], found['torch'], found['python'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=True)
    assert done.stdout.startswith("0.0.9 (source ") and " 1.0 3." in done.stdout
    mine = machine.look(None, None, [], False)["versions"]
    assert mine["kdray"].startswith("0.1.0 (source ") and mine["torch"].partition("+")[2] == ""


def test_gpus_are_those_of_torch() -> None:
    import torch

    assert len(machine.look(None, None, [], True)["gpus"]) == torch.cuda.device_count()
