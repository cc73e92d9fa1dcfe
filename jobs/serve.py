"""The winner of a run behind HTTP, as a Ray job: it ends when the endpoint is up, and the endpoint stays.

    ray job submit --working-dir . -- python jobs/serve.py RUN [KEY=VALUE ...]

RUN is the folder or URI that `jobs/pipeline.py` prints.
"""

import sys

from kdray.console import guarded
from kdray.errors import ConfigError
from kdray.stages import serve_run


def main(arguments: list[str]) -> None:
    """Deploys, and prints the URL."""
    if not arguments:
        raise ConfigError("usage: python jobs/serve.py RUN [KEY=VALUE ...]")
    print(serve_run(arguments[0], arguments[1:], blocking=False))


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
