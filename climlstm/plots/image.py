"""A field as an image on a map, sampled anew for every size, zoom and resolution of the map."""

from typing import Any

import numpy as np
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.image import AxesImage

from climlstm.plots.canvas import Canvas, Sampler, Shading, canvas_of
from climlstm.plots.colours import Colours

_MOST_PIXELS = 6e6
"""Points at which a field is read for one map; larger pictures enlarge them."""


class FieldImage(AxesImage):
    """Colours of one field after another on one map, cut at its outline.

    The field is read at the pixels that are drawn: in a window that is zoomed, in a file of 600 dpi
    and in the images within a PDF.
    """

    def __init__(
        self, ax: GeoAxes, field: xr.DataArray, colours: Colours, *, shading: Shading
    ) -> None:
        """field: ordered, on the grid of all that will be shown."""
        super().__init__(
            ax, cmap=colours.colormap, norm=colours.norm, interpolation="nearest", origin="lower",
            zorder=1,
        )  # fmt: skip
        self._field, self._shading = field, shading
        self._values: np.ndarray | None = None
        self._sampled_for: Canvas | None = None
        ax.add_image(self)
        self.set_clip_path(ax.patch)

    def show(self, values: np.ndarray) -> None:
        """Show other values (H, W) of the same grid; NaN where there are none."""
        self._values = values
        self._sample(self._sampled_for or canvas_of(self.axes))

    def get_extent(self) -> Any:
        """Edges of the image, in the units of the projection."""
        return (self._sampled_for or canvas_of(self.axes)).extent

    def draw(self, renderer: Any) -> None:
        """Draw the field at the resolution of the renderer."""
        box = self.axes.get_window_extent()
        pixel = 1 / renderer.get_image_magnification()
        pixel = max(pixel, float(np.sqrt(box.width * box.height / _MOST_PIXELS)))
        canvas = canvas_of(self.axes, pixels=pixel)
        if canvas is not self._sampled_for:
            self._sample(canvas)
        super().draw(renderer)

    def _sample(self, canvas: Canvas) -> None:
        assert self._values is not None
        if canvas is not self._sampled_for:
            self._sampler = Sampler(self._field, canvas, self._shading)
            self._sampled_for = canvas
        self.set_data(self._sampler(self._values))
