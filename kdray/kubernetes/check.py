"""Documents become what is wrong with them: by schema, by the operator's rules, by Kueue's, by Serve's, by ours.

Knows nothing about where the documents come from.
"""

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

from kdray.errors import ConfigError
from kdray.kubernetes import fit, operator, policy, queue, schema
from kdray.kubernetes.operator.gates import GATES, gates
from kdray.kubernetes.problem import Manifest, Problem, RayManifest
from kdray.kubernetes.serve_config import serve_config


def check(documents: list[dict[str, Any]], on: Collection[str] = ()) -> list[Problem]:
    """Everything that is wrong with the documents of one render, for an operator with these feature gates `on`."""
    if strange := set(on) - set(GATES):
        raise ConfigError(f"--gate {', '.join(sorted(strange))}: no such gate is off by default; there are "
                          f"{', '.join(sorted(GATES))}")
    manifests = [RayManifest(body) if RayManifest.is_one(body) else Manifest(body) for body in documents]
    found = [problem for manifest in manifests for rule in _rules(manifest, on)
             for problem in _tried(rule, manifest, str(manifest))]
    return [*found, *(problem for rule in (*fit.RULES, *queue.RULES)
                      for problem in _tried(rule, manifests, "all documents"))]


def refuse(documents: list[dict[str, Any]], on: Collection[str] = ()) -> None:
    """Raises ConfigError that says everything that is wrong with the documents."""
    if problems := check(documents, on):
        raise ConfigError("\n".join([f"mistakes in the manifests: {len(problems)}", *map(str, problems)]))


def _rules(manifest: Manifest, on: Collection[str]) -> list[Any]:
    if not isinstance(manifest, RayManifest):
        return [schema.fields, *policy.RULES]
    return [schema.fields, *operator.rules_of(manifest), partial(gates, on=on), *policy.RULES, *policy.RAY_RULES,
            *(policy.JOB_RULES if manifest.job else ()), *([serve_config] if manifest.kind == "RayService" else ())]


def _tried(rule: Any, on: Any, name: str) -> Iterator[Problem]:
    """What a rule finds; a field of a type that no rule expects is what the schema tells."""
    try:
        yield from rule(on)
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        yield Problem(name, "spec", type(error).__name__, f"some field has a type that nothing takes ({error}): see "
                      "what the schema says of it")
