"""What is checked before a run works on a cluster: whatever would make its results wrong, or stop it halfway.

Knows nothing about the room that stages need: see `kdray.needs`.
"""

import logging

from kdray.config import Config
from kdray.doctor import findings
from kdray.doctor.nodes import ask_nodes
from kdray.errors import ClusterError
from kdray.models.folder import is_local, locate
from kdray.needs import needs

logger = logging.getLogger("kdray")


def preflight(config: Config) -> None:
    """Raises ClusterError where nodes of the cluster that Ray has joined cannot do this driver's work, or would do it
    otherwise: another version, storage or model, GPUs that torch does not see."""
    gpus = any(need.each["GPU"] for need in needs(config))
    here, nodes = ask_nodes(config.storage, shared_folders(config), gpus)
    wrong = [finding for finding in (
        *findings.same_versions(here, nodes), *findings.storage_everywhere(config.storage, here, nodes),
        *findings.folders_everywhere(here, nodes), *findings.gpus_seen(nodes)) if finding.level == "wrong"]
    if wrong:
        more = f" ({len(wrong) - 1} more: kdray doctor CONFIG lists all)" if len(wrong) > 1 else ""
        raise ClusterError(f"{wrong[0].check}: {wrong[0].text}. {wrong[0].remedy}{more}")
    for finding in findings.answers(nodes):
        logger.log(logging.INFO if finding.level == "ok" else logging.WARNING, "cluster: %s",
                   ". ".join(filter(None, (finding.text, finding.remedy))))


def shared_folders(config: Config) -> list[str]:
    """Folders of models that every node must have; none where models travel through remote storage."""
    return model_folders(config) if "://" not in config.storage else []


def model_folders(config: Config, hub: bool = True) -> list[str]:
    """Folders here of the models that a config names; without `hub`, nothing is downloaded. Raises ModelError."""
    names = [config.teacher.model, *(student.model for student in config.family.values())]
    return list(dict.fromkeys(str(locate(name)) for name in names
                              if name and (hub or name.startswith("package:") or is_local(name))))
