"""Documents become what is wrong with them: by schema, by the operator's rules, by Serve's, by ours.

Knows nothing about where the documents come from.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from kdray.errors import ConfigError
from kdray.kubernetes import fit, operator, policy
from kdray.kubernetes.problem import Manifest, Problem, RayManifest
from kdray.kubernetes.schema import own_kinds, ray_kinds
from kdray.kubernetes.serve_config import serve_config


def check(documents: list[dict[str, Any]], schemas: Path | None = None) -> list[Problem]:
    """Everything that is wrong with the documents of one render.

    `schemas` has KubeRay's OpenAPI schemas, one JSON file a kind; without it, unknown fields of Ray's kinds pass.
    """
    manifests = [RayManifest(body) if RayManifest.is_one(body) else Manifest(body) for body in documents]
    found = [problem for manifest in manifests for rule in _rules(manifest, schemas)
             for problem in _tried(rule, manifest, str(manifest))]
    return [*found, *(problem for rule in fit.RULES for problem in _tried(rule, manifests, "all documents"))]


def refuse(documents: list[dict[str, Any]], schemas: Path | None = None) -> None:
    """Raises ConfigError that says everything that is wrong with the documents."""
    if problems := check(documents, schemas):
        raise ConfigError("\n".join([f"mistakes in the manifests: {len(problems)}", *map(str, problems)]))


def _rules(manifest: Manifest, schemas: Path | None) -> list[Any]:
    if not isinstance(manifest, RayManifest):
        return [own_kinds, *policy.RULES]
    first = [partial(ray_kinds, folder=schemas)] if schemas else []
    return [*first, *operator.RULES, *policy.RULES, *policy.RAY_RULES, serve_config]


def _tried(rule: Any, on: Any, name: str) -> Iterator[Problem]:
    """What a rule finds; a field of a type that no rule expects is a problem too."""
    try:
        yield from rule(on)
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        yield Problem(name, "spec", type(error).__name__, f"some field has a type that nothing takes ({error}): check "
                      "the document against its schema")
