"""Time to draw the report of a sweep of many trials, and its size: the numbers of a run, with made-up trials.

    python tests/bench/report_draw.py RUN [--trials 100]

RUN is the folder that `kdray run` printed. Fails where it takes more than 10 s or 5 MB.
"""

import argparse
import sys
import time

from kdray.report.facts import read_report
from kdray.report.page import draw
from kdray.serving.runs import find_run, run_facts
from tests.sweeps import made_up_sweep

_SECONDS, _MB = 10.0, 5.0


def main() -> None:
    """One drawing, in a process that has drawn nothing before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--keep", metavar="FILE", help="where to write the page")
    options = parser.parse_args()
    store, name = find_run(options.run)
    facts = read_report(store, run_facts(store, name)["report"])
    facts |= made_up_sweep(options.trials, facts["numbers"]["metric"])
    started = time.perf_counter()
    page = draw(facts).encode()
    seconds = time.perf_counter() - started
    print(f"{options.trials} trials: drawn in {seconds:.1f} s, {len(page) / 1e6:.2f} MB")
    if options.keep:
        with open(options.keep, "wb") as file:
            file.write(page)
    sys.exit(seconds > _SECONDS or len(page) > _MB * 1e6)


if __name__ == "__main__":
    main()
