"""Every slot is done exactly once, whatever dies, or the run stops and names its rows."""

import random

import pytest

from kdray.cache.plan import Slot
from kdray.errors import CacheError
from kdray.teacher.leases import Deadlines, Leases


def slots(count: int) -> list[Slot]:
    return [Slot("train", 10 * i, 10 * i + 10, f"key{i}") for i in range(count)]


def test_slots_are_leased_in_order_and_finished_when_all_are_done():
    leases = Leases(slots(2), 3)
    assert [leases.next("a").key, leases.next("b").key, leases.next("c")] == ["key0", "key1", None]
    assert leases.waiting == 0 and not leases.finished
    assert leases.done("b").key == "key1" and not leases.finished
    assert leases.done("a").key == "key0" and leases.finished


def test_a_failed_slot_is_leased_again_before_the_others():
    leases = Leases(slots(3), 3)
    leases.next("a")
    leases.failed("a", "died")
    assert leases.waiting == 3
    assert leases.next("b").key == "key0"


def test_an_actor_holds_one_lease_at_a_time():
    leases = Leases(slots(2), 3)
    leases.next("a")
    with pytest.raises(AssertionError, match="holds a lease already"):
        leases.next("a")


def test_the_death_of_an_idle_actor_changes_nothing():
    leases = Leases(slots(1), 1)
    leases.failed("idle", "died")
    assert leases.next("a").key == "key0"


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_a_slot_that_keeps_failing_stops_the_run_with_its_rows(attempts):
    leases = Leases(slots(2), attempts)
    for attempt in range(attempts - 1):
        leases.next(f"actor{attempt}")
        leases.failed(f"actor{attempt}", "boom")
    leases.next("last")
    with pytest.raises(CacheError, match=f"rows 0 to 9 of the train split failed {attempts} times, last: boom"):
        leases.failed("last", "boom")


def test_failures_of_different_slots_do_not_add_up():
    leases = Leases(slots(2), 2)
    leases.next("a")
    leases.next("b")
    leases.failed("a", "boom")
    leases.failed("b", "boom")
    assert leases.waiting == 2


@pytest.mark.parametrize("seed", range(60))
def test_any_history_of_faults_does_every_slot_once_or_names_the_one_that_fails(seed):
    """Actors that finish, fail or die at random: what a pool may see, in any order."""
    chance = random.Random(seed)
    plan, attempts = slots(chance.randint(1, 15)), chance.randint(1, 4)
    leases, fault = Leases(plan, attempts), chance.choice([0.0, 0.1, 0.4])
    holding: dict[str, Slot] = {}
    done: list[str] = []
    failures: dict[str, int] = {}
    started = 0
    while not leases.finished:
        assert len(holding) + leases.waiting + len(done) == len(plan)
        if leases.waiting and (not holding or (len(holding) < 3 and chance.random() < 0.5)):
            started += 1
            slot = leases.next(f"actor{started}")
            assert slot.key not in done and slot not in holding.values()
            holding[f"actor{started}"] = slot
            continue
        actor = chance.choice(sorted(holding))
        slot = holding.pop(actor)
        if chance.random() >= fault:
            assert leases.done(actor) == slot
            done.append(slot.key)
            continue
        failures[slot.key] = failures.get(slot.key, 0) + 1
        if failures[slot.key] < attempts:
            leases.failed(actor, "fault")
            continue
        with pytest.raises(CacheError, match=f"{slot} failed {attempts} times"):
            leases.failed(actor, "fault")
        return
    assert sorted(done) == sorted(slot.key for slot in plan)


class Clock:
    """Seconds that go by when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def overdue(deadlines: Deadlines, clock: Clock, now: float) -> list[tuple[str, float, float]]:
    clock.now = now
    return list(deadlines.overdue())


def test_a_shard_may_take_twenty_times_as_long_as_the_slowest_and_minutes_at_least():
    clock = Clock()
    deadlines = Deadlines(clock)
    for seconds in (1.0, 30.0, 2.0):
        deadlines.began("a", 100)
        clock.now += seconds
        deadlines.done("a")
    deadlines.began("a", 100)
    assert overdue(deadlines, clock, 33 + 600) == []
    assert overdue(deadlines, clock, 33 + 601) == [("a", 601.0, 600.0)]
    deadlines.dropped("a")
    assert overdue(deadlines, clock, 9999) == []
    quick = Deadlines(clock)
    for _ in range(2):
        quick.began("a", 100)
        clock.now += 0.1
        quick.done("a")
    quick.began("b", 100)
    assert overdue(quick, clock, clock.now + 299) == [] and len(overdue(quick, clock, clock.now + 2)) == 1


def test_before_a_shard_is_done_its_rows_say_how_long_it_may_take():
    clock = Clock()
    deadlines = Deadlines(clock)
    deadlines.began("a", 1000)
    deadlines.began("b", 1)
    assert [name for name, *_ in overdue(deadlines, clock, 301)] == ["b"]
    assert [name for name, *_ in overdue(deadlines, clock, 10_001)] == ["a", "b"]


def test_a_small_shard_says_little_about_a_large_one():
    clock = Clock()
    deadlines = Deadlines(clock)
    deadlines.began("a", 10)
    clock.now = 1.0
    deadlines.done("a")
    deadlines.began("a", 1000)
    assert overdue(deadlines, clock, 1 + 2000) == [] and overdue(deadlines, clock, 1 + 2001)
    deadlines.done("a")
    deadlines.began("a", 10)
    assert overdue(deadlines, clock, 2002 + 20 * 2001) == [], "the largest shards count"
