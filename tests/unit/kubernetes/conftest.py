"""Overlays rendered once, with what they need to be whole."""

import copy
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kdray.kubernetes.render import Values, render

ROOT = Path(__file__).resolve().parents[3]
K8S = ROOT / "k8s"
OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))
SERVES = {"serve", "service", "incremental-upgrade", "gcs-fault-tolerance"}
RUN = "/storage/runs/quickstart-0"
KUSTOMIZE = shutil.which("kubectl") or shutil.which("kustomize")
needs_kustomize = pytest.mark.skipif(
    KUSTOMIZE is None, reason="neither kubectl nor kustomize is on PATH, and one of them renders the manifests")
GONE = object()


GATES = ["RayCronJob"]


def values(overlay: str, **more: Any) -> Values:
    """What an overlay does not stand without: a run, or a namespace."""
    return Values(**{"run": RUN if overlay in SERVES else None, "namespace": "team" if overlay == "nightly" else None,
                     **more})


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    """An overlay as it stands, with the values that it needs. Copy before changing it."""
    return render(overlay, values(overlay), K8S)


def of_kind(documents: list[dict[str, Any]], *kinds: str) -> dict[str, Any]:
    """The first document of one of the kinds."""
    return next(document for document in documents if document["kind"] in kinds)


def planted(overlay: str, kind: str, changes: dict[str, Any]) -> list[dict[str, Any]]:
    """The overlay with values at dotted paths of its first document of the kind changed, or GONE."""
    documents = copy.deepcopy(rendered(overlay))
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = of_kind(documents, kind)
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if value is GONE:
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = value
    return documents
