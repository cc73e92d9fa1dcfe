"""A run's folder becomes its config and its package.

Knows nothing about Ray.
"""

import json
from typing import Any

from kdray.config import Config, ServeConfig, parse
from kdray.errors import ConfigError
from kdray.serving.roster import DEFAULT
from kdray.storage import Store, artefact

KIND = "runs"


def find_run(run: str) -> tuple[Store, str]:
    """Storage and name of a run, a folder or URI with run.json. Raises ConfigError where there is no such run."""
    found = artefact(run.removesuffix("/run.json"), KIND)
    if found is None or not found[0].exists(KIND, found[1], "run.json"):
        raise ConfigError(f"{run} is not a run: it has no run.json. `kdray run CONFIG` prints the run's folder")
    return found


def run_facts(store: Store, name: str) -> dict[str, Any]:
    """What run.json says."""
    return json.loads(store.read(KIND, name, "run.json"))


def read_run(run: str) -> tuple[Config, str]:
    """The config of a run and the URI of its winner's package. Raises ConfigError where there is no such run."""
    store, name = find_run(run)
    facts = run_facts(store, name)
    return parse(json.loads(facts["config"]), f"{run}/run.json"), store.uri_of("packages", facts["package"])


def packages(package: str, settings: ServeConfig) -> dict[str, str]:
    """URIs of the packages of a service, by name: `package`, and those of the other runs that `settings` name."""
    return {DEFAULT: package, **{name: read_run(run)[1] for name, run in settings.students.items()}}
