"""A RayService's serveConfigV2 becomes problems: what Ray Serve would ignore, refuse or not reach.

Serve's own schema lets unknown keys pass; here they are refused.
"""

import types
import typing
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeDeploySchema

from kdray.config import ServeConfig, changed, hint
from kdray.errors import ConfigError
from kdray.kubernetes.fit import cpus
from kdray.kubernetes.problem import Problem, RayManifest
from kdray.kubernetes.render import RUN

BUILDER = "kdray.serving.deploy:application"
_FIELD = "spec.serveConfigV2"


def serve_config(manifest: RayManifest) -> Iterator[Problem]:
    """What is wrong with the Serve config of a RayService."""
    try:
        config = yaml.safe_load(manifest.at(_FIELD, ""))
    except yaml.YAMLError as error:
        yield manifest.problem(_FIELD, f"not YAML: {error}")
        return
    if not isinstance(config, dict):
        yield manifest.problem(_FIELD, "must be a mapping with `applications`")
        return
    held = _Config(manifest, config)
    yield from held.unknown(ServeDeploySchema, config, "")
    yield from held.mistyped()
    yield from held.proxies()
    for place, application in enumerate(config.get("applications") or []):
        yield from held.application(application, f"applications.{place}")


class _Config:
    """A Serve config, and the words to say what is wrong in it."""

    def __init__(self, manifest: RayManifest, config: dict[str, Any]):
        self._manifest, self._config = manifest, config

    def problem(self, path: str, value: Any, remedy: str) -> Problem:
        return Problem(str(self._manifest), f"{_FIELD}: {path}", value, remedy)

    def unknown(self, model: type[BaseModel], tree: Any, path: str) -> Iterator[Problem]:
        """Keys that the model does not have, at any depth."""
        if isinstance(tree, list):
            for place, item in enumerate(tree):
                yield from self.unknown(model, item, f"{path}{place}.")
        elif isinstance(tree, dict):
            for name, value in tree.items():
                field = model.model_fields.get(name)
                if field is None:
                    yield self.problem(f"{path}{name}", value, "unknown key, which Serve would ignore; "
                                       f"{hint(str(name), model.model_fields)}")
                elif part := _model(field.annotation):
                    yield from self.unknown(part, value, f"{path}{name}.")

    def mistyped(self) -> Iterator[Problem]:
        """What Serve itself refuses."""
        try:
            ServeDeploySchema.model_validate(self._config)
        except ValidationError as error:
            for item in error.errors():
                yield self.problem(".".join(map(str, item["loc"])), item["input"], f"Serve refuses it: {item['msg']}")

    def proxies(self) -> Iterator[Problem]:
        """Replicas listen themselves, so proxies would hold their port."""
        if self._config.get("proxy_location") != "Disabled":
            yield self.problem("proxy_location", self._config.get("proxy_location"), "replicas listen themselves: "
                               "write Disabled")

    def application(self, application: Any, path: str) -> Iterator[Problem]:
        """An application of kdray's own builder: its arguments."""
        if not isinstance(application, dict) or application.get("import_path") != BUILDER:
            yield self.problem(f"{path}.import_path", isinstance(application, dict) and application.get("import_path"),
                               f"kdray's application is {BUILDER}: write that")
            return
        arguments = application.get("args") or {}
        for name in arguments.keys() - {"run", "settings"}:
            yield self.problem(f"{path}.args.{name}", arguments[name], "unknown argument; known are run, settings")
        run = arguments.get("run")
        if not run or run == RUN:
            yield self.problem(f"{path}.args.run", run, "name the folder or URI of a run (kdray k8s render --run)")
        yield from self._settings(arguments.get("settings") or {}, f"{path}.args.settings")

    def _settings(self, settings: dict[str, Any], path: str) -> Iterator[Problem]:
        try:
            whole = changed(ServeConfig(), settings)
        except ConfigError as error:
            yield self.problem(path, settings, str(error))
            return
        if whole.host not in ("0.0.0.0", "::"):
            yield self.problem(f"{path}.host", whole.host, "nobody outside the pod reaches it: write 0.0.0.0")
        ports = [port.get("containerPort") for group in self._manifest.workers()
                 for port in self._manifest.at(f"{group}.template.spec.containers.0.ports", [])
                 if port.get("name") == "serve"]
        if any(port != whole.port for port in ports):
            yield self.problem(f"{path}.port", whole.port, f"the worker's port `serve` is {ports[0]}: make them equal")
        limits = [cpus(str(self._manifest.at(f"{group}.template.spec.containers.0.resources.limits.cpu", "inf")))
                  for group in self._manifest.workers()]
        if limits and whole.num_cpus > max(limits):
            yield self.problem(f"{path}.num_cpus", whole.num_cpus, f"no worker has more than {max(limits):g} CPUs, so "
                               "no replica would start: lower it, or raise the limit")


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, alone or in a list; None where it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (list, typing.Union, types.UnionType):
        return next(filter(None, map(_model, typing.get_args(annotation))), None)
    return None
