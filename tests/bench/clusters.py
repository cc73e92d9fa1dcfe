"""One config alone, after `ray up` on two hosts of one's own, and under Slurm on two nodes: the same numbers?

    python tests/bench/clusters.py alone|premises|slurm [CONFIG] [KEY=VALUE ...]

Prints the metrics on the test split and the seconds of the run; each way in a command of its own.
Hosts are network namespaces (see tests/premises.py and tests/integration/test_slurm.py, which say what to install).
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.hosts import hosts
from tests.integration import test_premises, test_slurm
from tests.integration.conftest import ROOT, command, environment

QUICKSTART = str(ROOT / "jobs" / "configs" / "quickstart.yaml")


def alone(folder: Path, config: str, changes: list[str]) -> tuple[float, Path]:
    began = time.monotonic()
    subprocess.run(command("run", config, f"storage={folder / 'store'}", *changes), check=True, env=environment())
    return time.monotonic() - began, folder / "store"


def premises(folder: Path, config: str, changes: list[str]) -> tuple[float, Path]:
    with test_premises.made(folder, 2) as site:
        up = site.ray("up", "--yes", str(site.file))
        assert up.returncode == 0, up.stdout + up.stderr
        with site.dashboard() as address:
            while len(test_premises.alive(site, address)) < 2:
                time.sleep(1)
            began = time.monotonic()
            subprocess.run(command("submit", config, "storage=/storage/store", *changes, "--address", address,
                                   "--shared", "/storage"), check=True, env=site.environment)
            seconds = time.monotonic() - began
        assert site.ray("down", "--yes", str(site.file)).returncode == 0
        return seconds, site.shared / "store"


def slurm(folder: Path, config: str, changes: list[str]) -> tuple[float, Path]:
    with hosts(2) as machines:
        site = test_slurm.Site(machines, folder)
        site.wait()
        began = time.monotonic()
        status, said = site.batch(config, f"storage={folder / 'store'}", *changes)
        print(said)
        assert status == 0
        return time.monotonic() - began, folder / "store"


def main(where: str, config: str = QUICKSTART, *changes: str) -> None:
    with tempfile.TemporaryDirectory(prefix="clusters-") as folder:
        seconds, store = {"alone": alone, "premises": premises, "slurm": slurm}[where](Path(folder), config,
                                                                                      list(changes))
        (evaluation,) = store.glob("evaluations/[!.]*/manifest.json")
        numbers: dict[str, Any] = json.loads(evaluation.read_text())["numbers"]["test"]
    print(f"{where}: {seconds:.0f} s")
    for name, measured in numbers.items():
        print(name, {metric: value["value"] for metric, value in measured.items() if isinstance(value, dict)
                     and "value" in value})


if __name__ == "__main__":
    main(*sys.argv[1:])
