"""Maps by name: projections, regions, and an empty map that shows one in the other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import cartopy.crs as ccrs
import numpy as np
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.path import Path
from shapely import LinearRing

from climlstm.errors import DataError, nearest
from climlstm.grid import wrap_longitude
from climlstm.grid.countries import country_rings
from climlstm.grid.places import box_of
from climlstm.grid.regions import REGIONS as NAMED_REGIONS
from climlstm.grid.regions import Box


@dataclass(frozen=True)
class Bounds:
    """A box of longitudes and latitudes, degrees; east is beyond west, by 360 at most."""

    west: float
    east: float
    south: float
    north: float

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude in [-180, 180) and latitude of the middle."""
        middle = float(wrap_longitude((self.west + self.east) / 2))
        return middle, (self.south + self.north) / 2

    @property
    def is_round(self) -> bool:
        """Whether all longitudes are in it."""
        return self.east - self.west > 359

    @property
    def is_cap(self) -> bool:
        """Whether it is the surroundings of one pole."""
        return self.is_round and (self.north == 90) != (self.south == -90)

    @property
    def is_global(self) -> bool:
        return self.is_round and self.north - self.south > 150

    def outline(self, points: int = 181) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude along the edge, once around."""
        if self.is_cap:
            rim = self.south if self.north == 90 else self.north
            return np.linspace(self.west, self.east, 2 * points), np.full(2 * points, rim)
        along = np.linspace(self.west, self.east, points)
        up = np.linspace(self.south, self.north, points)
        longitude = [along, np.full(points, self.east), along[::-1], np.full(points, self.west)]
        latitude = [np.full(points, self.south), up, np.full(points, self.north), up[::-1]]
        return np.concatenate(longitude), np.concatenate(latitude)


Region: TypeAlias = str | Bounds | tuple[float, float, float, float]
"""A name of `REGIONS`, `country:france` (its largest part), `box:45..55,0..20` (south..north,
west..east), or (west, east, south, north) in degrees."""

GLOBE = Bounds(-180, 180, -90, 90)


def _bounds(box: Box) -> Bounds:
    width = (box.east - box.west) % 360 or 360
    west = -180.0 if width == 360 else float(wrap_longitude(box.west))
    return Bounds(west, west + width, box.south, box.north)


REGIONS = {
    name.replace("_", " "): _bounds(boxes[0])
    for name, boxes in NAMED_REGIONS.items()
    if len(boxes) == 1
}
"""Parts of the Earth that maps know by name, those in which forecasts are scored among them."""


def region_bounds(region: Region) -> Bounds:
    """The box behind a name or (west, east, south, north); west may be east of east.

    Raises DataError for an unknown name or a box that encloses nothing.
    """
    if isinstance(region, Bounds):
        return region
    if isinstance(region, str) and (box := box_of(region)):
        return _bounds(box)
    if isinstance(region, str) and region.lower().startswith("country:"):
        longitude, latitude = country_rings(region.partition(":")[2])[0].T
        south, north = max(latitude.min() - 1, -90), min(latitude.max() + 1, 90)
        return region_bounds((longitude.min() - 1, longitude.max() + 1, south, north))
    if isinstance(region, str):
        name = region.lower().replace("_", " ").replace("-", " ")
        if name not in REGIONS:
            raise DataError(
                f"There is no region '{region}'.{nearest(name, REGIONS)} Maps know "
                f"{', '.join(REGIONS)}; or give a country, 'country:france', or the bounds (west, "
                "east, south, north) in degrees."
            )
        return REGIONS[name]
    west, east, south, north = (float(edge) for edge in region)
    if not -90 <= south < north <= 90 or west == east or not -360 <= west <= 360:
        raise DataError(
            f"The region {tuple(region)} is no box. Expected (west, east, south, north) in "
            "degrees, with -90 <= south < north <= 90, and longitudes that differ."
        )
    turn = 360.0 * np.ceil((west - east) / 360.0) if east < west else 0.0
    return Bounds(west, min(east + turn, west + 360), south, north)


def _platecarree(bounds: Bounds) -> ccrs.Projection:
    return ccrs.PlateCarree(central_longitude=bounds.centre[0])


def _lambert(bounds: Bounds) -> ccrs.Projection:
    """Secant at a sixth of the way in from north and south, which spreads the distortion."""
    longitude, latitude = bounds.centre
    margin = (bounds.north - bounds.south) / 6
    parallels = (bounds.south + margin, bounds.north - margin)
    if abs(sum(parallels)) < 1:  # symmetric about the equator: the cone would be a cylinder
        return ccrs.Mercator(central_longitude=longitude)
    return ccrs.LambertConformal(
        longitude, latitude, standard_parallels=parallels, cutoff=-30 if latitude > 0 else 30
    )


PROJECTIONS: dict[str, Callable[[Bounds], ccrs.Projection]] = {
    "platecarree": _platecarree,
    "robinson": lambda bounds: ccrs.Robinson(bounds.centre[0]),
    "mollweide": lambda bounds: ccrs.Mollweide(bounds.centre[0]),
    "equal earth": lambda bounds: ccrs.EqualEarth(bounds.centre[0]),
    "mercator": lambda bounds: ccrs.Mercator(
        bounds.centre[0], min_latitude=max(-80, bounds.south), max_latitude=min(84, bounds.north)
    ),
    "orthographic": lambda bounds: ccrs.Orthographic(*bounds.centre),
    "north polar": lambda bounds: ccrs.NorthPolarStereo(0 if bounds.is_round else bounds.centre[0]),
    "south polar": lambda bounds: ccrs.SouthPolarStereo(0 if bounds.is_round else bounds.centre[0]),
    "lambert": _lambert,
    "lambert equal area": lambda bounds: ccrs.LambertAzimuthalEqualArea(*bounds.centre),
}
"""Projections by name, each fitted to what is to be seen."""

_FULL_VIEW: dict[str, Bounds] = {
    "orthographic": Bounds(-90, 90, -50, 90),
    "north polar": Bounds(-180, 180, 20, 90),
    "south polar": Bounds(-180, 180, -90, -20),
    "lambert": Bounds(-75, 75, 15, 80),
    "lambert equal area": Bounds(-90, 90, -20, 90),
}
"""Part of a global field shown by default in projections that cannot show all of it."""


class OwnProjection(ccrs.Projection):
    """The projection of somebody's rows and columns, of which only their surroundings are drawn."""

    def __init__(self, wkt: str, limits: tuple[float, float, float, float]) -> None:
        """limits: left, right, bottom and top of what is to be seen, metres."""
        super().__init__(wkt)
        left, right, bottom, top = limits
        wide, high = right - left, top - bottom
        self.bounds = (left - wide, right + wide, bottom - high, top + high)
        self.threshold = max(wide, high) / 500

    @property
    def boundary(self) -> LinearRing:
        """The rectangle at which coasts are cut."""
        left, right, bottom, top = self.bounds
        return LinearRing([(left, bottom), (right, bottom), (right, top), (left, top)])

    @property
    def x_limits(self) -> tuple[float, float]:
        return self.bounds[0], self.bounds[1]

    @property
    def y_limits(self) -> tuple[float, float]:
        return self.bounds[2], self.bounds[3]


