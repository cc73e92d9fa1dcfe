"""The image without a registry: the Dockerfile's steps, carried out in a folder and a fresh virtual environment.

Left out is what would change this machine: Debian's packages are only looked up, and no account is made.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT

DOCKERFILE = ROOT / "cluster" / "Dockerfile"
MINUTES = 60


def instructions() -> Iterator[tuple[str, str]]:
    """Each instruction of the Dockerfile and its arguments, on one line."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest


class Build:
    """A folder for the image's root, and the environment that its steps see."""

    def __init__(self, root: Path):
        self.root, self.here = root, root
        venv = root / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        self.environment = {**kept, "PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}
        self.left_out: list[str] = []

    def carry_out(self, word: str, rest: str) -> None:
        act = {"ARG": self.name, "ENV": self.name, "WORKDIR": self.go, "COPY": self.copy, "RUN": self.run}
        act.get(word, lambda rest: None)(rest)

    def name(self, rest: str) -> None:
        for pair in shlex.split(rest):
            name, _, value = pair.partition("=")
            self.environment[name] = value

    def go(self, rest: str) -> None:
        self.here = self.root / rest.lstrip("/")
        self.here.mkdir(parents=True, exist_ok=True)

    def copy(self, rest: str) -> None:
        *sources, target = rest.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, self.here / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (self.here / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, self.here / target)

    def run(self, rest: str) -> None:
        if rest.startswith("apt-get"):
            self.look_up(rest)
        elif rest.startswith("useradd"):
            self.left_out.append(rest)
        else:
            done = subprocess.run(["sh", "-c", rest], cwd=self.here, env=self.environment, capture_output=True,
                                  text=True, timeout=MINUTES * 60)
            assert done.returncode == 0, f"{rest}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    def look_up(self, rest: str) -> None:
        """Whether Debian has the packages: apt with lists of its own, which installs nothing."""
        self.left_out.append(rest)
        lists = self.root / "lists"
        (lists / "partial").mkdir(parents=True)
        (self.root / "apt.conf").write_text(f'Dir::State::lists "{lists}";\nAPT::Get::Simulate "true";\n')
        subprocess.run(["sh", "-c", rest.replace("/var/lib/apt/lists", str(lists))], check=True, capture_output=True,
                       env={**self.environment, "APT_CONFIG": str(self.root / "apt.conf")}, timeout=300)

    def says(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.here, env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(MINUTES * 60)
@pytest.mark.skipif(shutil.which("apt-get") is None or os.geteuid() != 0, reason="needs apt-get, and root to ask it")
def test_every_step_of_the_image_works(tmp_path: Path) -> None:
    build = Build(tmp_path)
    for word, rest in instructions():
        build.carry_out(word, rest)
    assert [step.split()[0] for step in build.left_out] == ["apt-get", "useradd"]
    build.says("pip", "check")
    pins = {line.split("==")[0].lower().replace("_", "-"): line.split("==")[1]
            for line in (ROOT / "cluster" / "constraints.txt").read_text().splitlines() if "==" in line}
    found = dict(re.findall(r"^(\S+)==([^+\s]+)", build.says("pip", "freeze").lower().replace("_", "-"), re.M))
    found.pop("kdray", None)
    assert "ray" in found and {name: pins.get(name) for name in found} == found
    assert "kdray.serving" in build.says("python", "-c", "import kdray.serving.app; print(kdray.serving.app.__name__)")
    where = build.says("python", "-c", "import kdray; print(kdray.__file__)")
    assert where.startswith(str(tmp_path / "venv")), "the image must not run from its build folder"


def test_what_the_image_copies_is_what_its_ignore_file_lets_through() -> None:
    ignore = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in ignore if line.startswith("!")}
    copied = {source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]}
    assert copied == let_through and all((ROOT / source).exists() for source in copied)
