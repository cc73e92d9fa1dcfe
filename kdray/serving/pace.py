"""Costs and times of batches become how much of what a model can do is done: its utilisation.

How long a model is busy does not tell: it is as soon as one item comes after the other, however small its batches,
and larger ones take less for each item. So a line is drawn through costs and times, and read where a batch is full.
Knows nothing about what is asked.
"""

import numpy as np

_KEPT = 0.99
"""Weight of each batch in proportion to the next."""


class Pace:
    """How long a model takes for a batch, learned while it answers: as least squares have it, recent batches first."""

    def __init__(self, most: int):
        """`most`: cost of a full batch."""
        self._most = most
        self._sums = np.zeros(5)
        self._done = 0.0

    def add(self, cost: int, seconds: float) -> None:
        """Learns from a batch."""
        self._sums = _KEPT * self._sums + np.array([1.0, cost, seconds, cost * cost, cost * seconds])
        self._done += cost * self._full() / self._most

    def done(self) -> float:
        """Seconds that what was answered since the last call would have taken in full batches."""
        done, self._done = self._done, 0.0
        return done

    def _full(self) -> float:
        """Seconds of a full batch."""
        x, y, xx, xy = self._sums[1:] / self._sums[0]
        spread, most = xx - x * x, y / x
        slope = (xy - x * y) / spread if spread > 1e-6 * xx else most
        return max(y, y + min(max(slope, 0.0), most) * (self._most - x))
