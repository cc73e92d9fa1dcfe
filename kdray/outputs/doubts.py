"""What was seen of a teacher's answers becomes what is wrong with them and what mends it, in the same words for all."""

from kdray.errors import ModelError

ENOUGH = 100
"""What is decided of fewer targets says nothing of a teacher."""


def constant(seen: str) -> str:
    """Soft targets that are all the same."""
    return (f"the soft targets are constant: over {seen}. There is nothing to distil; check teacher.model, or "
            "fine-tune it (teacher.finetune)")


def strange(seen: str) -> str:
    """Soft targets that do not go with the gold."""
    return (f"the soft targets {seen}. They may be those of other rows (kdray cache verify), or the teacher does not "
            "know this task; fine-tune it (teacher.finetune)")


def unfit(seen: str) -> ModelError:
    """A teacher that does not go with the data."""
    return ModelError(f"{seen}. Check that data and teacher belong together, or fine-tune it (teacher.finetune)")
