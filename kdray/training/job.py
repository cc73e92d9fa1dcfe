"""What one training run is made from, as plain data, and the content key of the model it gives."""

from dataclasses import asdict, dataclass
from typing import Any

from kdray.models.load import Origin
from kdray.storage import content_key

RESOURCES = ("workers", "num_cpus", "num_gpus", "max_failures", "checkpoint_steps")


@dataclass(frozen=True)
class TrainingJob:
    """One model to train: a student, or a teacher to fine-tune."""

    kind: str
    """Kind of the artefact: `students` or `teachers`."""
    storage: str
    task: str
    labels: tuple[str, ...]
    corpus: str
    """Key of the corpus, tokenised for this model."""
    cache: str | None
    """Key of the soft-target cache; None where there are hard labels only."""
    origin: Origin
    origin_fingerprint: str
    """Fingerprint of the folder that the first weights, or the config, come from."""
    tokenizer: str
    """Folder of the model's tokenizer."""
    pad_token_id: int
    metric: str
    settings: dict[str, Any]
    """Fields of TrainingConfig."""
    precision: str
    threads: int = 1

    @property
    def key(self) -> str:
        """Content key of the trained model: what it was made from, without what it ran on."""
        origin = asdict(self.origin)
        origin["folder"] = self.origin_fingerprint
        settings = {name: value for name, value in self.settings.items() if name not in RESOURCES}
        plain = settings["alpha"] == 1
        if plain:
            for name in ("loss", "temperature", "huber_delta"):
                settings.pop(name)
        return content_key({"kind": self.kind, "task": self.task, "labels": self.labels, "corpus": self.corpus,
                            "cache": None if plain else self.cache, "origin": origin, "metric": self.metric,
                            "settings": settings, "precision": self.precision})
