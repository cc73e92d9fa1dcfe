"""Small calls go first and in order, large ones always move on, and nobody waits for what others ask for."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kdray.serving import lanes as module
from kdray.serving.lanes import Call, FullError, Lanes

MOST, ROOM = 40, 60  # a large call costs more than 10, and 5 of a batch are for large ones while small ones come


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> list[float]:
    """The time, which stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def run(scenario: Callable[[Lanes], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        await asyncio.wait_for(scenario(Lanes(MOST, ROOM)), 20)

    asyncio.run(whole())


async def entered(lanes: Lanes, name: str, *costs: int, patient: bool = False) -> Call:
    call = Call([f"{name}{place}" for place in range(len(costs))], list(costs), patient)
    await lanes.enter(call)
    return call


def drawn(lanes: Lanes) -> str:
    return " ".join(call.items[place] for call, place in lanes.draw())


def test_small_calls_are_drawn_in_order_until_a_batch_is_full():
    async def scenario(lanes: Lanes) -> None:
        for name in "abcdef":
            await entered(lanes, name, 5, 5)
        assert drawn(lanes) == "a0 a1 b0 b1 c0 c1 d0 d1"
        assert (lanes.items, lanes.cost) == (4, 20)
        assert drawn(lanes) == "e0 e1 f0 f1" and drawn(lanes) == ""

    run(scenario)


def test_a_large_call_has_a_share_of_a_batch_while_small_ones_come():
    async def scenario(lanes: Lanes) -> None:
        await entered(lanes, "L", *[5] * 12)
        for name in "abcdefg":
            await entered(lanes, name, 8)
        assert drawn(lanes) == "a0 b0 c0 d0 L0"
        assert drawn(lanes) == "e0 f0 g0 L1"
        assert drawn(lanes) == "L2"

    run(scenario)


def test_a_large_call_has_whole_batches_when_no_small_one_has_come_for_a_while(clock):
    async def scenario(lanes: Lanes) -> None:
        await entered(lanes, "a", 5)
        await entered(lanes, "L", *[5] * 12)
        assert drawn(lanes) == "a0 L0"
        clock[0] += 2
        assert drawn(lanes) == "L1 L2 L3 L4 L5 L6 L7 L8"

    run(scenario)


def test_large_calls_take_turns_item_by_item(clock):
    async def scenario(lanes: Lanes) -> None:
        clock[0] += 2
        for name, count in (("K", 8), ("L", 3), ("M", 8)):
            await entered(lanes, name, *[5] * count)
        assert drawn(lanes) == "K0 L0 M0 K1 L1 M1 K2 L2"
        assert drawn(lanes) == "M2 K3 M3 K4 M4 K5 M5 K6"

    run(scenario)


def test_an_item_that_costs_more_than_a_batch_or_a_share_is_drawn_alone(clock):
    async def scenario(lanes: Lanes) -> None:
        await entered(lanes, "L", 100, 5)
        await entered(lanes, "a", 5)
        assert drawn(lanes) == "a0" and drawn(lanes) == "L0" and drawn(lanes) == "L1"

    run(scenario)


def test_a_small_call_finds_room_by_its_cost_until_what_runs_is_answered():
    async def scenario(lanes: Lanes) -> None:
        calls = [await entered(lanes, "a", 10) for _ in range(6)]
        with pytest.raises(FullError):
            await entered(lanes, "b", 1)
        drawn(lanes)
        with pytest.raises(FullError):
            await entered(lanes, "b", 1)
        lanes.leave(calls[0])
        await entered(lanes, "b", 10)
        lanes.leave(calls[1])
        lanes.leave(calls[1])
        await entered(lanes, "c", 4, 5)
        with pytest.raises(FullError):
            await entered(lanes, "d", 2)

    run(scenario)


def test_a_large_call_finds_a_place_whatever_small_ones_wait_and_those_whatever_it_costs():
    async def scenario(lanes: Lanes) -> None:
        for _ in range(6):
            await entered(lanes, "a", 10)
        await entered(lanes, "L", *[5] * 1000)
        assert lanes.cost == 5060

    run(scenario)


def test_of_too_many_large_calls_one_is_refused_and_a_patient_one_waits_for_a_place():
    async def scenario(lanes: Lanes) -> None:
        calls = [await entered(lanes, "L", 20) for _ in range(8)]
        with pytest.raises(FullError):
            await entered(lanes, "M", 20)
        first, gone, second = (asyncio.create_task(entered(lanes, name, 1, patient=True)) for name in "NOP")
        await asyncio.sleep(0)
        assert lanes.items == 8
        gone.cancel()
        lanes.leave(calls[0])
        call = await first
        assert not second.done()
        lanes.leave(call)
        await second
        with pytest.raises(FullError):
            await entered(lanes, "M", 20)

    run(scenario)


def test_a_call_that_leaves_takes_what_waits_of_it():
    async def scenario(lanes: Lanes) -> None:
        small, large = await entered(lanes, "a", 3, 3), await entered(lanes, "L", *[5] * 9)
        await entered(lanes, "b", 4)
        lanes.leave(small)
        assert drawn(lanes) == "b0 L0"
        lanes.leave(large)
        assert drawn(lanes) == "" and (lanes.items, lanes.cost) == (0, 0)

    run(scenario)
