"""Test numbers, package and report of a config's winner, as a Ray job.

    ray job submit --working-dir . -- python jobs/evaluate.py jobs/configs/quickstart.yaml [KEY=VALUE ...]
"""

import sys

from kdray.stages import job

if __name__ == "__main__":
    sys.exit(job("evaluate", sys.argv[1:]))
