"""Overlays rendered once, and KubeRay's schemas where they are at hand."""

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
SCHEMAS = ROOT.parent / "shared" / "kuberay-1.7.0"


@pytest.fixture(scope="session")
def schemas() -> Path:
    if not SCHEMAS.is_dir():
        pytest.skip("needs KubeRay's schemas in ../shared, which a clone alone does not have")
    return SCHEMAS


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    """An overlay as it stands, with a run where it serves one. Copy before changing it."""
    return render(overlay, Values(run=RUN if overlay in SERVES else None), K8S)


def of_kind(documents: list[dict[str, Any]], *kinds: str) -> dict[str, Any]:
    """The first document of one of the kinds."""
    return next(document for document in documents if document["kind"] in kinds)
