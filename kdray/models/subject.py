"""A config becomes the models that its run needs: the teacher and each student, as what they are made from.

Knows nothing about what they can do.
"""

from dataclasses import dataclass
from pathlib import Path

from kdray.config import Config, changed
from kdray.models.folder import label_order
from kdray.models.load import Origin, student_origin
from kdray.models.pooling import Pooling
from kdray.models.precision import resolve_precision
from kdray.tasks import TASKS

TEACHER = "teacher.model"
_LABELS = ["one", "two"]
"""Of a head that is new: as many as it will have matters to nothing else."""


@dataclass(frozen=True)
class Subject:
    """A model that a run needs."""

    name: str
    """What it is called in messages."""
    origin: Origin
    trained: str | None
    """Precision that it is trained in; None where it is taken as it is, and has to have all its weights."""
    labels: list[str]
    answers: str = "float32"
    """Precision that it answers in."""

    def __str__(self) -> str:
        made = {"layers": self.origin.layers, "fresh": self.origin.fresh}
        how = [f"{name} {value}" for name, value in made.items() if value is not None]
        return f"{self.name} ({', '.join([str(self.origin.folder), *how])})"


def teacher_subject(config: Config, folder: Path) -> Subject:
    """The teacher in `folder`, as it is before it is fine-tuned, where it is."""
    teacher, tuning = config.teacher, config.teacher.finetune
    answers = resolve_precision(teacher.precision, config.training.num_gpus if teacher.live else teacher.num_gpus)
    trained = None if tuning is None else resolve_precision(tuning.precision, tuning.num_gpus)
    known = list(TASKS[config.task].names) or (label_order(folder, TASKS[config.task]) if tuning is None else None)
    return Subject(TEACHER, Origin(str(folder)), trained, known or _LABELS, answers)


def student_subject(config: Config, name: str, folder: Path, pooling: Pooling | None = None) -> Subject:
    """The student `name`, made from the model in `folder`, whose teacher has that `pooling`, where it pools.

    Raises ModelError where the folder's model has too few layers.
    """
    student = config.family[name]
    settings = changed(config.training, student.training)
    return Subject(f"students.{name}" if config.students else "student", student_origin(student, folder, pooling),
                   resolve_precision(settings.precision, settings.num_gpus), list(TASKS[config.task].names) or _LABELS)
