from pathlib import Path

import pytest
import yaml

from kdray.errors import ConfigError
from kdray.kubernetes.render import Values, as_yaml
from kdray.kubernetes.verbs import check_files, manifests
from tests.unit.kubernetes.conftest import K8S, needs_kustomize, rendered


@needs_kustomize
def test_manifests_are_printed_only_if_they_are_sound() -> None:
    assert len(list(yaml.safe_load_all(manifests("cpu", Values(namespace="team"), K8S)))) == len(rendered("cpu"))
    with pytest.raises(ConfigError, match=r"mistakes in the manifests: 1\nRayJob/x{48}: metadata.name"):
        manifests("cpu", Values(name="x" * 48), K8S)
    with pytest.raises(ConfigError, match="storage = '/home/me': no pod has this path"):
        manifests("cpu", Values(storage="/home/me"), K8S)


@needs_kustomize
def test_files_are_checked_together(tmp_path: Path) -> None:
    documents = rendered("cpu")
    for place, part in enumerate((documents[:5], documents[5:])):
        (tmp_path / f"{place}.yaml").write_text(as_yaml(part))
    assert check_files([str(tmp_path / "0.yaml"), str(tmp_path / "1.yaml")]) == len(documents)
    with pytest.raises(ConfigError, match="has this name"):
        check_files([str(tmp_path / "1.yaml")])


@pytest.mark.parametrize(("text", "says"), [("a: [b", "is not YAML"), ("- a", "no manifest but")])
def test_a_file_that_is_no_manifest_says_so(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        check_files([str(tmp_path / "x.yaml")])
    with pytest.raises(ConfigError, match="cannot read"):
        check_files([str(tmp_path / "gone.yaml")])
