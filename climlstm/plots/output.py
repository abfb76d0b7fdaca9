"""Pictures as files and bytes: PNG, PDF and SVG, whole or not at all, and SVG for pages."""

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from PIL import Image

from climlstm.errors import DataError
from climlstm.files import write_whole, writing
from climlstm.plots import theme

SELECTABLE: dict[Any, Any] = {"svg.fonttype": "none", "pdf.fonttype": 42, "ps.fonttype": 42}
"""Settings with which letters stay letters, to be selected, searched and edited."""

_PIXELS_BELOW = 2.9
"""Order of drawing below which an SVG has pixels: colours and coasts, but no lines over them."""


def save(picture: Figure | Axes, path: str | os.PathLike[str], *, dpi: float | None = None) -> Path:
    """Write a figure (or the figure of an axes) as PNG, PDF or SVG, whole or not at all.

    dpi: dots per inch of PNG and of the images within PDF and SVG; by default `savefig.dpi` of
    matplotlib's settings, else those of the figure. Letters of PDF and SVG can be selected.
    Raises DataError where the ending is none that matplotlib writes.
    """
    figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
    assert figure is not None
    target = Path(path)
    kinds = figure.canvas.get_supported_filetypes()
    kind = target.suffix.lstrip(".").lower()
    if kind not in kinds:
        raise DataError(
            f"{target}: pictures are written as {', '.join(sorted(kinds))}, not '{kind}'. "
            "Give the file one of these endings."
        )
    usual = matplotlib.rcParams["savefig.dpi"]
    fine = dpi or (figure.dpi if usual == "figure" else usual)
    with writing(target), write_whole(target) as written, matplotlib.rc_context(SELECTABLE):
        figure.savefig(written, format=kind, dpi=fine)
    return target


def svg_of(picture: Figure | Axes, *, dpi: float = 150) -> str:
    """A figure (or that of an axes) as SVG to stand in a page, whose colours its letters take.

    Letters, ticks and grids have the colours `--ink`, `--quiet` and `--rule` of the page, so that
    one picture suits light and dark ones. Images and coasts are pixels, which keeps it small. The
    same figure gives the same text.
    """
    figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
    assert figure is not None
    for ax in figure.axes:
        if isinstance(ax, GeoAxes):
            ax.set_rasterization_zorder(_PIXELS_BELOW)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "climlstm", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", dpi=dpi, transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for colour, name in ((theme.TEXT, "ink"), (theme.QUIET, "quiet"), (theme.RULE, "rule")):
        drawn = drawn.replace(colour, f"var(--{name})")
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*">', "<g>", drawn)  # names that would come twice on a page


NOTEBOOK_DPI = 100.0
"""Dots per inch of pictures in notebooks, which are shown as wide as these are at most."""


def png_of(figure: Figure) -> bytes:
    """A figure as PNG for a notebook: of 256 colours, a quarter of the size of one with all."""
    buffer, small = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=min(figure.dpi, NOTEBOOK_DPI))
    with Image.open(buffer) as picture:
        with_few_colours(picture, figure).save(small, format="png", optimize=False)
    return small.getvalue()


def with_few_colours(picture: Image.Image, figure: Figure) -> Image.Image:
    """A picture of a figure with 256 colours, which do not band its colour scales."""
    maps: list[Colormap] = []
    for image in [image for ax in figure.axes for image in ax.images]:
        if image.get_cmap() not in maps:
            maps.append(image.get_cmap())
    palette = palette_of(maps) if maps else None
    return picture.convert("RGB").quantize(256, palette=palette, dither=Image.Dither.NONE)


def palette_of(colormaps: Sequence[Colormap]) -> Image.Image:
    """256 colours: those of colour maps, and greys for lines and letters.

    Colours guessed from the pixels would band rare ones, and flicker in an animation.
    """
    each = np.linspace(0, 1, 216 // len(colormaps))
    colours = [colormap(each, bytes=True)[:, :3] for colormap in colormaps]
    greys = np.repeat(np.linspace(0, 255, 40).round().astype("uint8")[:, None], 3, axis=1)
    image = Image.new("P", (1, 1))
    image.putpalette(np.concatenate([*colours, greys]).tobytes())
    return image


def image_of(figure: Figure) -> np.ndarray:
    """The pixels (Y, X, 4) of a drawn figure, uint8 RGBA, the top row first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()
