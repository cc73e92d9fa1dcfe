"""The verbs of `kdray k8s`: what to print for an overlay, and what is wrong with files."""

import sys
from collections.abc import Collection
from pathlib import Path

import yaml

from kdray.errors import ConfigError
from kdray.kubernetes.check import refuse
from kdray.kubernetes.render import Values, as_yaml, render


def manifests(overlay: str, values: Values, root: Path | str = "k8s", gates: Collection[str] = ()) -> str:
    """An overlay with values, as YAML for `kubectl apply -f -`. Raises ConfigError where something is wrong.

    `gates` are feature gates of the operator that are on there, and off by default.
    """
    documents = render(overlay, values, root)
    refuse(documents, gates)
    return as_yaml(documents)


def check_files(paths: list[str], gates: Collection[str] = ()) -> int:
    """How many documents the files have; `-` is standard input. Raises ConfigError where something is wrong."""
    documents = [document for path in paths for document in _read(path)]
    refuse(documents, gates)
    return len(documents)


def _read(path: str) -> list[dict]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
        documents = [document for document in yaml.safe_load_all(text) if document]
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if strange := next((document for document in documents if not isinstance(document, dict)), None):
        raise ConfigError(f"{path} has a document that is no manifest but {str(strange)[:50]!r}")
    return documents
