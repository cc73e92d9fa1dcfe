"""Predictions of winners and baselines become what tells a difference from chance.

Knows nothing about models: decisions for each row's units are enough.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import binomtest, t

from kdray.evaluation.quality import resampled
from kdray.tasks import Task

Ids = list[np.ndarray]
"""Decisions (units, ...) of each row."""
_SWAPS = 2000
_ROUNDING = 1e-12
"""Differences of a metric that are one and the same."""


def mcnemar(truth: list[Any], winner: Ids, baseline: Ids,
            right: Callable[[Any, np.ndarray], bool] = np.array_equal) -> dict[str, Any]:
    """McNemar's exact test: rows that only one has right, and the two-sided `p` of so uneven a split by chance.

    A row is right where all its units are, which `right` says. McNemar 1947, Psychometrika 12(2), with the binomial
    distribution in place of its approximation.
    """
    one, other = (np.array([right(wanted, found) for wanted, found in zip(truth, ids, strict=True)])
                  for ids in (winner, baseline))
    only, lost = int((one & ~other).sum()), int((other & ~one).sum())
    return {"both": int((one & other).sum()), "winner": only, "baseline": lost, "neither": int((~one & ~other).sum()),
            "p": float(binomtest(only, only + lost).pvalue) if only + lost else 1.0}


def lost_by_chance(task: Task, metric: str, gold: list[Any], one: Ids, other: Ids, labels: list[str]) -> float:
    """How often chance makes `one` that much better than `other`: p of the paired permutation test, one-sided.

    Where neither is better, any row on which they differ may as well have had their answers the other way round: 2,000
    times, each of those rows is given to either at random. Noreen 1989, Computer-intensive methods for testing
    hypotheses; for F1, Yeh 2000, COLING. Of accuracy it is McNemar's exact test.
    """
    differ = np.flatnonzero([not np.array_equal(a, b) for a, b in zip(one, other, strict=True)])
    both = task.tally(gold, one, labels).beside(task.tally(gold, other, labels))

    def rate(kept: np.ndarray) -> float:
        weights = np.concatenate([np.ones(len(gold)), np.zeros(len(gold))])
        weights[differ], weights[len(gold) + differ] = kept, 1 - kept
        return both.rates(weights)[metric]

    def lead(kept: np.ndarray) -> float:
        return rate(kept) - rate(1 - kept)

    seen, random = lead(np.ones(len(differ))), np.random.default_rng(0)
    found = sum(lead(random.integers(0, 2, len(differ))) >= seen - _ROUNDING for _ in range(_SWAPS))
    return (1 + found) / (1 + _SWAPS)


def paired(task: Task, metric: str, gold: list[Any], pairs: list[tuple[int, Ids, Ids]],
           labels: list[str]) -> dict[str, Any]:
    """Test metric of pairs (seed, winner, baseline): each, and mean and deviation of both and of their difference.

    The mean difference has the `interval` over seeds and rows. It and deviations (n - 1) are None where there is one
    pair.
    """
    values, samples = resampled(task, gold, [ids for _, *both in pairs for ids in both], labels)
    winner, baseline = _halves(values, metric)
    drawn = np.array([np.subtract(*_halves(sample, metric)) for sample in samples])
    rows = [{"seed": seed, "winner": float(a), "baseline": float(b)}
            for (seed, *_), a, b in zip(pairs, winner, baseline, strict=True)]
    return {"pairs": rows, "winner": _spread(winner), "baseline": _spread(baseline),
            "difference": {**_spread(winner - baseline), **interval(winner, baseline, drawn)}}


def interval(winner: np.ndarray, baseline: np.ndarray, drawn: np.ndarray) -> dict[str, float | None]:
    """95 % interval {low, high} of the mean difference of the metrics of `winner` and `baseline`, (seeds,) both.

    `drawn`, (resamples, seeds), are the differences on resamples of the test rows. Student's t over the seeds of either
    side; to their variance comes that of the rows which all seeds share: the mean covariance of two seeds' differences.
    Degrees of freedom are midway between Welch's (1947, Biometrika 34), with which few seeds hold the truth too often,
    and those of sides that vary alike, with which it is too seldom where they do not. Resampled rows alone would take
    the seeds as they are, and hold it far too seldom. None with one seed, which does not say how much seeds vary.
    """
    seeds = len(winner)
    if seeds == 1:
        return {"low": None, "high": None}
    own = np.array([winner.var(ddof=1), baseline.var(ddof=1)]) / seeds
    together = np.cov(drawn.T)
    variance = own.sum() + max(0.0, (together.sum() - np.trace(together)) / (seeds * (seeds - 1)))
    freedom = (seeds - 1) * variance**2 * (0.5 / (own @ own) + 1 / own.sum()**2) if own.any() else np.inf
    mean, half = (winner - baseline).mean(), t.ppf(0.975, freedom) * np.sqrt(variance)
    return {"low": float(mean - half), "high": float(mean + half)}


def told(seeds: dict[str, Any], metric: str) -> str:
    """What distillation has gained, in the words of every place that says it; `seeds` are those of an evaluation."""
    difference, pairs = seeds["difference"], len(seeds["pairs"])
    low, high = difference["low"], difference["high"]
    lost = f" ({seeds['asked'] - pairs} more failed)" if pairs < seeds["asked"] else ""
    gain = (f"Gain of distillation on {pairs} seed{'s' * (pairs > 1)} that the sweep has not seen{lost}: "
            f"{100 * difference['mean']:+.2f} points of test {metric}")
    if low is None:
        return f"{gain}. One seed does not say how far chance goes; 3 or more do (search.seeds)"
    chance = ", which may be chance" if low <= 0 <= high else ""
    return f"{gain} [{100 * low:.2f}, {100 * high:.2f}]{chance}"


def _halves(scores: list[dict[str, float]], metric: str) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([score[metric] for score in scores])
    return values[::2], values[1::2]


def _spread(values: np.ndarray) -> dict[str, float | None]:
    return {"mean": float(values.mean()), "deviation": float(values.std(ddof=1)) if len(values) > 1 else None}
