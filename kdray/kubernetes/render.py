"""A kustomize overlay and a few values become the documents that `kubectl apply` takes.

Kustomize does the rendering. Knows nothing about what a cluster makes of the documents.
"""

import os
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kdray.config import dump, load
from kdray.errors import ConfigError

RUN, RANDOM = "RUN", "RANDOM"
"""What stands in manifests for a run's URI, and for a value that nobody guesses."""
_IMAGE = "kdray"
_CONFIG = "kdray-config"
_INSTANCE = "app.kubernetes.io/instance"
"""A label of what has the name of its job or service."""
_FILE = "config.yaml"
_TOOLS = {"kubectl": "kustomize", "kustomize": "build"}


@dataclass(frozen=True)
class Values:
    """What is filled in; None leaves what the overlay has."""

    namespace: str | None = None
    name: str | None = None
    """Of the RayJob, RayService or RayCronJob."""
    image: str | None = None
    run: str | None = None
    """Folder or URI of the run whose winner is served."""
    storage: str | None = None
    """Folder below a mount, or URI, of all artefacts."""
    config: str | None = None
    """File with the config that is run."""
    service: str | None = None
    """RayService that the nightly job promotes to."""
    components: tuple[str, ...] = ()
    """Folders of k8s/components, applied before the overlay's own."""


def render(overlay: str, values: Values, root: Path | str = "k8s") -> list[dict[str, Any]]:
    """The documents of an overlay, a folder below `root`/overlays, with `values` in their places.

    Raises ConfigError where there is no such overlay, a value has no place in it, or kustomize refuses.
    """
    folder = _folder(Path(root), "overlays", overlay)
    with tempfile.TemporaryDirectory(prefix="kdray-k8s-") as place:
        top = Path(os.path.realpath(place))
        _write(top / "overlay", _composed(Path(root), folder, values, top / "overlay"))
        layer = _layer(values)
        if values.config or values.storage:
            _put_config(values, _documents(top, layer, overlay), layer, top, overlay)
        documents = _documents(top, layer, overlay)
    _put_run(documents, values.run, overlay)
    if values.service:
        _put_service(documents, values.service, overlay)
    for document in documents:
        if document["kind"] == "Secret":
            _put_random(document)
    return documents


def as_yaml(documents: list[dict[str, Any]]) -> str:
    """Documents as `kubectl apply -f -` reads them."""
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)


def _folder(root: Path, kind: str, name: str) -> Path:
    folder = root / kind / name
    if (folder / "kustomization.yaml").is_file():
        return folder
    known = sorted(path.parent.name for path in root.glob(f"{kind}/*/kustomization.yaml"))
    if not known:
        raise ConfigError(f"no kustomize {kind} in {root}: call this where the repository's k8s folder is, or name it "
                          "with --root")
    raise ConfigError(f"{root} has no {kind} {name!r}; there are {', '.join(known)}")


def _write(folder: Path, layer: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(layer))


def _composed(root: Path, folder: Path, values: Values, place: Path) -> dict[str, Any]:
    """The overlay as a kustomization in `place`, with components added before its own."""
    layer = yaml.safe_load((folder / "kustomization.yaml").read_text())
    components = list(values.components)
    if "bucket" not in components and any("://" in (uri or "") for uri in (values.storage, values.run)):
        components.append("bucket")
    more = [_folder(root, "components", name) for name in components]
    for field, first in (("resources", []), ("components", more)):
        paths = [*first, *(folder / path for path in layer.get(field, []))]
        layer[field] = [os.path.relpath(path.resolve(), place) for path in paths]
    return layer


def _layer(values: Values) -> dict[str, Any]:
    """What values change of the composed overlay."""
    layer: dict[str, Any] = {"resources": ["overlay"]}
    if values.namespace:
        layer["namespace"] = values.namespace
    if values.image:
        layer["images"] = [_image(values.image)]
    if values.name:
        named = ({"kind": "RayJob|RayService|RayCronJob"}, {"labelSelector": _INSTANCE})
        layer["patches"] = [{
            "target": target, "options": {"allowNameChange": True},
            "patch": yaml.safe_dump([{"op": "replace", "path": "/metadata/name", "value": values.name}])}
            for target in named]
    return layer


