"""Whether a search finds, and a comparison says, what is so: simulated sweeps whose truth is known.

    python tests/bench/search_honesty.py [--sweeps 1000] [--pairs 200]

Everything but training is kdray's own: proposals, halving, selection, pairs of seeds, intervals. Prints a table:

    gain        reported by sweeps of 8 trials and 3 seeds where nothing is to gain: its bias, and how often the 95 %
                interval holds 0; students that are right on the same rows, and on others. Beside it the gain that the
                sweep's best has over a single baseline, which is not reported
    tpe         against random: how often the best trial of 16 is better; noise is that of a trial, where the deviation
                of settings drawn at random is 0.16
    halving     sweeps of 16 trials over schedules of 1 to 8 epochs and rates, where longer is better: how often the
                longest is chosen
"""

import argparse
from collections.abc import Iterator
from functools import partial
from itertools import chain
from multiprocessing import Pool
from typing import Any

import numpy as np
import optuna

from kdray.config import Domain, SearchConfig, TrainingConfig
from kdray.search.selection import best
from tests.simulated import Hill, Level, Schedules, pairs, sweep

TWO = {"temperature": Domain(min=1, max=8, log=True), "alpha": Domain(min=0, max=0.9)}
THREE = {**TWO, "alpha_end": Domain(min=0, max=1)}
EPOCHS = TrainingConfig(epochs=3)
SEEDS = 3


def main() -> None:
    """All of it, on two processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=200)
    options = parser.parse_args()
    with Pool(2, quiet) as pool:
        for line in chain(gains(pool, options.sweeps), tpe(pool, options.pairs), halving(pool)):
            print(line, flush=True)


def quiet() -> None:
    """A process that does not log every search."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def gains(pool: Any, sweeps: int) -> Iterator[str]:
    """Where nothing is to gain."""
    for apart, rows in ((0.0, "the same"), (1.0, "other")):
        found = np.array(pool.map(partial(gain, apart), range(sweeps), chunksize=10))
        bias, error, lucky = 100 * found[:, 0].mean(), 100 * found[:, 0].std() / sweeps**0.5, 100 * found[:, 3].mean()
        held = ((found[:, 1] <= 0) & (found[:, 2] >= 0)).mean()
        yield (f"gain     right on {rows} rows, {sweeps} sweeps: bias {bias:+.3f} points (standard error {error:.3f}), "
               f"the interval holds 0 in {held:.1%}, is {100 * (found[:, 2] - found[:, 1]).mean():.1f} wide; "
               f"the sweep's best over a single baseline {lucky:+.2f}")


def gain(apart: float, seed: int) -> tuple[float, float, float, float]:
    """Of one sweep: the reported gain, both ends of its interval, and that of the sweep's best over a baseline."""
    world = Level(seed, apart=apart)
    rows = sweep(SearchConfig(trials=8, seed=seed), EPOCHS, world)
    found = pairs(rows, EPOCHS, SEEDS, world)
    told = world.compared(found)["difference"]
    lucky = world.accuracy(best(rows, "distilled")["student"]) - world.accuracy(found[0]["baseline"])
    return told["mean"], told["low"], told["high"], lucky


def tpe(pool: Any, count: int) -> Iterator[str]:
    """TPE against random on hills."""
    for trials, space, noise in ((16, TWO, 0.0), (16, THREE, 0.0), (16, TWO, 0.05), (8, TWO, 0.0)):
        found = np.array(pool.map(partial(finds, trials, space, noise), range(count), chunksize=5))
        yield (f"tpe      {trials} trials, {len(space)} settings, noise {noise:g}, {count} pairs: better than random "
               f"in {(found[:, 0] > found[:, 1]).mean():.1%}, equal in {(found[:, 0] == found[:, 1]).mean():.1%}")


def finds(trials: int, space: dict[str, Domain], noise: float, seed: int) -> list[float]:
    """True quality of what tpe and random, with seeds of their own, take for the best."""
    found = []
    for number, algorithm in enumerate(("tpe", "random")):
        world = Hill(seed, space, noise)
        search = SearchConfig(trials=trials, algorithm=algorithm, seed=2 * seed + number, space=space)
        found.append(world.quality(best(sweep(search, EPOCHS, world), "distilled")["point"]))
    return found


def halving(pool: Any, sweeps: int = 40) -> Iterator[str]:
    """Which schedule is chosen."""
    for algorithm in ("grid", "tpe"):
        found = np.array(pool.map(partial(longest, algorithm), range(sweeps)))
        yield (f"halving  {algorithm}: the longest schedule chosen in {found[:, 0].sum():.0f} of {sweeps} sweeps; "
               f"{found[:, 1].sum():.0f} trials stopped, {found[:, 2].sum():.0f} of them better than the chosen one")


def longest(algorithm: str, seed: int) -> tuple[bool, int, int]:
    """Whether one sweep takes the longest schedule, how many trials it stops, and how many of these it should not."""
    world = Schedules(seed)
    space = {"lr": Domain(values=[1e-4, 2e-4, 5e-4, 1e-3]), "epochs": Domain(values=[1, 2, 4, 8])}
    rows = sweep(SearchConfig(trials=16, algorithm=algorithm, seed=seed, space=space), TrainingConfig(lr=1e-4), world)
    chosen = best(rows, "distilled")
    stopped = [row for row in rows if row["state"] == "stopped" and not row["baseline"]]
    return (chosen["point"]["epochs"] == 8, len(stopped),
            sum(world.end(row["point"]) > world.end(chosen["point"]) for row in stopped))


if __name__ == "__main__":
    main()
