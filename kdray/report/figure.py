"""A matplotlib figure becomes SVG whose colours are those of the page, light, dark or printed.

Knows nothing about what is drawn. Colours drawn here are placeholders, which become CSS variables of the page; so a
plot must use none but these. What shows data has the gid DATA, so that a test can find it.
"""

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

INK, SOFT, TEACHER, BASELINE, WINNER, FAILED, HEAT, BACK = (f"#fd00{number:02x}" for number in range(8))
_VARIABLES = dict(zip((INK, SOFT, TEACHER, BASELINE, WINNER, FAILED, HEAT, BACK),
                      ("ink", "soft", "teacher", "baseline", "winner", "failed", "heat", "back"), strict=True))
SCALE = ListedColormap([f"#fe00{level:02x}" for level in range(0, 101, 5)])
"""From worst to best."""
COLOURS = {"teacher": TEACHER, "baseline": BASELINE, "winner": WINNER, "served": WINNER}
DATA = "data"
BROAD = 6.0
"""Inches beyond which a picture has the class `broad`, and takes the page's whole width."""
_BROAD, _REM = ' class="broad"', 6.1
_STYLE: Any = {
    "svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif", "text.parse_math": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": SOFT, "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "legend.frameon": False, "savefig.transparent": True, "axes.unicode_minus": False}


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches, in the page's style while it is drawn and written."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has it
        yield Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure, title: str) -> str:
    """The figure as an SVG element that says `title` where it cannot be seen; call it within `canvas`."""
    matplotlib.rcParams["svg.hashsalt"] = title
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    element = text.getvalue()[text.getvalue().index("<svg"):]
    element = element.replace(f'id="{DATA}"', f'class="{DATA}"')
    element = re.sub(r' id="[a-zA-Z.]+_\d+"', "", element)
    element = re.sub(r"#fd000[0-7]", lambda found: f"var(--{_VARIABLES[found[0]]})", element)
    element = re.sub(r"#fe00(\w\w)", lambda found: f"color-mix(in oklab, var(--best) {int(found[1], 16)}%, "
                     "var(--worst))", element)
    width = figure.get_figwidth()
    return element.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" style="max-width: '
                           f'{width * _REM:.1f}rem"{_BROAD if width > BROAD else ""} ', 1)
