"""The report's numbers become the table that `kdray run` prints."""

from typing import Any

COLUMNS = ("model", "metric", "parameters", "file", "examples/s")
NAMES = ("teacher", "baseline", "winner", "served")


def rows(numbers: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """One row a model: test metric with interval, millions of parameters, MB of its weights file, examples/s."""
    metric, speed = numbers["metric"], numbers["examples_per_second"]
    found = []
    for name in NAMES:
        model = "winner" if name == "served" else name
        score = numbers["served"] if name == "served" else numbers["test"][name][metric]
        found.append((
            "winner as served (ONNX int8)" if name == "served" else name,
            f"{score['value']:.4f} [{score['low']:.4f}, {score['high']:.4f}]",
            f"{numbers['parameters'][model] / 1e6:.1f} M", f"{numbers['bytes'][name] / 1e6:.1f} MB",
            f"{speed[name]:.0f} ({speed[name] / speed['teacher']:.1f}x)"))
    return found


def text_table(numbers: dict[str, Any]) -> str:
    """The table as plain text."""
    head = tuple(f"test {numbers['metric']} [95 %]" if name == "metric" else name for name in COLUMNS)
    lines = [head, *rows(numbers)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)
