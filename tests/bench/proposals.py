"""What proposing and judging the trials of a sweep costs the driver, without training any.

    python tests/bench/proposals.py [--trials 1000] [--epochs 4]

Every trial tells made-up metrics; prints processor seconds for all, and milliseconds of the last proposal.
"""

import argparse
import random
import time

import optuna

from kdray.config import SearchConfig, TrainingConfig
from kdray.search.points import make_plans

SPACE = {"temperature": {"min": 1, "max": 8, "log": True}, "alpha": {"min": 0, "max": 0.9},
         "lr": {"min": 5e-5, "max": 3e-4, "log": True}}


def main() -> None:
    """One plan, trial after trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    training = TrainingConfig(epochs=options.epochs)
    plan = make_plans(SearchConfig(trials=options.trials, space=SPACE), training)["distilled"]
    chance, took = random.Random(0), 0.0
    began = time.process_time()
    while len(plan.told) < len(plan):
        started = time.process_time()
        number, _ = plan.propose()
        took = time.process_time() - started
        on = all(plan.goes_on(number, epoch, chance.random()) for epoch in range(1, options.epochs + 1))
        plan.end(number, "finished" if on else "stopped")
    print(f"{options.trials} trials: {time.process_time() - began:.1f} s of processor time, "
          f"the last proposal {1000 * took:.0f} ms")


if __name__ == "__main__":
    main()
