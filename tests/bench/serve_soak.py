"""The service at half of what it can serve, for minutes: memory does not grow, nothing fails, answers stay quick.

    python tests/bench/serve_soak.py [--minutes 10] [--times 0.5] [--connections 128]
    python tests/bench/serve_soak.py --warm 75 --times 0.8 --set max_replicas=2 --set num_cpus=0.5

Load, texts and student are those of serve_overload.py. Prints a line a minute: answers, errors, p50 and p99 since the
request was sent, how many replicas there are, the memory of each and its growth since the end of the first minute. Each
minute has new connections. The second command lets replicas start while capacity is measured: at four fifths of that,
none must go.
"""

from serve_overload import CLIENTS, MIB, Load, arguments, replicas, service


def main() -> None:
    """Capacity, then minutes of the load."""
    options = arguments(__doc__, minutes=10.0, times=0.5, connections=CLIENTS)
    memory, errors = [], 0
    with service(options) as (url, bodies):
        ready = Load(url, bodies, clients=CLIENTS, seconds=options.warm).run()
        rate = options.times * ready.told("capacity, 128 clients")["200"]["rate"]
        for minute in range(1, round(options.minutes) + 1):
            figures = Load(url, bodies, rate=rate, seconds=60.0, connections=options.connections).run().figures()
            there = replicas()
            memory.append(sum(one.memory_info().rss for one in there) / MIB / len(there))
            wrong = {status: one["share"] for status, one in figures.items() if status != "200"}
            errors += len(wrong)
            line = ("minute {}: {rate:.0f}/s, p50 {sent[0]:.1f} p99 {sent[1]:.1f} ms, replicas {}, {:.1f} MiB, {:+.2%}"
                    ", errors {}")
            print(line.format(minute, len(there), memory[-1], memory[-1] / memory[0] - 1, wrong or "none",
                              **figures["200"]), flush=True)
    print(f"{rate:.0f} requests/s for {options.minutes:g} minutes: memory "
          f"{memory[-1] / memory[0] - 1:+.2%} after the first minute (asked: under 5 %)")
    if errors:
        raise SystemExit("there were errors")


if __name__ == "__main__":
    main()
