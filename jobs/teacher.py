"""The teacher of a config, fine-tuned where it asks for that, as a Ray job.

    ray job submit --working-dir . -- python jobs/teacher.py jobs/configs/quickstart.yaml [KEY=VALUE ...]
"""

import sys

from kdray.stages import job

if __name__ == "__main__":
    sys.exit(job("teacher", sys.argv[1:]))
