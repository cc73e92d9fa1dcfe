"""The report's numbers become the table that `kdray run` prints."""

from typing import Any

from kdray.serving.backends import TITLES

NAMES = ("teacher", "baseline", "winner", "served")


def text_table(numbers: dict[str, Any]) -> str:
    """One line a model: test metric with interval, millions of parameters, MB of its weights file, examples/s."""
    head = ("model", f"test {numbers['metric']} [95 %]", "parameters", "file", "examples/s")
    lines = [head, *(_line(numbers, name) for name in NAMES)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)


def title(name: str, numbers: dict[str, Any]) -> str:
    """How a line or column of a model is called."""
    return f"winner as served ({TITLES[numbers['backend']]})" if name == "served" else name


def _line(numbers: dict[str, Any], name: str) -> tuple[str, ...]:
    score, speed = numbers["test"][name][numbers["metric"]], numbers["speed"]
    rate = speed[name]["examples_per_second"]
    return (title(name, numbers), f"{score['value']:.4f} [{score['low']:.4f}, {score['high']:.4f}]",
            f"{numbers['parameters'][name] / 1e6:.1f} M", f"{numbers['bytes'][name] / 1e6:.1f} MB",
            f"{rate:.0f} ({rate / speed['teacher']['examples_per_second']:.1f}x)")
