"""What a worker tells the board is shown by the driver."""

import logging

from kdray.training.board import Count, Shown


def test_a_driver_says_once_that_its_worker_is_starved(caplog):
    shown = Shown("student")
    with caplog.at_level(logging.WARNING, "kdray"):
        shown.update([Count("epoch 1/2", 100, 10, 0, facts={"loss": 0.5})])
        for done in (20, 30):
            shown.update([Count("epoch 1/2", 100, done, 0, facts={"loss": 0.5, "waited": 0.471})])
    (said,) = caplog.messages
    assert said.startswith("the training of the student waits for 47% of its time") and "num_cpus" in said
