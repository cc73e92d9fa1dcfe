"""The sweep of a config, as a Ray job.

    ray job submit --working-dir . -- python jobs/tune.py jobs/configs/quickstart.yaml [KEY=VALUE ...]
"""

import sys

from kdray.stages import job

if __name__ == "__main__":
    sys.exit(job("tune", sys.argv[1:]))
