"""The pool's own cost: very many shards and actors, with a stand-in for the teacher that sleeps.

    python tests/bench/pool_scale.py [--actors 64] [--shards 20000] [--seconds 1]

The stand-in writes nothing and imports no torch: 64 of them fit a small machine. Prints the share of the ideal time
(shards x seconds / actors) from the moment that all actors are up, and what the driver spends on a shard: processor
time while the stand-ins sleep, and wall time in a second pass in which they do not.
"""

import argparse
import time
from collections.abc import Sequence

import ray

from kdray.cache.plan import Slot
from kdray.cluster import connect
from kdray.teacher.pool import Pool


class Sleeper:
    """Stands in for a teacher actor."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def ready(self) -> None:
        """It is."""

    def fill(self, slot: Slot) -> str:
        """Takes its time."""
        time.sleep(self.seconds)
        return slot.key


def main() -> None:
    """Both passes with the same actors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, default=64)
    parser.add_argument("--shards", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    connect()
    slots = [Slot("train", 1000 * number, 1000 * number + 1000, f"{number:032x}") for number in range(options.shards)]
    busy, busy_cpu = timed(slots, options.actors, options.seconds)
    idle, _ = timed(slots, options.actors, 0.0)
    ideal = -(-options.shards // options.actors) * options.seconds
    print(f"{options.shards} shards, {options.actors} actors, {options.seconds:g} s a shard: {busy:.1f} s, "
          f"{ideal / busy:.3f} of ideal ({ideal:.1f} s)")
    print(f"the driver: {1000 * busy_cpu / options.shards:.2f} ms of processor time a shard; shards that take no time: "
          f"{1000 * idle / options.shards:.2f} ms each")


def timed(slots: Sequence[Slot], count: int, seconds: float) -> tuple[float, float]:
    """Wall and processor seconds of the driver, from when all actors are up."""
    actors = [ray.remote(num_cpus=0)(Sleeper).remote(seconds) for _ in range(count)]
    ray.get([actor.ready.remote() for actor in actors])
    done: list[str] = []
    started, cpu = time.perf_counter(), time.process_time()
    Pool(slots, actors.pop, count, 1, done.append).run()
    wall, spent = time.perf_counter() - started, time.process_time() - cpu
    assert sorted(done) == [slot.key for slot in slots], "every shard once"
    return wall, spent


if __name__ == "__main__":
    main()
