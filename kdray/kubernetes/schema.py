"""A document and the fields that its kind has become problems: unknown, missing and mistyped fields.

Ray's kinds are held against `kuberay.tsv`, the facts of KubeRay's CRDs; Kubernetes' own kinds, and what Ray's have of
them, against the schemas in the package kubernetes-validate; kinds of others against `others.tsv`. Knows nothing about
what fields mean.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry, Resource

from kdray.config import hint
from kdray.errors import ConfigError
from kdray.kubernetes.problem import Manifest, Problem

KUBERNETES = "1.37.0"
"""The version whose own kinds are known; what a manifest of ours uses is older."""
_Schema = dict[str, Any]
_DEFINITIONS = "https://kubernetes.io/api/_definitions.json"
_PACKAGES = {"core": "io.k8s.api", "networking": "io.k8s.api", "meta": "io.k8s.apimachinery.pkg.apis"}
_TYPES: dict[str, _Schema] = {
    "object": {"type": "object", "additionalProperties": False}, "quantity": {"type": ["string", "number"]},
    "int32": {"type": "integer", "minimum": -2**31, "maximum": 2**31 - 1}}


def fields(manifest: Manifest) -> Iterator[Problem]:
    """What the schema of a document's kind refuses, unknown fields too."""
    kind = f"{manifest.body.get('apiVersion')} {manifest.kind}"
    validator = _validator(kind)
    if validator is None:
        yield manifest.problem("kind", f"nobody here knows the kind {kind}: known are those of Kubernetes itself and "
                               f"{', '.join(sorted(_custom()))}")
        return
    for error in validator.iter_errors(manifest.body):
        yield from _problems(manifest, error)


def _problems(manifest: Manifest, error: ValidationError) -> Iterator[Problem]:
    path = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        for name in error.instance.keys() - known.keys():
            yield manifest.problem(f"{path}.{name}".lstrip("."), f"unknown field; {hint(str(name), known)}")
    elif error.validator == "required":
        for name in set(error.validator_value) - error.instance.keys():
            yield manifest.problem(f"{path}.{name}".lstrip("."), "this field is required: add it")
    else:
        yield manifest.problem(path, f"{error.message[-200:]}; change it to what the schema asks for")


@cache
def _validator(kind: str) -> Draft202012Validator | None:
    """None where nobody knows the kind."""
    schema = _custom().get(kind) or _own(*kind.split(" ", 1))
    definitions = Registry().with_resource(_DEFINITIONS, Resource.from_contents(_kubernetes("_definitions.json")))
    return None if schema is None else Draft202012Validator(schema, registry=definitions)


def _own(version: str, kind: str) -> _Schema | None:
    """The schema of one of Kubernetes' own kinds; None where it is none."""
    group, slash, number = version.rpartition("/")
    try:
        return _kubernetes(f"{kind.lower()}-{group.partition('.')[0]}{slash and '-'}{number}.json")
    except FileNotFoundError:
        return None


@cache
def _kubernetes(file: str) -> _Schema:
    try:
        from kubernetes_validate.utils import schema_contents
    except ImportError as error:
        raise ConfigError("Kubernetes' schemas are not installed, and manifests are checked against them: "
                          "pip install 'kdray[kubernetes]'") from error
    return schema_contents(f"kubernetes-json-schema/v{KUBERNETES}-local-strict/{file}", KUBERNETES)


@cache
def _custom() -> dict[str, _Schema]:
    """Schemas of the kinds in the tables."""
    kinds: dict[str, _Schema] = {}
    for table in ("kuberay.tsv", "others.tsv"):
        for line in files("kdray.kubernetes").joinpath(table).read_text().splitlines()[1:]:
            kind, path, what, *facts = line.split("\t")
            if path == "spec":
                kinds[kind] = _document()
            said = {name: json.loads(value) for name, _, value in (fact.partition("=") for fact in facts)}
            required = said.pop("required", False) or path == "spec"
            _put(kinds[kind], path, {**_type(what, kind, kinds), **said}, required)
    return kinds


def _document() -> _Schema:
    metadata = {"$ref": f"{_DEFINITIONS}#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    return {"type": "object", "additionalProperties": False, "required": ["metadata"],
            "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": metadata}}


def _type(what: str, kind: str, kinds: dict[str, _Schema]) -> _Schema:
    if what.startswith("="):
        return kinds[f"{kind.partition(' ')[0]} {what[1:]}"]["properties"]["spec"]
    if "." in what:
        return {"$ref": f"{_DEFINITIONS}#/$defs/{_PACKAGES[what.partition('.')[0]]}.{what}"}
    return _TYPES.get(what, {"type": what})


def _put(schema: _Schema, path: str, field: _Schema, required: bool) -> None:
    """Puts a field into the schema of a document, below those of its path."""
    *parents, name = re.sub(r"\[\]|\{\}", r".\g<0>", path).split(".")
    inner = {"[]": "items", "{}": "additionalProperties"}
    for parent in parents:
        schema = schema[inner[parent]] if parent in inner else schema["properties"][parent]
    if name in inner:
        schema[inner[name]] = field
        return
    schema.setdefault("properties", {})[name] = field
    if required:
        schema.setdefault("required", []).append(name)
