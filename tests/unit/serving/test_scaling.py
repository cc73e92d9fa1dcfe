"""Replicas come and go with the load, through Ray Serve's own delays, and do not oscillate: a day is simulated."""

import math
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from ray.serve import autoscaling_policy
from ray.serve.config import AutoscalingConfig

from kdray.serving import scaling

TICK, START = 5.0, 20.0
"""Seconds between two looks at the load, and those that a replica takes to start."""
HOUR, DAY = 3600.0, 86_400.0
MOST = 8
NOISE = 0.1
"""Share by which a second's load strays, as does what a replica says of it."""


class Day:
    """Replicas and what was asked of them, in units of what one can do, by seconds."""

    def __init__(self, demand: Callable[[float], float], seconds: float, monkeypatch: pytest.MonkeyPatch,
                 replicas: int = 1, noise: float = NOISE):
        self.counts: list[int] = []
        self.asked: list[float] = []
        config = AutoscalingConfig(min_replicas=1, max_replicas=MOST, look_back_period_s=scaling.LOOK_BACK,
                                   upscale_delay_s=scaling.UP_DELAY, downscale_delay_s=scaling.DOWN_DELAY)
        decide = autoscaling_policy._apply_autoscaling_config(scaling.scale)
        random, state, ready = np.random.default_rng(0), {}, [-START] * replicas
        lately: deque[float] = deque(maxlen=int(scaling.LOOK_BACK / TICK))
        for now in np.arange(0, seconds, TICK):
            monkeypatch.setattr(autoscaling_policy.time, "time", lambda now=now: now)
            asked = max(0.0, demand(now) * random.normal(1, noise))
            running = sum(since + START <= now for since in ready)
            lately.append(min(1.0, asked / running))
            loads = {place: float(np.mean(lately)) * random.normal(1, noise / 3) for place in range(running)}
            wanted, state = decide(SimpleNamespace(
                aggregated_metrics={"load": loads}, target_num_replicas=len(ready), current_num_replicas=running,
                total_num_requests=0, config=config, policy_state=state))
            wanted = min(MOST, max(1, wanted))
            ready = (ready + [now] * wanted)[:wanted]
            self.counts.append(wanted)
            self.asked.append(asked / running)

    @property
    def changes(self) -> int:
        """How often the number of replicas was another."""
        return int(np.count_nonzero(np.diff(self.counts)))


@pytest.mark.parametrize("demand", np.arange(0.2, 5.0, 0.3))
def test_a_load_that_stays_gets_replicas_that_stay(demand, monkeypatch):
    day = Day(lambda now: demand, 2 * HOUR, monkeypatch)
    settled = day.counts[len(day.counts) // 4:]
    assert settled == sorted(settled) and settled[-1] - settled[0] <= 1  # chance may start one, and stops none
    assert demand / settled[0] < 0.85


@pytest.mark.parametrize("replicas", [2, 3, 4])
def test_at_four_fifths_of_what_they_can_do_none_goes(replicas, monkeypatch):
    assert min(Day(lambda now: 0.8 * replicas, HOUR, monkeypatch, replicas).counts) == replicas


def test_a_day_has_as_many_changes_as_its_load_has_levels_and_hardly_a_second_of_too_few(monkeypatch):
    day = Day(lambda now: 2.6 - 2.3 * math.cos(2 * math.pi * now / DAY), DAY, monkeypatch)
    assert max(day.counts) >= 6 and day.counts[0] == day.counts[-1] == 1
    assert day.changes <= 2 * (max(day.counts) - 1)
    assert np.mean(np.array(day.asked) > 1) < 0.001


def test_bursts_of_a_minute_start_replicas_once_and_stop_none_between(monkeypatch):
    day = Day(lambda now: 2.5 if now % 300 < 60 else 0.5, 2 * HOUR, monkeypatch)
    assert day.changes <= 2 * max(day.counts) and len(set(day.counts[len(day.counts) // 4:])) == 1


def test_a_crowd_that_comes_at_once_is_answered_within_minutes(monkeypatch):
    day = Day(lambda now: 0.3 if now < 600 else 5.0, HOUR, monkeypatch)
    late = [number * TICK for number, asked in enumerate(day.asked) if asked > 1 and number * TICK >= 600]
    assert max(late) < 600 + 180 and day.counts[-1] * 0.85 > 5.0


def test_without_a_word_of_the_load_nothing_changes():
    context = SimpleNamespace(aggregated_metrics={}, target_num_replicas=3)
    assert scaling.scale(context) == (3, {})
