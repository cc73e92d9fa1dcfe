"""The files of `ray up` against Ray's own schema, the Slurm script against stand-ins, the pins against what is here."""

import copy
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.unit.kubernetes.conftest import ROOT

CLUSTER = ROOT / "cluster"
CLOUDS = ["aws", "gcp"]
SITES = [*CLOUDS, "on-premises"]


def site(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())


def validated(config: dict[str, Any]) -> dict[str, Any]:
    prepared = prepare_config(config)
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("name", SITES)
def test_ray_accepts_the_file(name: str) -> None:
    prepared = validated(site(name))
    assert prepared["cluster_name"] == "kdray"
    assert not any("pip install" in command for command in prepared["setup_commands"])


def known_fields(tree: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Fields that Ray knows; what cloud providers and users name freely is left out."""
    for name, value in tree.items():
        yield (name,)
        if name in ("auth", "docker"):
            yield from ((name, inner) for inner in value)
        if name == "available_node_types":
            yield from ((name, group, field) for group, fields in value.items() for field in fields)


@pytest.mark.parametrize("name", SITES)
def test_a_misspelt_field_is_refused(name: str) -> None:
    for path in known_fields(site(name)):
        config = copy.deepcopy(site(name))
        place = config
        for part in path[:-1]:
            place = place[part]
        place[f"{path[-1]}z"] = place.pop(path[-1])
        with pytest.raises((ValidationError, KeyError, ValueError, AssertionError)):
            validated(config)


@pytest.mark.parametrize("name", CLOUDS)
def test_teachers_and_students_have_groups_of_their_own_and_teachers_are_spot(name: str) -> None:
    groups = site(name)["available_node_types"]
    assert groups["head"]["resources"]["CPU"] == 0
    spot = {group: "SPOT" in str(fields["node_config"]).upper() for group, fields in groups.items()}
    assert spot == {"head": False, "teacher": True, "student": False}
    for group in ("teacher", "student"):
        assert groups[group]["labels"] == {"kdray/group": group}
        assert 1 <= groups[group]["min_workers"] <= groups[group]["max_workers"]
    assert site(name)["max_workers"] == sum(fields.get("max_workers", 0) for fields in groups.values())


@pytest.mark.parametrize("name", SITES)
def test_no_cluster_is_open(name: str) -> None:
    config = site(name)
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/kdray/.ray/auth_token": "~/.ray/auth_token"}
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


@pytest.mark.parametrize("name", SITES)
def test_commands_are_shell(name: str) -> None:
    config = site(name)
    for field in (field for field in config if field.endswith("_commands")):
        for command in config[field]:
            subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize("name", SITES)
def test_an_image_without_what_ray_up_needs_is_found_before_it_starts(name: str, tmp_path: Path) -> None:
    config = site(name)
    line = next(line for line in config["initialization_commands"] if line.startswith("docker run"))
    assert config["docker"]["image"] in line.split()
    client = {"aws": "boto3", "gcp": "googleapiclient"}.get(name)
    stand_in(tmp_path, "docker", 'while [ "$1" != -c ]; do shift; done; PATH=$IMAGE exec /bin/sh -c "$2"')
    image = tmp_path / "image"
    image.mkdir()
    for tool in ("bash", "ray", "rsync", "ssh"):
        done = checked(line, tmp_path)
        assert done.returncode == 1 and f"the image has no {tool}: build it from cluster/Dockerfile" in done.stderr
        stand_in(image, tool, "")
    stand_in(image, "python", "exit 1")
    done = checked(line, tmp_path)
    assert done.returncode == bool(client)
    assert not client or f"the image has no {client}: build it with the extra clouds" in done.stderr
    stand_in(image, "python", "")
    assert checked(line, tmp_path).returncode == 0


def checked(line: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env={
        "PATH": f"{folder}:{os.environ['PATH']}", "IMAGE": str(folder / "image")})


def test_the_image_has_what_ray_up_needs() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    installed = text.partition("apt-get install")[2].partition("&&")[0].split()
    assert {"rsync", "openssh-client"} <= set(installed)
    assert re.search(r"^ARG EXTRAS=.*\bclouds\b", text, re.M) and "ENV HOME=/home/kdray" in text
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [Requirement(line) for line in extras["clouds"]]
    assert {one.name for one in wanted} == {"boto3", "google-api-python-client"}
    assert all(one.specifier.contains(pins()[_normal(one.name)]) for one in wanted)


def test_gpu_nodes_have_a_driver() -> None:
    """Ray's own default on AWS is of 2019; on GCP, families that name no driver have none."""
    for group in site("aws")["available_node_types"].values():
        assert group["node_config"]["ImageId"].startswith("ami-")
    for group in site("gcp")["available_node_types"].values():
        assert re.search(r"-nvidia-5[89]\d$", group["node_config"]["disks"][0]["initializeParams"]["sourceImage"])


def test_a_host_says_what_it_is_for(tmp_path: Path) -> None:
    command = site("on-premises")["worker_start_ray_commands"][-1].replace("/etc/kdray", str(tmp_path))
    for group in ("student", "teacher"):
        stand_in(tmp_path, "ray", 'echo "$@"')
        shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True,
                               env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "RAY_HEAD_IP": "10.0.0.1"}).stdout
        assert shown == f"start --address=10.0.0.1:6379 --labels=kdray/group={group}\n"
        (tmp_path / "group").write_text("teacher\n")