@dataclass(frozen=True)
class View:
    """A projection and the box it shows: all that a map is before anything is drawn on it."""

    projection: ccrs.Projection
    bounds: Bounds
    is_whole_disc: bool = False
    """Whether a whole side of the globe is seen, whatever the bounds."""
    is_sector: bool = False
    """Whether the box itself, and not a rectangle around it, is the outline of the map."""
    own_limits: tuple[float, float, float, float] | None = None
    """Left, right, bottom and top of rows and columns in their own projection."""

    def aspect(self) -> float:
        """Width of the map divided by its height."""
        left, right, bottom, top = self.limits()
        return (right - left) / (top - bottom)

    def limits(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of what is shown, in the units of the projection."""
        if self.own_limits is not None:
            return self.own_limits
        if self.bounds.is_global or self.is_whole_disc:
            return (*self.projection.x_limits, *self.projection.y_limits)
        x, y = self._outline()
        return float(x.min()), float(x.max()), float(y.min()), float(y.max())

    def narrowed(self, region: "Region") -> "View":
        """The same projection around another box."""
        return View(self.projection, region_bounds(region))

    def add_to(self, figure: Any, position: Any) -> GeoAxes:
        """A new empty map in a figure, at a position that its `add_subplot` understands."""
        ax = figure.add_subplot(position, projection=self.projection)
        left, right, bottom, top = self.limits()
        ax.set_xlim(left, right)
        ax.set_ylim(bottom, top)
        if self.is_sector:
            ax.set_boundary(Path(np.column_stack(self._outline()), closed=True))
        return ax

    def _outline(self) -> tuple[np.ndarray, np.ndarray]:
        box = self.bounds
        inset = 1e-6 * (box.east - box.west)  # both sides of a seam must not become one
        edge = Bounds(box.west + inset, box.east - inset, box.south, box.north).outline()
        points = self.projection.transform_points(ccrs.PlateCarree(), *edge)
        seen = np.isfinite(points[:, 0]) & np.isfinite(points[:, 1])
        if not seen.any():
            raise DataError(
                f"Nothing of the region {box} can be seen on {type(self.projection).__name__}. "
                "Choose another projection or region."
            )
        return points[seen, 0], points[seen, 1]


def view(
    data_bounds: Bounds,
    *,
    projection: str | ccrs.Projection | None = None,
    region: Region | None = None,
) -> View:
    """How to show data that cover `data_bounds`.

    Without a projection: Robinson for the globe, polar stereographic around a pole, Lambert
    conformal in middle latitudes and equirectangular in the tropics.
    Raises DataError for unknown names.
    """
    name = _name_of(projection)
    if region is None:
        shown = _FULL_VIEW.get(name or "", data_bounds) if data_bounds.is_global else data_bounds
    else:
        shown = region_bounds(region)
    if name is None and not isinstance(projection, ccrs.Projection):
        name = _suitable(shown)
    crs = projection if isinstance(projection, ccrs.Projection) else PROJECTIONS[name or ""](shown)
    whole_disc = name in ("orthographic", "lambert equal area") and (
        region is None and data_bounds.is_global and name == "orthographic"
    )
    is_cone = isinstance(crs, ccrs.LambertConformal | ccrs.Stereographic)
    sector = is_cone and (shown.is_cap or not data_bounds.is_global)
    return View(crs, shown, is_whole_disc=whole_disc, is_sector=sector)


def _name_of(projection: str | ccrs.Projection | None) -> str | None:
    if not isinstance(projection, str):
        return None
    name = projection.lower().replace("_", " ").replace("-", " ")
    name = {"plate carree": "platecarree", "equirectangular": "platecarree"}.get(name, name)
    if name not in PROJECTIONS:
        raise DataError(
            f"There is no projection '{projection}'.{nearest(name, PROJECTIONS)} Maps know "
            f"{', '.join(PROJECTIONS)}; or give a cartopy projection."
        )
    return name


def _suitable(shown: Bounds) -> str:
    if shown.is_global:
        return "robinson"
    if shown.is_round and shown.south >= 0:
        return "north polar"
    if shown.is_round and shown.north <= 0:
        return "south polar"
    middle = abs(shown.centre[1])
    crosses_equator = shown.south < 0 < shown.north
    if 25 < middle < 75 and not crosses_equator and shown.east - shown.west <= 150:
        return "lambert"
    return "platecarree"
