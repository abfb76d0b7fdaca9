"""The centre of a storm below the grid spacing: a quadratic fitted to the nine points around it.

On a grid of one degree a storm's position is otherwise off by some 40 km, by snapping alone.
"""

import numpy as np
from scipy import ndimage

from climlstm_storms.mesh import Mesh
from climlstm_storms.sphere import Field, Flags, Index, Real, from_plane, plane, positions


def refine(mesh: Mesh, field: Field, rows: Index, columns: Index) -> tuple[Real, Real, Real]:
    """Latitude, longitude and value of the minima nearest to grid minima, all (N,).

    p = a + b x + c y + d x² + e x y + f y², by least squares, in the plane that touches the sphere
    at the grid point, x and y in grid spacings. At high latitude the points to the east and west
    are taken as far off as those to the north and south; on a pole, eight of the next row are.
    Where data are missing, or the quadratic has no minimum within one spacing, the grid point
    stays; on a plateau of three points or more, its centroid is the centre.
    """
    latitude, longitude = positions(mesh.vectors[rows, columns])
    value = field[rows, columns].astype("float64")
    if rows.size == 0:
        return latitude, longitude, value
    around_rows, around_columns, known = _stencil(mesh, rows, columns)
    values = field[around_rows, around_columns].astype("float64")
    spacing, _ = mesh.steps_deg(rows, columns)
    center = mesh.vectors[rows, columns]
    x, y = plane(center, mesh.vectors[around_rows, around_columns])
    dx, dy, rise, found = _paraboloid_minimum(
        x / spacing[:, None], y / spacing[:, None], values - value[:, None]
    )
    plateau = known & (np.sum(values == value[:, None], axis=1) > 2) & ~_on_pole(mesh, rows)
    found &= known & ~plateau
    moved = positions(from_plane(center, dx * spacing, dy * spacing))
    latitude = np.where(found, moved[0], latitude)
    longitude = np.where(found, moved[1], longitude)
    value = np.where(found, value + rise, value)
    for n in np.flatnonzero(plateau):
        latitude[n], longitude[n] = _plateau_centroid(mesh, field, int(rows[n]), int(columns[n]))
    return latitude, longitude, value


def _on_pole(mesh: Mesh, rows: Index) -> Flags:
    return np.isin(rows, [row % mesh.rows for row in mesh.pole_rows])


def _stencil(mesh: Mesh, rows: Index, columns: Index) -> tuple[Index, Index, Flags]:
    """Rows and columns (N, 9) of the points to be fitted; and where all of them exist."""
    height, width = mesh.rows, mesh.columns
    row_step, column_step = mesh.steps_deg(rows, columns)
    most = width // 6 if mesh.periodic else 1
    stride = np.clip(np.rint(row_step / np.maximum(column_step, 1e-9)), 1, max(most, 1)).astype(int)
    around_rows = rows[:, None] + np.repeat([-1, 0, 1], 3)
    around_columns = columns[:, None] + stride[:, None] * np.tile([-1, 0, 1], 3)
    across = (around_rows < 0) & (mesh.north == "across")
    across |= (around_rows >= height) & (mesh.south == "across")
    around_rows = np.where(across, np.clip(around_rows, 0, height - 1), around_rows)
    around_columns = np.where(across, around_columns + width // 2, around_columns)
    polar = _on_pole(mesh, rows)
    if polar.any():
        ring = np.append(np.rint(np.arange(8) * width / 8).astype(int), 0)
        inward = np.where(rows == 0, 1, height - 2)[polar]
        around_rows[polar] = np.column_stack([np.tile(inward[:, None], 8), rows[polar]])
        around_columns[polar] = ring
    if mesh.periodic:
        around_columns %= width
    known = (around_rows >= 0) & (around_rows < height)
    known &= (around_columns >= 0) & (around_columns < width)
    return (
        np.clip(around_rows, 0, height - 1),
        np.clip(around_columns, 0, width - 1),
        known.all(axis=1),
    )


def _paraboloid_minimum(x: Real, y: Real, rise: Real) -> tuple[Real, Real, Real, Flags]:
    """Minimum of the quadratic through points (N, 9): x, y, value, and whether there is one."""
    terms = np.stack([np.ones_like(x), x, y, x**2, x * y, y**2], axis=-1)
    finite = np.asarray(np.isfinite(rise).all(axis=1))
    fit = np.linalg.pinv(terms) @ np.where(finite[:, None], rise, 0.0)[..., None]
    a, b, c, d, e, f = np.moveaxis(fit[..., 0], -1, 0)
    determinant = 4 * d * f - e**2
    convex = finite & (determinant > 1e-12 * (d + f) ** 2) & (d + f > 0)
    safe = np.where(convex, determinant, 1.0)
    dx, dy = (e * c - 2 * f * b) / safe, (e * b - 2 * d * c) / safe
    found = convex & (np.maximum(np.abs(dx), np.abs(dy)) <= 1.0)
    dx, dy = np.where(found, dx, 0.0), np.where(found, dy, 0.0)
    return dx, dy, a + b * dx / 2 + c * dy / 2, found


def _plateau_centroid(mesh: Mesh, field: Field, row: int, column: int) -> tuple[float, float]:
    """Centroid of the points of equal value that adjoin this one, within 10 degrees."""
    disc = mesh.disc(row, column, max(10.0, 3 * mesh.spacing_deg))
    level = disc.within & (mesh.values(field, column, disc) == float(field[row, column]))
    labels, _ = ndimage.label(level)
    same = labels == labels[disc.centre]
    if disc.whole_circle:  # its seam is far from the centre, unless the plateau is on a pole
        same = level
    rows, places = np.nonzero(same)
    columns = (disc.columns[places] + column) % mesh.columns
    vectors = mesh.vectors[rows + disc.rows.start, columns]
    latitude, longitude = positions(vectors.sum(axis=0))
    return float(latitude), float(longitude)
