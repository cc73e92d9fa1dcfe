"""One student of a config, as a Ray job.

    ray job submit --working-dir . -- python jobs/distill.py jobs/configs/quickstart.yaml [KEY=VALUE ...]
"""

import sys

from kdray.stages import job

if __name__ == "__main__":
    sys.exit(job("distill", sys.argv[1:]))
