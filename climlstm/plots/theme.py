"""Letters, lines and resolution of all pictures, as matplotlib's style sheets ask for them.

Without a style sheet in use, ours: dark grey letters on white, 150 dots per inch.
"""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgb

DPI = 150.0
TEXT = "#222222"
QUIET = "#6b6b6b"
RULE = "#e6e6e6"
"""Letters, those of less weight, and lines of grids; pages may give them other colours."""


def dpi() -> float:
    """Dots per inch of a new figure: `figure.dpi` where a style sheet sets it."""
    return float(_setting("figure.dpi", DPI))


def paper() -> str:
    """Colour behind everything."""
    return str(_setting("figure.facecolor", "#ffffff"))


def ink() -> str:
    """Colour of letters."""
    return to_hex(_setting("text.color", TEXT))


def quiet() -> str:
    """Colour of letters of less weight."""
    return QUIET if ink() == TEXT else _between(0.35)


def rule() -> str:
    """Colour of the lines of a grid."""
    return RULE if ink() == TEXT else _between(0.8)


def size(points: float) -> float:
    """A size of letters or of the room for them, as large as `font.size` makes it."""
    return points * float(matplotlib.rcParams["font.size"]) / 10.0


def _setting(name: Any, ours: Any) -> Any:
    """A setting of matplotlib that differs from its own default, else ours."""
    value = matplotlib.rcParams[name]
    return ours if value == matplotlib.rcParamsDefault[name] else value


def _between(share: float) -> str:
    """A colour on the way from the letters to the paper."""
    mixed = np.array(to_rgb(ink())) * (1 - share) + np.array(to_rgb(paper())) * share
    return to_hex((float(mixed[0]), float(mixed[1]), float(mixed[2])))
