"""Gold and predicted labels of a few rows become a verdict on the teacher's label map.

Knows nothing about models: it sees label ids only.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

from kdray.errors import ModelError
from kdray.outputs.doubts import ENOUGH, unfit

_OFTEN, _OTHERS = 10, 30
_MARGIN = 0.1
_KAPPA = 0.05


def check_label_map(gold: list[int], predicted: list[int], labels: tuple[str, ...]) -> None:
    """Raises ModelError where the teacher is near chance, or another label order would make it much better.

    Needs 100 labels to judge; with fewer it says nothing. Chance is what answers without regard to the rows would get,
    so that the largest class said of every row is chance (Cohen 1960, kappa). Orders are compared by the mean recall of
    the labels seen 10 times or more, so that neither a label that fills most of the data nor rare ones decide.
    """
    if len(gold) < ENOUGH:
        return
    confusion = np.zeros((len(labels), len(labels)))
    np.add.at(confusion, (gold, predicted), 1)
    _check_order(confusion, labels)
    accuracy, chance = np.trace(confusion) / len(gold), _chance(confusion)
    if accuracy < chance + _KAPPA * (1 - chance):
        raise unfit(f"the teacher is no better than chance: accuracy on the first {len(gold)} labels is "
                    f"{accuracy:.3f}, chance is {chance:.3f}")


def _chance(confusion: np.ndarray) -> float:
    """Agreement by chance; where nearly all rows have one label, as in sorted data, that of answers at random."""
    truth, guess = confusion.sum(1), confusion.sum(0)
    if truth.sum() - truth.max() < _OTHERS:
        return 1 / len(truth)
    return float(truth @ guess) / truth.sum() ** 2


def _check_order(confusion: np.ndarray, labels: tuple[str, ...]) -> None:
    seen = confusion.sum(1)
    often = np.flatnonzero(seen >= _OFTEN)
    recall = confusion[np.ix_(often, often)] / seen[often, None]
    rows, columns = linear_sum_assignment(-recall)
    now, best = (recall.diagonal().mean(), recall[rows, columns].mean()) if len(often) > 1 else (1.0, 1.0)
    if best - now > _MARGIN:
        moved = ", ".join(f"{labels[often[gold]]} is what it calls {labels[often[its]]}"
                          for gold, its in zip(rows, columns, strict=True) if gold != its)
        raise ModelError(f"the teacher's label map disagrees with the data: mean recall on the first {seen.sum():.0f} "
                         f"labels is {now:.3f}, with its labels permuted {best:.3f} ({moved}). Mend id2label in the "
                         "teacher's config.json")
