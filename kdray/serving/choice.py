"""Measures of backends become a table, and advice which one to serve with.

Knows nothing about how they were measured.
"""

from collections.abc import Callable

from kdray.serving.compare import Comparison, Measure

_CHANCE = 2
"""Labels that may differ by chance, as in a package's parity sample."""
_NOISE = 1.05
"""A lead that is no more than this is none."""


def advise(found: Comparison, floor: float | None) -> list[str]:
    """What to serve with, and why; `floor` is the least agreement, null takes the default's."""
    default = found.measures[0]
    least = default.alike - _CHANCE if floor is None else floor * found.labels
    fit = [one for one in found.measures if one.contender.servable and one.alike >= least]
    if not fit:
        return [f"no backend gives PyTorch's labels in float32 as often as {floor:.2%}: lower --agreement"]
    best = _first(fit, lambda one: one.bulk)
    quick = _first(fit, lambda one: 1 / one.p50)
    agrees = f"gives {found.agreement(best):.2%} of PyTorch's labels in float32"
    if best is default:
        lines = [f"use {best.contender.setting}, as these settings do: it {agrees}, and of those that give as many "
                 f"none is over {_NOISE - 1:.0%} faster"]
    else:
        lines = [f"use {best.contender.setting}: {best.bulk / default.bulk:.2f} times the texts/s of "
                 f"{default.contender.name}, and it {agrees} ({default.contender.name}: "
                 f"{found.agreement(default):.2%})"]
    if quick.contender != best.contender:
        lines.append(f"where texts come one at a time, {quick.contender.setting} is quicker: p50 "
                     f"{quick.p50:.1f} ms, {best.contender.name} takes {best.p50:.1f}")
    return lines


def table(found: Comparison) -> str:
    """The measures as text, fastest first, with ratios to what the settings lead to."""
    default = found.measures[0]
    lines = [f"{'backend':15} {'texts/s':>14}  {'p50 ms':>14}  {'p99 ms':>14}  {'agreement':>9}  {'MB':>6}"]
    for one in sorted(found.measures, key=lambda one: -one.bulk):
        cells = [f"{own:7.{digits}f} ({own / base:.2f}x)" for own, base, digits in (
            (one.bulk, default.bulk, 0), (one.p50, default.p50, 1), (one.p99, default.p99, 1))]
        mark = "  <- now" if one is default else "" if one.contender.servable else "  reference"
        lines.append(f"{one.contender.name:15} {cells[0]:>15}  {cells[1]:>14}  {cells[2]:>14}  "
                     f"{found.agreement(one):9.2%}  {one.size / 1e6:6.1f}{mark}")
    return "\n".join([*lines, *(f"without {line}" for line in found.absent)])


def _first(measures: list[Measure], speed: Callable[[Measure], float]) -> Measure:
    """The fastest; of those that a little noise parts from it, the first, which is today's where it is among them."""
    fastest = max(map(speed, measures))
    return next(one for one in measures if speed(one) * _NOISE >= fastest)
