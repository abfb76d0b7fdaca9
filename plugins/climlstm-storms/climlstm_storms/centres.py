"""Storm centres in one field of sea-level pressure, by the rules of DetectNodes of TempestExtremes.

Ullrich et al. (2021), Geosci. Model Dev. 14, 5023-5048, https://doi.org/10.5194/gmd-14-5023-2021.
The order of the steps is theirs and matters: minima, bounds, merging, closed contours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from climlstm.grid import wrap_longitude
from climlstm_storms.mesh import TOLERANCE_DEG, Mesh
from climlstm_storms.refine import refine
from climlstm_storms.sphere import Field, Flags, Index, Real, chord

MANY_MINIMA = 0.002
"""Share of the grid from which on minima are examined for plateaus that are too wide."""

CONTOUR_SPACINGS = 2.5
"""Least radius of a closed contour in grid spacings.

A low in the middle of four points is flat over all of them, and its contour runs through points √5
spacings from the lowest. The rise stays: a low exp(-(r / 500 km)²) rises by 0.78 of its depth
within 5.5° of its centre, and averaged over cells of 5.6° still by 0.79 of it within 2.5 of them.
"""

MERGE_SPACINGS = 1.5
"""Least merging distance in grid spacings: two points that touch at a corner can both be minima of
one low between them."""


@dataclass(frozen=True)
class Detector:
    """Conditions on a storm centre. Distances are great-circle degrees, limits included.

    Defaults find any low, with closed contour and merging as in Ullrich et al. (2021).
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    contour_pa: float = 200.0
    """Least rise of sea-level pressure to a closed contour; 0: no contour is asked for, and the
    depth of centres is not determined."""
    contour_deg: float = 5.5
    """Distance within which the contour must close."""
    merge_deg: float = 6.0
    """Distance within which only the lowest minimum counts; of equal ones the northernmost."""
    warm_core: Literal["ignored", "required", "excluded"] = "ignored"
    """Whether a centre must have a warm core (tropical) or must not (extratropical)."""
    warm_core_levels: tuple[int, int] = (300, 500)
    """Upper and lower pressure level (hPa) of the thickness that shows a warm core."""
    warm_core_fall: float = 58.8
    """Least fall of thickness to its closed contour (m² s⁻²; 6 m of height)."""
    warm_core_deg: float = 6.5
    """Distance from the thickness maximum within which that contour must close."""
    warm_core_search_deg: float = 1.0
    """Distance from the centre within which the thickness maximum is sought."""
    wind_deg: float = 2.0
    """Distance within which the greatest wind speed is taken."""
    latitude: tuple[float, float] = (-90.0, 90.0)
    """Southern and northern bound of the search."""
    diagonal: bool = False
    """Whether points that touch at a corner are neighbours."""
    closed_edges: bool = False
    """Whether the edge of a regional domain, or missing data, may close a contour."""
    refine: bool = True
    """Whether centres are fitted below the grid spacing (see `refine`)."""
    adapt: bool = True
    """Whether distances grow with the grid spacing where they would be too short for it."""

    def on_grid(self, spacing_deg: float) -> "Detector":
        """The same with distances that the grid can resolve; unchanged without `adapt`."""
        if not self.adapt:
            return self
        least = {
            "contour_deg": CONTOUR_SPACINGS,
            "warm_core_deg": CONTOUR_SPACINGS,
            "merge_deg": MERGE_SPACINGS,
            "warm_core_search_deg": 1.0,
            "wind_deg": 1.0,
        }
        distances = {n: max(getattr(self, n), k * spacing_deg) for n, k in least.items()}
        return replace(self, **distances)


CENTRE_COLUMNS = dict.fromkeys(("lat", "lon", "slp", "wind", "depth"), "float64") | {
    "warm_core": "object",
    "i": "int64",
    "j": "int64",
}
"""Columns of a table of centres and their types; warm_core is None where there is no thickness."""


def centres_of(
    step: Mapping[str, Field], mesh: Mesh, detector: Detector
) -> dict[str, NDArray[Any]]:
    """Columns of the storm centres in one step: fields (H, W) on the mesh.

    step: msl (Pa) and, where known, wind (m/s) and thickness (m² s⁻²).
    """
    pressure = mesh.on_sphere(step["msl"])
    rows, columns = _minima(pressure, mesh, detector)
    if detector.contour_pa:
        closed = [
            mesh.is_closed(pressure, *point, detector.contour_pa, detector.contour_deg)
            for point in zip(rows, columns, strict=True)
        ]
        rows, columns = rows[closed], columns[closed]
    warm = np.full(rows.size, None)
    if "thickness" in step:
        thinness = -mesh.on_sphere(step["thickness"])
        points = zip(rows, columns, strict=True)
        warm[:] = [_has_warm_core(thinness, mesh, detector, *point) for point in points]
        if detector.warm_core != "ignored":
            kept = warm.astype(bool) == (detector.warm_core == "required")
            rows, columns, warm = rows[kept], columns[kept], warm[kept]
    latitude = mesh.latitude[rows, columns]
    longitude = wrap_longitude(mesh.longitude[rows, columns])
    value = pressure[rows, columns].astype("float64")
    if detector.refine:
        latitude, longitude, value = refine(mesh, pressure, rows, columns)
    depth, wind = np.full((2, rows.size), np.nan)
    for n, (row, column) in enumerate(zip(rows, columns, strict=True)):
        if detector.contour_pa:
            depth[n] = mesh.depth(pressure, row, column, detector.contour_deg)
        if "wind" in step:
            disc = mesh.disc(row, column, detector.wind_deg)
            wind[n] = np.fmax.reduce(mesh.values(step["wind"], column, disc)[disc.within])
    return {
        "lat": latitude,
        "lon": longitude,
        "slp": value / 100,
        "wind": wind,
        "depth": depth / 100,
        "warm_core": warm,
        "i": columns,
        "j": rows,
    }


