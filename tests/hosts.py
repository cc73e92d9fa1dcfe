"""Hosts on one machine: network namespaces on a bridge, each with its address, name, disc and Ray node.

What a host shares with the others is the network alone: the folder that is its TMPDIR and HOME has the same path on
all of them, and other files. (What is read only, such as Python's packages, they see alike, as from one image.)
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from tests.integration.conftest import ROOT, environment, s3_server

S3 = {"AWS_ACCESS_KEY_ID": "test-key-id", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_DEFAULT_REGION": "us-east-1"}
HEALTH = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "2000",
          "RAY_health_check_failure_threshold": "5"}
"""A host that does not answer for about 15 s is dead; with Ray's own settings it takes about a minute."""
_GCS, _S3 = 6379, 9000
_ENTER = """
echo "$1" > /proc/sys/kernel/hostname
mount --bind "$2" "$3"
mount --bind "$3/hosts" /etc/hosts
cd "$4"
shift 4
exec "$@"
"""
_RAY = str(Path(sys.executable).parent / "ray")


class RefusedError(Exception):
    """This machine, or this user, cannot have network namespaces; the text says what the system said."""


@dataclass
class Host:
    """One host."""

    name: str
    address: str
    disc: Path
    """Its files, as this process sees them."""
    tmp: Path
    """Where the host sees them."""
    head: str
    s3: str
    node: subprocess.Popen | None = None

    def start(self, log: str, *command: str, **more: str) -> subprocess.Popen:
        """A process on the host; its output is in the file `log` of its disc. `more` goes into its environment."""
        variables = {**environment(), **S3, "AWS_ENDPOINT_URL": self.s3, "TMPDIR": str(self.tmp),
                     "HOME": str(self.tmp), **more}
        inside = ["nsenter", f"--net=/run/netns/{self.name}", "unshare", "--uts", "--mount", "sh", "-ec", _ENTER, "sh",
                  self.name, str(self.disc), str(self.tmp), str(ROOT)]
        with open(self.disc / log, "w") as output:
            return subprocess.Popen([*inside, *command], env=variables, stdout=output, stderr=subprocess.STDOUT)

    def kdray(self, *arguments: str) -> subprocess.Popen:
        """A `kdray` command on the host, with the hosts' cluster; its output is in `kdray.log`."""
        return self.start("kdray.log", sys.executable, "-m", "kdray.cli", *arguments, RAY_ADDRESS=f"{self.head}:{_GCS}")

    def join(self, cpus: int) -> None:
        """Starts Ray with `cpus`, as the head where the address is the head's, for `wait` to wait for."""
        role = ["--head", f"--port={_GCS}"] if self.address == self.head else [
            f"--address={self.head}:{_GCS}"]
        self.node = self.start(
            "ray.log", _RAY, "start", "--block", *role, f"--node-ip-address={self.address}", f"--num-cpus={cpus}",
            f"--object-store-memory={128 * 2**20}", "--disable-usage-stats", **HEALTH)

    def wait(self) -> None:
        """Returns when Ray has started; fails where it ends before, or takes 2 minutes."""
        assert self.node is not None
        ends, log = time.monotonic() + 120, self.disc / "ray.log"
        while "Ray runtime started" not in log.read_text():
            assert self.node.poll() is None and time.monotonic() < ends, log.read_text()
            time.sleep(0.2)

    def leave(self) -> None:
        """Ends every process on the host, as a power cut does."""
        while pids := self.processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.node is not None:
                self.node.wait(60)
            time.sleep(0.1)

    def cut(self) -> None:
        """Takes its link down: what it sends and what is sent to it is lost. Its processes know nothing of it."""
        _ip("link", "set", f"{self.name}v", "down")

    def mend(self) -> None:
        """Takes its link up."""
        _ip("link", "set", f"{self.name}v", "up")

    def processes(self) -> list[int]:
        """Ids of what runs on the host."""
        return [int(pid) for pid in _ip("netns", "pids", self.name).split()]

    def runs(self, title: str) -> bool:
        """Whether one of its processes has a title that begins with `title`."""
        for pid in self.processes():
            try:
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode()):
                    return True
            except OSError:
                continue
        return False


@contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Connected hosts, and an S3 server that all reach, as this process does: `s3` of each host. The first is the head.

    Raises RefusedError where they cannot be made. What is made is named after this process, and gone afterwards.
    """
    mark = f"kd{os.getpid()}"
    net = ip_network((int(ip_address("198.18.0.0")) + os.getpid() % 2**13 * 16, 28))
    gateway, *addresses = map(str, list(net.hosts())[:1 + count])
    tmp, discs = Path("/tmp") / mark, Path(tempfile.mkdtemp(prefix="hosts-"))  # short: Ray's sockets are there
    tmp.mkdir()
    made = [Host(f"{mark}h{i}", address, discs / str(i), tmp, addresses[0], f"http://{gateway}:{_S3}")
            for i, address in enumerate(addresses)]
    try:
        _ip("link", "add", mark, "type", "bridge")
        _ip("address", "add", f"{gateway}/{net.prefixlen}", "dev", mark)
        _ip("link", "set", mark, "up")
        for host in made:
            _plug(host, mark, gateway, net.prefixlen)
        with s3_server(gateway, _S3):
            yield made
    finally:
        for host in made:
            if host.name in _names():
                host.leave()
                _ip("netns", "delete", host.name)
        subprocess.run(["ip", "link", "delete", mark], capture_output=True)
        for folder in (tmp, discs):
            shutil.rmtree(folder, ignore_errors=True)


def _plug(host: Host, bridge: str, gateway: str, bits: int) -> None:
    host.disc.mkdir()
    (host.disc / "hosts").write_text(f"127.0.0.1 localhost\n{host.address} {host.name}\n")
    _ip("netns", "add", host.name)
    _ip("link", "add", f"{host.name}v", "type", "veth", "peer", "name", "eth0", "netns", host.name)
    _ip("link", "set", f"{host.name}v", "master", bridge, "up")
    for command in (f"address add {host.address}/{bits} dev eth0", "link set eth0 up", "link set lo up",
                    f"route add default via {gateway}"):
        _ip("-netns", host.name, *command.split())
    if host.start("ray.log", "true").wait(30):
        raise RefusedError((host.disc / "ray.log").read_text().strip())


def _names() -> set[str]:
    return {line.split()[0] for line in _ip("netns", "list").splitlines() if line}


def _ip(*words: str) -> str:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
    except FileNotFoundError:
        raise RefusedError("there is no `ip` (iproute2)") from None
    if done.returncode:
        raise RefusedError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