def _image(image: str) -> dict[str, str]:
    name, at, digest = image.partition("@")
    if at:
        return {"name": _IMAGE, "newName": name, "digest": digest}
    name, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        raise ConfigError(f"image {image!r} has no tag: nodes would disagree on what it is. Write NAME:TAG or "
                          "NAME@sha256:DIGEST")
    return {"name": _IMAGE, "newName": name, "newTag": tag}


def _put_config(values: Values, documents: list[dict[str, Any]], layer: dict[str, Any], top: Path,
                overlay: str) -> None:
    """Makes the config, checked and resolved, a file of the layer, whose hash becomes part of the ConfigMap's name."""
    held = next((document for document in documents if _FILE in (document.get("data") or {})), None)
    if held is None:
        if values.config:
            raise ConfigError(f"overlay {overlay} runs no config, so {values.config} has no place in it. Leave it out, "
                              "or take an overlay with a job")
        return
    path = top / _FILE
    path.write_text(held["data"][_FILE])
    changes = [f"storage={values.storage}"] if values.storage else []
    path.write_text(dump(load(values.config or path, changes)))
    layer["configMapGenerator"] = [{"name": _CONFIG, "behavior": "replace", "files": [_FILE]}]


def _documents(top: Path, layer: dict[str, Any], overlay: str) -> list[dict[str, Any]]:
    tool = next((tool for tool in _TOOLS if shutil.which(tool)), None)
    if tool is None:
        raise ConfigError("neither kubectl nor kustomize is on PATH, and one of them renders the manifests: install "
                          "kubectl 1.27 or newer")
    _write(top, layer)
    done = subprocess.run([tool, _TOOLS[tool], str(top)], capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"{tool} {_TOOLS[tool]} cannot render overlay {overlay}: {done.stderr.strip()}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def _put_run(documents: list[dict[str, Any]], run: str | None, overlay: str) -> None:
    places = [place for document in documents for place in _run_places(document)]
    if run is None and places:
        raise ConfigError(f"overlay {overlay} serves a run, and none is given: name its folder or URI with --run "
                          "(`kdray run CONFIG` prints it)")
    if run is not None and not places:
        raise ConfigError(f"overlay {overlay} serves no run, so --run {run} has no place in it. Leave it out, or take "
                          "the overlay service or serve")
    for spec, field in places:
        spec[field] = _with_run(field, spec[field], str(run))


def _run_places(document: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    spec = document.get("spec") or {}
    return [(spec, field) for field in ("entrypoint", "serveConfigV2")
            if re.search(rf"\b{RUN}\b", str(spec.get(field, "")))]


def _with_run(field: str, text: str, run: str) -> str:
    if field == "entrypoint":
        return re.sub(rf"\b{RUN}\b", lambda found: shlex.quote(run), text)
    config = yaml.safe_load(text)
    for application in config["applications"]:
        if application.get("args", {}).get("run") == RUN:
            application["args"]["run"] = run
    return yaml.safe_dump(config, sort_keys=False)


def _put_service(documents: list[dict[str, Any]], service: str, overlay: str) -> None:
    """Makes the nightly job promote to `service`, and gives it the right to."""
    jobs = [document["spec"]["jobTemplate"] for document in documents if document["kind"] == "RayCronJob"]
    if not jobs:
        raise ConfigError(f"overlay {overlay} promotes to no RayService, so --service {service} has no place in it. "
                          "Leave it out, or take the overlay nightly")
    for job in jobs:
        job["entrypoint"] = " ".join([*job["entrypoint"].split()[:-1], service])
    for rule in (rule for document in documents if document["kind"] == "Role" for rule in document["rules"]):
        rule["resourceNames"] = [service]


def _put_random(document: dict[str, Any]) -> None:
    """Every RANDOM becomes a value of its own, then every $(key) the value of that key."""
    values = {key: secrets.token_urlsafe(32) if value == RANDOM else value
              for key, value in document.get("stringData", {}).items()}
    document["stringData"] = {key: re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], value)
                              for key, value in values.items()}
