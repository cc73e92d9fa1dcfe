"""A run's folder becomes its config and its package.

Knows nothing about Ray.
"""

import json

from kdray.config import Config, parse
from kdray.errors import ConfigError
from kdray.storage import artefact

KIND = "runs"


def read_run(run: str) -> tuple[Config, str]:
    """The config of a run, a folder or URI with run.json, and the URI of its winner's package.

    Raises ConfigError where there is no such run.
    """
    found = artefact(run.removesuffix("/run.json"), KIND)
    if found is None or not found[0].exists(KIND, found[1], "run.json"):
        raise ConfigError(f"{run} is not a run: it has no run.json. `kdray run CONFIG` prints the run's folder")
    store, name = found
    facts = json.loads(store.read(KIND, name, "run.json"))
    return parse(json.loads(facts["config"]), f"{run}/run.json"), store.uri_of("packages", facts["package"])
