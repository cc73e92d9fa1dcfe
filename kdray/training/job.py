"""What one training run is made from, as plain data, and the content key of the model it gives."""

from dataclasses import asdict, dataclass
from typing import Any

from kdray.config import OF_DISTILLATION
from kdray.models.load import Origin
from kdray.storage import content_key
from kdray.tasks import TASKS

RESOURCES = ("workers", "num_cpus", "num_gpus", "labels", "max_failures", "checkpoint_steps")


@dataclass(frozen=True)
class Live:
    """A teacher that runs inside the training step."""

    place: str
    """Where every machine finds it."""
    fingerprint: str
    corpus: str
    """Key of the corpus, tokenised for the teacher."""
    pad_token_id: int
    precision: str


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
    """Key of the soft-target cache; None where the teacher is live, or there are hard labels only."""
    origin: Origin
    origin_fingerprint: str
    """Fingerprint of the model that the first weights, or the config, come from."""
    tokenizer: str
    """Place of the model's tokenizer."""
    pad_token_id: int
    metric: str
    settings: dict[str, Any]
    """Fields of TrainingConfig."""
    precision: str
    threads: int = 1
    live: Live | None = None
    labelled: str | None = None
    """Key of the same corpus without the rows that have no labels, where it has such rows."""

    @property
    def distils(self) -> bool:
        """Whether there is a teacher, and alpha leaves it a say: alpha 1 is plain, whatever its schedule."""
        return (self.cache is not None or self.live is not None) and self.settings["alpha"] < 1

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn from: a teacher, or labels."""
        return self.distils or TASKS[self.task].labelled

    @property
    def key(self) -> str:
        """Content key of the trained model: what it was made from, without what it ran on."""
        origin = asdict(self.origin)
        origin["folder"] = self.origin_fingerprint
        del origin["pooling"]  # follows from the fingerprints of the folder and of the teacher
        plain = self.settings["alpha"] == 1
        left_out = (*RESOURCES, *OF_DISTILLATION) if plain else RESOURCES
        settings = {name: value for name, value in self.settings.items() if name not in left_out}
        for name in OF_DISTILLATION:
            if settings.get(name, ...) is None:
                settings.pop(name)  # a setting that came later leaves the keys of those without it alone
        unasked = plain and TASKS[self.task].labelled  # else its metrics are against the teacher's answers
        return content_key({"kind": self.kind, "task": self.task, "labels": self.labels,
                            "corpus": self.labelled if plain and self.labelled else self.corpus,
                            "cache": None if unasked else self._soft_targets, "origin": origin, "metric": self.metric,
                            "settings": settings, "precision": self.precision})

    @property
    def _soft_targets(self) -> str | dict[str, str] | None:
        if self.live is None:
            return self.cache
        return {"teacher": self.live.fingerprint, "corpus": self.live.corpus, "precision": self.live.precision}
