"""cluster/slurm.sh under Slurm itself: two hosts with slurmd and munged, one of which has slurmctld too.

Hosts are network namespaces; what they share is the checkout and the storage, as a site's file system.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import Host, RefusedError, hosts
from tests.integration.conftest import Command, numbers, small_config, write_config
from tests.small import make_model, sentences, write_jsonl

SBIN = Path("/usr/sbin")
MISSING = [package for program, package in {"slurmctld": "slurm-wlm", "munged": "munge"}.items()
           if not (SBIN / program).exists()]
pytestmark = [
    pytest.mark.slow, pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(MISSING) or os.geteuid() != 0,
                       reason=f"needs root, and apt-get install {' '.join(MISSING) or 'nothing'}")]
CONF = """
ClusterName=kdray
SlurmctldHost={head}({address})
AuthType=auth/munge
AuthInfo=socket={tmp}/munge.socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation={tmp}/state
SlurmdSpoolDir={tmp}/spool
SlurmctldPidFile={tmp}/slurmctld.pid
SlurmdPidFile={tmp}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Site:
    """Hosts under Slurm."""

    def __init__(self, machines: list[Host], folder: Path):
        self.hosts, self.head, self.folder = machines, machines[0], folder
        conf, key = folder / "slurm.conf", folder / "munge.key"
        conf.write_text(CONF.format(head=self.head.name, address=self.head.address, tmp=self.head.tmp, nodes="\n".join(
            f"NodeName={host.name} NodeAddr={host.address} CPUs={os.cpu_count()}" for host in machines)))
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self.environment = {"SLURM_CONF": str(conf), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        names = "".join(f"{host.address} {host.name}\n" for host in machines)
        for host in machines:
            with open(host.disc / "hosts", "a") as known:
                known.write(names)
            for place in ("state", "spool"):
                (host.disc / place).mkdir()
            self.start(host, "munged", "--foreground", "--force", f"--key-file={key}",
                       *(f"--{name}-file={host.tmp}/munge.{name}" for name in ("pid", "log", "seed")),
                       f"--socket={host.tmp}/munge.socket")
        self.start(self.head, "slurmctld", "-D")
        for host in machines:
            self.start(host, "slurmd", "-D", "-N", host.name)

    def start(self, host: Host, program: str, *arguments: str) -> subprocess.Popen:
        """A daemon that sees the processes of its own host alone, as Ray does that it starts."""
        return host.start(f"{program}.log", "unshare", "--pid", "--fork", "--mount-proc", str(SBIN / program),
                          *arguments, **self.environment)

    def wait(self) -> None:
        """Returns when Slurm has both nodes."""
        ends = time.monotonic() + 60
        while self.run("sinfo", "-h", "-o", "%t %D")[1].strip() != "idle 2":
            assert time.monotonic() < ends, [path.read_text()[-1000:] for host in self.hosts
                                             for path in host.disc.glob("*.log")]
            time.sleep(1)

    def run(self, *words: str, log: str = "run.log") -> tuple[int, str]:
        """A command on the head, and what it printed."""
        status = self.head.start(log, *words, **self.environment).wait(1200)
        return status, (self.head.disc / log).read_text()

    def batch(self, *arguments: str) -> tuple[int, str]:
        """The script with arguments, as a job of two nodes that is waited for, and the job's output."""
        output = self.folder / "job.log"
        status, said = self.run("sbatch", "--wait", f"--output={output}", "cluster/slurm.sh", *arguments)
        return status, said + output.read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    try:
        with hosts(2) as machines:
            site = Site(machines, tmp_path_factory.mktemp("slurm"))
            site.wait()
            yield site
    except RefusedError as error:
        pytest.skip(f"no network namespaces here: {error}")


def test_a_run_on_two_nodes_ends_with_the_numbers_of_one_alone(site: Site, tmp_path: Path, kdray: Command) -> None:
    rows, model = write_jsonl(tmp_path / "rows.jsonl", sentences(400)), make_model(tmp_path / "base")
    changes = {"search": {"trials": 1}, "cache": {"rows_per_shard": 100},
               "training": {"epochs": 2, "lr": 3e-3, "num_cpus": 1},
               "teacher": {"model": str(model), "num_cpus": 1, "actors": 2, "min_actors": 1,
                           "finetune": {"epochs": 2, "lr": 3e-3, "num_cpus": 1}}}
    for name in ("alone", "together"):
        write_config(tmp_path / f"{name}.yaml", small_config(tmp_path / name, rows, model, changes))
    done = kdray("run", str(tmp_path / "alone.yaml"))
    assert done.returncode == 0, done.stderr
    status, said = site.batch(str(tmp_path / "together.yaml"), "name=together")
    assert status == 0 and "2 nodes" in said, said
    assert numbers(tmp_path / "together") == numbers(tmp_path / "alone")
    assert site.run("sinfo", "-h", "-o", "%t %D")[1].strip() == "idle 2"
    assert not any(host.runs("/".join(["", "raylet"])) for host in site.hosts)


def test_a_job_that_fails_ends_with_its_status_and_its_message(site: Site, tmp_path: Path) -> None:
    status, said = site.batch(str(tmp_path / "gone.yaml"))
    assert status != 0 and f"no config file {tmp_path / 'gone.yaml'}" in said, said


def test_without_a_config_the_script_says_how_to_call_it(site: Site) -> None:
    status, said = site.batch()
    assert status == 2 and "usage: sbatch cluster/slurm.sh CONFIG" in said


