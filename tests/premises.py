"""Machines of one's own, as `ray up` meets them: hosts with sshd, sudo and an engine for containers, and nothing else.

The engine is podman under the name of docker. Its image is made of this machine's files, with the user and variables of
cluster/Dockerfile, and without the programs that the Dockerfile does not install.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray.autoscaler.sdk import get_docker_host_mount_location

from tests.hosts import Host, RefusedError, hosts
from tests.integration.conftest import ROOT

NEEDED = {"sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync", "podman": "podman", "runc": "runc",
          "sudo": "sudo"}
"""Programs, and Debian's packages that have them."""
INSTALLED = {"rsync": "rsync", "openssh-client": "ssh"}
"""Packages of the image that matter to `ray up`, and their programs."""
_SETUP = """
for place in etc usr/local srv; do
  mkdir -p "$1/over/$place" "$1/work/$place"
  mount -t overlay overlay -o "lowerdir=/$place,upperdir=$1/over/$place,workdir=$1/work/$place" "/$place"
done
cp -r "$2"/etc/. /etc
mkdir -p /srv/kdray /run/sshd "$4" "$1/mounts" "$1/home"
mount --bind "$3" /srv/kdray
mount --bind "$1/mounts" "$4"
cp /etc/skel/.bashrc "$1/home"
chown -R 1000:1000 "$1/mounts" "$1/home"
cp "$2/docker" /usr/local/bin/docker
docker import --change "USER 1000:1000" $(cat "$2/environment") "$2/image.tar" kdray:0.1.0-gpu
exec /usr/sbin/sshd -D -e -f /etc/sshd_config
"""
_DOCKER = """#!/bin/bash
# The engine: a `pull` finds the image here; a container has this machine's programs, but for those that are hidden.
case "$1" in
  pull) exit 0 ;;
  info) echo 'map[runc:{{}}]'; exit 0 ;;
esac
files=nofile=$(ulimit -Hn):$(ulimit -Hn)  # more is not allowed here
words=()
for word; do
  [ "$last" = --ulimit ] && word=$files
  last=$word
  words+=("$word")
  [ "${{#words[@]}} $word" = "1 run" ] && words+=({mounts} --ulimit nproc=16384:16384 --ulimit $files)
done
exec sudo podman --runtime runc --root {store}/root --runroot {store}/run --tmpdir {store}/tmp "${{words[@]}}"
"""


def missing() -> list[str]:
    """Debian's packages that are not here."""
    return sorted({package for program, package in NEEDED.items()
                   if not (shutil.which(program) or Path("/usr/sbin", program).exists())})


@contextmanager
def premises(count: int, shared: Path, hidden: tuple[str, ...] = ()) -> Iterator[list[Host]]:
    """Hosts that take ssh from the key `id_ed25519` beside `shared`, which all mount at /srv/kdray.

    Programs of the image that are `hidden` are not there. Raises RefusedError where hosts cannot be made.
    """
    key = shared.parent / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    os.chown(shared, 1000, 1000)
    mounts = get_docker_host_mount_location("kdray")  # of each host's own, over a folder of this machine
    with _removed(Path(mounts)), hosts(count) as machines:
        for host in machines:
            given = host.disc / "given"
            _write_host(host, given, key, (*hidden, *_not_installed()))
            host.start("sshd.log", "sh", "-ec", _SETUP, "sh", str(host.tmp), str(host.tmp / "given"), str(shared),
                       mounts)
        for host in machines:
            _wait(host)
        yield machines


@contextmanager
def _removed(folder: Path) -> Iterator[None]:
    """Removes the empty folders that were made for `folder`, and it."""
    new = [place for place in (folder, folder.parent) if not place.exists()]
    try:
        yield
    finally:
        for place in new:
            with suppress(OSError):
                place.rmdir()


def _not_installed() -> tuple[str, ...]:
    said = (ROOT / "cluster" / "Dockerfile").read_text().partition("apt-get install")[2].partition("&&")[0].split()
    return tuple(program for package, program in INSTALLED.items() if package not in said)


def _write_host(host: Host, given: Path, key: Path, hidden: tuple[str, ...]) -> None:
    etc = given / "etc"
    etc.mkdir(parents=True)
    shutil.copy(host.disc / "hosts", etc / "hosts")
    user = f"kdray:x:1000:1000::{host.tmp / 'home'}:/bin/bash\n"
    for name, line in (("passwd", user), ("group", "kdray:x:1000:\n"), ("shadow", "kdray:*:19000:0:99999:7:::\n")):
        kept = [old for old in Path("/etc", name).read_text().splitlines(keepends=True)
                if not re.match(r"kdray:|[^:]*:[^:]*:1000:", old)]
        (etc / name).write_text("".join(kept) + line)
    (etc / "sudoers").write_text("root ALL=(ALL) NOPASSWD: ALL\nkdray ALL=(ALL) NOPASSWD: ALL\n")
    (etc / "sudoers").chmod(0o440)
    (etc / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(etc / "host_key")], check=True)
    (etc / "sshd_config").write_text("HostKey /etc/host_key\nAuthorizedKeysFile /etc/authorized_keys\nUsePAM no\n"
                                     "PasswordAuthentication no\nStrictModes no\nPidFile none\n")
    mounts = [f"--volume {place}:{place}:ro" for place in _places()]
    mounts += [f"--volume /dev/null:/usr/bin/{program}" for program in hidden]
    (given / "docker").write_text(_DOCKER.format(mounts=" ".join(mounts), store=host.tmp / "engine"))
    (given / "docker").chmod(0o755)
    _write_image(given)


def _places() -> list[str]:
    """Folders of this machine that the image's programs are in."""
    python = Path(sys.executable).resolve().parents[1]
    return list(dict.fromkeys(["/usr", "/etc/ssl", "/etc/alternatives", sys.prefix, str(python), str(ROOT)]))


def _write_image(given: Path) -> None:
    root = given / "image"
    for folder in ("tmp", "proc", "sys", "dev", "run", "var/tmp", "usr", "etc", "home/kdray", "opt/kdray"):
        (root / folder).mkdir(parents=True)
    for link in ("bin", "lib", "lib64", "sbin"):
        if Path("/", link).is_symlink():
            (root / link).symlink_to(os.readlink(f"/{link}"))
    (root / "tmp").chmod(0o1777)
    (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/bash\nkdray:x:1000:1000::/home/kdray:/bin/bash\n")
    (root / "etc" / "group").write_text("root:x:0:\nkdray:x:1000:\n")
    (root / "home" / "kdray" / ".bashrc").touch()
    for path in (root / "home" / "kdray", root / "home" / "kdray" / ".bashrc"):
        os.chown(path, 1000, 1000)
    subprocess.run(["tar", "-C", str(root), "-cf", str(given / "image.tar"), "."], check=True)
    said = dict(re.findall(r"(?:ENV |^    )(\w+)=(\S+)", (ROOT / "cluster" / "Dockerfile").read_text(), re.M))
    said |= {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(ROOT),
             "HF_HUB_OFFLINE": "1"}
    (given / "environment").write_text("\n".join(f"--change=ENV={name}={value}" for name, value in said.items()))


def _wait(host: Host) -> None:
    ends, log = time.monotonic() + 120, host.disc / "sshd.log"
    while "Server listening" not in log.read_text():
        if host.processes() == [] and time.monotonic() > ends - 115:
            raise RefusedError(log.read_text()[-500:])
        assert time.monotonic() < ends, log.read_text()
        time.sleep(0.2)
