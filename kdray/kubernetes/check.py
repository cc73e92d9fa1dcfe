"""Documents become what is wrong with them: by schema, by the operator's rules, by Serve's, by ours.

Knows nothing about where the documents come from.
"""

from collections.abc import Iterator
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
    found = [problem for manifest in manifests for problem in _of_one(manifest, schemas)]
    return [*found, *(problem for rule in fit.RULES for problem in rule(manifests))]


def refuse(documents: list[dict[str, Any]], schemas: Path | None = None) -> None:
    """Raises ConfigError that says everything that is wrong with the documents."""
    if problems := check(documents, schemas):
        raise ConfigError("\n".join([f"{len(problems)} mistakes in the manifests", *map(str, problems)]))


def _of_one(manifest: Manifest, schemas: Path | None) -> Iterator[Problem]:
    if not isinstance(manifest, RayManifest):
        yield from own_kinds(manifest)
        for rule in policy.RULES:
            yield from rule(manifest)
        return
    if schemas is not None:
        yield from ray_kinds(manifest, schemas)
    for ray_rule in (*operator.RULES, *policy.RULES, *policy.RAY_RULES, serve_config):
        yield from ray_rule(manifest)