def _minima(pressure: Field, mesh: Mesh, detector: Detector) -> tuple[Index, Index]:
    """Rows and columns of the minima within bounds, merged."""
    lowest = mesh.minima(pressure)
    south, north = detector.latitude
    inside = (mesh.latitude >= south - TOLERANCE_DEG) & (mesh.latitude <= north + TOLERANCE_DEG)
    lowest &= inside
    wide = _wide_plateaus(lowest, mesh, 2 * detector.contour_deg)
    rows, columns = np.nonzero(lowest & ~wide)
    kept = merge(
        pressure[rows, columns],
        mesh.vectors[rows, columns],
        (
            wrap_longitude(mesh.longitude[rows, columns], start=0.0),
            -mesh.latitude[rows, columns],
        ),
        detector.merge_deg,
    )
    rows, columns = rows[kept], columns[kept]
    if wide.any():
        free = [
            not _has_lower(pressure, wide, mesh, detector.merge_deg, *point)
            for point in zip(rows, columns, strict=True)
        ]
        rows, columns = rows[free], columns[free]
    return rows, columns


def _wide_plateaus(lowest: Flags, mesh: Mesh, width_deg: float) -> Flags:
    """Plateaus among the minima wider than this: no contour can close around any of their points.

    They still remove higher minima close to them. Without this, all points of a flat field would be
    candidates.
    """
    wide = np.zeros_like(lowest)
    if np.count_nonzero(lowest) < MANY_MINIMA * lowest.size:
        return wide
    labels, _ = ndimage.label(lowest)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    for label in np.flatnonzero(sizes > MANY_MINIMA * lowest.size):
        plateau = labels == label
        vectors = mesh.vectors[plateau]
        if np.min(vectors @ vectors[0]) < np.cos(np.deg2rad(min(width_deg, 180.0))):
            wide |= plateau
    return wide


def _has_lower(
    pressure: Field, minima: Flags, mesh: Mesh, radius_deg: float, row: Any, column: Any
) -> bool:
    """Whether one of these minima within the radius is lower than the point."""
    disc = mesh.disc(row, column, radius_deg)
    near = disc.within & (mesh.values(minima, column, disc) == 1)
    return bool(np.any(near & (mesh.values(pressure, column, disc) < pressure[row, column])))


def merge(values: Field, vectors: Real, order: tuple[Real, Real], radius_deg: float) -> Index:
    """Indices of the minima that have no lower one within the radius, lower ones first.

    Each is compared with all minima, those that are removed too. Of equal ones, the first by
    `order` (last key first, as in numpy.lexsort) stays, and removes the others around it.
    """
    if values.size == 0:
        return np.empty(0, dtype=np.intp)
    radius = chord(radius_deg + TOLERANCE_DEG)
    tree = cKDTree(vectors)
    neighbours = min(8, values.size)  # mostly, one of these is lower
    _, near = tree.query(vectors, k=neighbours, distance_upper_bound=radius)
    near = near.reshape(values.size, neighbours)
    extended = np.append(values.astype("float64"), np.inf)
    lowest = ~np.any(extended[near] < values[:, None], axis=1)
    for n in np.flatnonzero(lowest & (near[:, -1] < values.size)):
        lowest[n] = not np.any(values[tree.query_ball_point(vectors[n], radius)] < values[n])
    found = np.flatnonzero(lowest)
    found = found[np.lexsort((*(key[found] for key in order), values[found]))]
    tree = cKDTree(vectors[found])
    free = np.ones(found.size, dtype=bool)
    kept = []
    for place, minimum in enumerate(found):
        if free[place]:
            kept.append(minimum)
            free[tree.query_ball_point(vectors[minimum], radius)] = False
    return np.array(kept, dtype=np.intp)


def _has_warm_core(thinness: Field, mesh: Mesh, detector: Detector, row: int, column: int) -> bool:
    """Whether thickness falls all round its maximum near the centre; thinness is its negative."""
    disc = mesh.disc(row, column, detector.warm_core_search_deg)
    near = np.where(disc.within, mesh.values(thinness, column, disc), np.nan)
    if np.isnan(near).all():
        return False
    down, right = np.unravel_index(np.nanargmin(near), near.shape)
    top = disc.rows.start + int(down), int(disc.columns[right] + column) % mesh.columns
    return mesh.is_closed(thinness, *top, detector.warm_core_fall, detector.warm_core_deg)
