"""Rendering and checking all overlays, and every planted mistake.

    python tests/bench/manifests.py
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kdray.kubernetes.check import check
from kdray.kubernetes.render import render
from tests.unit.kubernetes.conftest import GATES, K8S, OVERLAYS, planted, values
from tests.unit.kubernetes.test_check import OURS
from tests.unit.kubernetes.test_operator import OPERATOR


def main() -> None:
    began = time.perf_counter()
    documents = [render(overlay, values(overlay), K8S) for overlay in OVERLAYS]
    sound = sum(check(one, GATES) == [] for one in documents)
    print(f"{len(OVERLAYS)} overlays, {sum(map(len, documents))} documents rendered and checked in "
          f"{time.perf_counter() - began:.1f} s, {sound} sound")
    mistakes = [*OPERATOR, *OURS]
    caught = sum(any(path in problem.path and says in problem.remedy
                     for problem in check(planted(overlay, kind, changes)))
                 for _, overlay, kind, changes, path, says in mistakes)
    print(f"{caught} of {len(mistakes)} planted mistakes caught, {len(OPERATOR)} of them against the operator's rules")


if __name__ == "__main__":
    main()
