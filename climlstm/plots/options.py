"""The keywords that all maps take: how a field is shown, whatever is shown."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypedDict, TypeVar

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from matplotlib.colors import Colormap

from climlstm.data.sources.units import conversion
from climlstm.errors import DataError, nearest
from climlstm.plots.canvas import Shading
from climlstm.plots.coastlines import Coastlines
from climlstm.plots.colours import Colours, Levels, Limits, error_colours
from climlstm.plots.fields import bounds_of, own_view, within
from climlstm.plots.overlays import WindAs
from climlstm.plots.projections import Bounds, Region, View, view
from climlstm.plots.styles import Look, look_of
from climlstm.plugins import Style

F = TypeVar("F", bound=Callable[..., Any])

Width: TypeAlias = float | str
"""Inches, or a text such as '89 mm'."""


class MapOptions(TypedDict, total=False):
    """Keywords of every function that draws maps; as in `Drawing`, which explains them."""

    projection: str | ccrs.Projection | None
    region: Region | None
    style: Style | None
    units: str | None
    cmap: str | Colormap | None
    limits: Limits | None
    levels: Levels | None
    difference: bool | None
    shading: Shading | None
    contour_interval: float | None
    wind_as: WindAs
    coastlines: Coastlines
    gridlines: bool
    points: Mapping[str, tuple[float, float]] | None
    letters: bool
    width: Width | None
    dpi: float | None


@dataclass(frozen=True)
class Drawing:
    """How maps are drawn: their view, their colours, and what lies over them."""

    projection: str | ccrs.Projection | None = None
    """A name of `PROJECTIONS` or a cartopy projection; what suits the data where None."""
    region: Region | None = None
    """A name of `REGIONS`, or (west, east, south, north) in degrees."""
    style: Style | None = None
    """Units, colour map and limits together, instead of those of the variable."""
    units: str | None = None
    """Display unit, such as 'degF' or 'knot'."""
    cmap: str | Colormap | None = None
    """A colour map of matplotlib, for the field; errors keep theirs."""
    limits: Limits | None = None
    """Ends of the colour scale, display unit; from the region shown where None."""
    levels: Levels | None = None
    """A number of steps of colour, or their edges; smooth colours where None."""
    difference: bool | None = None
    """Whether the field is a difference or a spread, to which no offset of a unit is added."""
    shading: Shading | None = None
    """'smooth' or 'cells'; smooth where None, but for rain, masks and kinds of things."""
    contour_interval: float | None = None
    """Spacing of contour lines, in the unit of the variable that is drawn as lines."""
    wind_as: WindAs = "quiver"
    coastlines: Coastlines = "auto"
    gridlines: bool = False
    """Meridians and parallels, with their degrees around the map."""
    points: Mapping[str, tuple[float, float]] | None = None
    """Places to mark, (longitude, latitude) in degrees by name: cities, stations."""
    letters: bool = False
    """Letters a, b, c at the panels, for a caption."""
    width: Width | None = None
    """Width of the figure: inches, or '89 mm'; what suits a page where None."""
    dpi: float | None = None
    """Dots per inch; 150, or those of matplotlib's style sheet, where None."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Drawing":
        """From keywords. Raises DataError for one that maps do not take."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise DataError(
                    f"Maps take no option '{name}'.{nearest(name, known)} They take "
                    f"{', '.join(known)}."
                )
        return cls(**options)

    def look(self, field: xr.DataArray) -> Look:
        return look_of(field, style=self.style, units=self.units, difference=self.difference)

    def view(self, field: xr.DataArray) -> View:
        own = own_view(field) if self.projection is None else None
        if own is None:
            return view(bounds_of(field), projection=self.projection, region=self.region)
        return own if self.region is None else own.narrowed(self.region)

    def shading_of(self, look: Look) -> Shading:
        """Cells for what has no values between those of its cells."""
        kind = look.quantity
        as_cells = kind.is_patchy or kind.is_direction or bool(kind.categories)
        return self.shading or ("cells" if as_cells else "smooth")

    def colours(self, look: Look, shown: Sequence[xr.DataArray]) -> Colours:
        """One scale for several ordered fields, from what is seen of them."""
        values = [look.values(self.seen(field)).ravel() for field in shown]
        return look.colours(
            np.concatenate(values), limits=self.limits, levels=self.levels, cmap=self.cmap
        )

    def error_colours(
        self, look: Look, errors: Sequence[xr.DataArray], limit: float | None = None
    ) -> Colours:
        """One scale for the errors of several ordered fields."""
        values = [look.differences(self.seen(field)).ravel() for field in errors]
        return error_colours(np.concatenate(values), limit=limit, levels=self.levels)

    def seen(self, field: xr.DataArray) -> xr.DataArray:
        """An ordered field with NaN outside the region that is shown."""
        if self.region is None and not isinstance(self.projection, str):
            return field
        bounds: Bounds = self.view(field).bounds
        inside = within(field, bounds)
        return inside if bool(inside.notnull().any()) else field

    @property
    def inches(self) -> float | None:
        """Width of the figure. Raises DataError for a text that is no length."""
        if self.width is None or not isinstance(self.width, str):
            return self.width
        number, unit = (
            self.width.strip().rstrip("abcdefghijklmnopqrstuvwxyz "),
            "".join(c for c in self.width if c.isalpha()),
        )
        try:
            found = float(number) * conversion(unit or "inch", "inch").scale
        except (ValueError, DataError) as error:
            raise DataError(
                f"width='{self.width}' is no length. Expected inches, or a text such as '89 mm'."
            ) from error
        return found


def takes_map_options(function: F) -> F:
    """Let the signature of a function with **options name the keywords of `Drawing`."""
    own = inspect.signature(function)
    kept = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    names = {parameter.name for parameter in kept}
    added = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default,
                          annotation=f.type)
        for f in fields(Drawing)
        if f.name not in names
    ]  # fmt: skip
    function.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    return function
