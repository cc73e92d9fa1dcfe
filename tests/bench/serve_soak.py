"""The service at half of what it can serve, for minutes: memory does not grow, nothing fails, answers stay quick.

    python tests/bench/serve_soak.py [--minutes 10] [--times 0.5] [--connections 128]

Load, texts and student are those of serve_overload.py. Prints a line a minute: answers, errors, p50 and p99 since the
request was sent, memory of the replica and its growth since the end of the first minute. Each minute has new
connections.
"""

from serve_overload import CLIENTS, MIB, Load, arguments, replica, service


def main() -> None:
    """Capacity, then minutes of the load."""
    options = arguments(__doc__, minutes=10.0, times=0.5, connections=CLIENTS)
    memory, errors = [], 0
    with service(options) as (url, bodies):
        ready = Load(url, bodies, clients=CLIENTS, seconds=options.warm).run()
        rate = options.times * ready.told("capacity, 128 clients")["200"]["rate"]
        process = replica()
        for minute in range(1, round(options.minutes) + 1):
            figures = Load(url, bodies, rate=rate, seconds=60.0, connections=options.connections).run().figures()
            memory.append(process.memory_info().rss / MIB)
            wrong = {status: one["share"] for status, one in figures.items() if status != "200"}
            errors += len(wrong)
            line = "minute {}: {rate:.0f}/s, p50 {sent[0]:.1f} p99 {sent[1]:.1f} ms, {:.1f} MiB, {:+.2%}, errors {}"
            print(line.format(
                minute, memory[-1], memory[-1] / memory[0] - 1, wrong or "none", **figures["200"]), flush=True)
    print(f"{rate:.0f} requests/s for {options.minutes:g} minutes: memory "
          f"{memory[-1] / memory[0] - 1:+.2%} after the first minute (asked: under 5 %)")
    if errors:
        raise SystemExit("there were errors")


if __name__ == "__main__":
    main()