def stand_in(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


def slurm(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The script with stand-ins: scontrol names hosts, srun runs its command once, ray says what it was told."""
    stand_in(folder, "scontrol", "printf 'node7\\nnode8\\n'")
    stand_in(folder, "getent", "[ $2 = node7 ] && printf '127.0.1.1 STREAM node7\\n10.0.0.7 STREAM\\n'")
    stand_in(folder, "srun", 'echo "srun $1 $2 $3"; shift 3; exec "$@"')
    stand_in(folder, "ray", 'printf "%s|" "$@"; echo; echo "$RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}"')
    return subprocess.run([str(CLUSTER / "slurm.sh"), *arguments], capture_output=True, text=True, env={
        "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "123456", "SLURM_CPUS_ON_NODE": "16", "SLURM_NODEID": "0"})


def test_slurm_runs_one_line_on_every_node(tmp_path: Path) -> None:
    done = slurm(tmp_path, "my config.yaml", "search.trials=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "srun --nodes=2 --ntasks-per-node=1 --kill-on-bad-exit=1",
        "symmetric-run|--address|10.0.0.7:23456|--min-nodes|2|--num-cpus|16|--|env|RAY_ADDRESS=10.0.0.7:23456|python|"
        "jobs/pipeline.py|my config.yaml|search.trials=2|",
        "token 64"]


def test_slurm_without_a_config_says_how_to_call_it(tmp_path: Path) -> None:
    done = slurm(tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("usage: sbatch cluster/slurm.sh CONFIG")


def pins() -> dict[str, str]:
    lines = [line for line in (CLUSTER / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    return {_normal(name): pin for name, pin in (line.split("==") for line in lines)}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_within_what_the_project_asks_for() -> None:
    pinned = pins()
    for text in requires("kdray") or []:
        wanted = Requirement(text)
        if wanted.name == "kdray":
            continue
        assert _normal(wanted.name) in pinned, f"{wanted.name} has no line in constraints.txt"
        assert wanted.specifier.contains(pinned[_normal(wanted.name)]), text


def test_the_pins_are_what_is_tested_here() -> None:
    there = {}
    for name in pins():
        try:
            there[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    different = {name: (pins()[name], found) for name, found in there.items() if found != pins()[name]}
    if different:
        pytest.skip(f"this environment was not installed with cluster/constraints.txt: {different}")
    assert there["ray"] == version("ray")


def test_the_image_is_pinned_and_ends_without_rights() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON=3\.11\.\d+-slim-\w+$", text, re.M) and "FROM python:${PYTHON}" in text
    assert re.findall(r"^USER (.*)$", text, re.M) == ["1000:1000"]
    installs = re.findall(r"pip install (.*)", text)
    assert len(installs) == 2 and all("--constraint cluster/constraints.txt" in line for line in installs)
