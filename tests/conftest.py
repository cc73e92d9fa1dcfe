"""Settings of every test: no hub, and Ray without tokens. Packages that tests share."""

import logging
import os
import signal
import tempfile
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", RAY_AUTH_MODE="disabled", TOKENIZERS_PARALLELISM="false")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it for what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    # What is one a machine, such as the list of services, is one a worker. Short: Ray puts its sockets there.
    os.environ["TMPDIR"] = tempfile.tempdir = f"/tmp/kdray-{worker}"
    os.makedirs(tempfile.tempdir, exist_ok=True)


@pytest.fixture(autouse=True)
def log_as_at_the_start() -> None:
    """What a command that ran before in this process made of the log is no matter to a test."""
    logger = logging.getLogger("kdray")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that classifies texts. Copy it to change it."""
    import transformers

    from tests.packages import write_package

    return write_package(tmp_path_factory.mktemp("packages") / "films", "sequence-classification",
                         transformers.BertForSequenceClassification, ["bad", "good", "mixed"])


@pytest.fixture(scope="session")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that finds names. Copy it to change it."""
    import transformers

    from tests.packages import write_package

    return write_package(tmp_path_factory.mktemp("packages") / "names", "token-classification",
                         transformers.BertForTokenClassification, ["O", "B-PER", "I-PER"])
