"""Gold and predicted labels of a few rows become a verdict on the teacher's label map.

Knows nothing about models: it sees label ids only.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from kdray.errors import ModelError

_ENOUGH = 100
_MARGIN = 0.1


def check_label_map(gold: list[int], predicted: list[int], labels: tuple[str, ...]) -> None:
    """Raises ModelError where the teacher is near chance, or another label order would make it much better.

    Needs 100 labels to judge; with fewer it says nothing.
    """
    if len(gold) < _ENOUGH:
        return
    confusion = np.zeros((len(labels), len(labels)))
    np.add.at(confusion, (gold, predicted), 1)
    accuracy = np.trace(confusion) / confusion.sum()
    rows, columns = linear_sum_assignment(-confusion)
    best = confusion[rows, columns].sum() / confusion.sum()
    if best - accuracy > _MARGIN:
        moved = ", ".join(f"{labels[gold_id]} is what it calls {labels[its_id]}"
                          for gold_id, its_id in zip(rows, columns, strict=True) if gold_id != its_id)
        raise ModelError(f"the teacher's label map disagrees with the data: accuracy on the first {len(gold)} labels "
                         f"is {accuracy:.3f}, with its labels permuted {best:.3f} ({moved}). Mend id2label in the "
                         "teacher's config.json")
    chance = 1 / len(labels)
    if accuracy < chance + _MARGIN / len(labels):
        raise ModelError(f"the teacher is no better than chance: accuracy on the first {len(gold)} labels is "
                         f"{accuracy:.3f}, chance is {chance:.3f}. Check that data and teacher belong together, or "
                         "fine-tune it (teacher.finetune)")
