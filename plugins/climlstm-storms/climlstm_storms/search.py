"""The search for storm centres through all times, initialisations and members of a dataset."""

from collections.abc import Mapping
from functools import partial
from hashlib import blake2b
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from climlstm.errors import DataError
from climlstm.grid import grid_of
from climlstm_storms.centres import CENTRE_COLUMNS, Detector, centres_of
from climlstm_storms.fields import blocks, on_one_grid, read_fields, steps_of
from climlstm_storms.mesh import Mesh, mesh_of
from climlstm_storms.tracks import TRACK_TYPES

SPACINGS = ("spacing_deg", "row_spacing_deg", "column_spacing_deg")
"""Columns: greatest distance of neighbours, distance of rows, and of meridians at the equator; NaN
where columns are none."""

REMEMBERED = 4096
"""Steps whose centres are kept: forecasts share their truth, and persistence its fields."""

Centres = dict[str, NDArray[Any]]


def detect(
    dataset: xr.Dataset, detector: Detector, *, names: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Storm centres of all times, initialisations and members of a dataset.

    dataset: sea-level pressure, and wind and geopotential where the detector uses them, under any
    common names or those in `names` ({"msl": "PRMSL"}); dims of rows and columns on any grid (one
    that moves with time, too), and any of time, init_time, lead_time, realization. Chunks along
    these are searched in parallel by Dask.

    Columns: init_time, lead_time, time, member, lat, lon, slp (hPa), wind (m/s), depth (hPa),
    warm_core, i, j, and the grid's SPACINGS. A step without any centre has one row, without a
    position: it was searched. i and j count the dataset's longitudes and latitudes.
    Raises DataError where a field is missing or its units are unknown.
    """
    tables = [_detect(each, detector, names) for each in on_one_grid(dataset)]
    return tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)


def _detect(
    dataset: xr.Dataset, detector: Detector, names: Mapping[str, str] | None
) -> pd.DataFrame:
    """Storm centres of a dataset on one grid."""
    fields = read_fields(dataset, names, warm_core_levels=detector.warm_core_levels)
    if detector.warm_core != "ignored" and "thickness" not in fields:
        upper, lower = detector.warm_core_levels
        raise DataError(
            f"warm_core is '{detector.warm_core}', but the fields have no geopotential at {upper} "
            f"and {lower} hPa. Add the channels 'z{upper}' and 'z{lower}', choose other "
            "warm_core_levels, or set warm_core to 'ignored'."
        )
    mesh = mesh_of(grid_of(fields), detector.diagonal, detector.closed_edges)
    detector = detector.on_grid(mesh.spacing_deg)
    # Dask does not look into a partial function, so a block is read where it is searched.
    parts = [partial(_detect_block, dask.optimize(b)[0], mesh, detector) for b in blocks(fields)]
    if dask.is_dask_collection(fields):
        tables = dask.compute(*(dask.delayed(part)() for part in parts))
    else:
        tables = tuple(part() for part in parts)
    nodes = pd.concat(tables, ignore_index=True)
    for index, name in (("i", "column"), ("j", "row")):
        given = fields[name].values[nodes[index]]
        nodes[index] = np.where(nodes[index] < 0, -1, given).astype("int64")
    return nodes


def _detect_block(block: xr.Dataset, mesh: Mesh, detector: Detector) -> pd.DataFrame:
    """Table of the centres in all steps of a block."""
    steps = list(steps_of(block.load(scheduler="synchronous")))
    found = [_at_least_one_row(_centres_once(step, mesh, detector)) for step in steps]
    sizes = [len(centres["lat"]) for centres in found]
    columns: dict[str, NDArray[Any]] = {
        name: np.repeat(np.array([step[name] for step in steps], dtype=TRACK_TYPES[name]), sizes)
        for name in ("init_time", "lead_time", "time", "member")
    }
    for name, kind in CENTRE_COLUMNS.items():
        parts = [np.empty(0, dtype=kind), *(centres[name] for centres in found)]
        columns[name] = np.concatenate(parts)
    spacings = dict(zip(SPACINGS, (mesh.spacing_deg, *mesh.axes_deg), strict=True))
    return pd.DataFrame(columns).assign(**spacings).astype({"warm_core": "boolean"})


def _at_least_one_row(centres: Centres) -> Centres:
    if centres["lat"].size:
        return centres
    missing = {"float64": np.nan, "int64": -1, "object": None}
    return {name: np.array([missing[k]], dtype=k) for name, k in CENTRE_COLUMNS.items()}


_known: dict[bytes, Centres] = {}


def _centres_once(step: Mapping[str, Any], mesh: Mesh, detector: Detector) -> Centres:
    """The centres in one step, kept for fields that come again."""
    fields = {name: step[name] for name in ("msl", "wind", "thickness") if name in step}
    digest = blake2b(repr(detector).encode() + mesh.digest, digest_size=16)
    for name, field in fields.items():
        digest.update(name.encode() + np.ascontiguousarray(field).data)
    key = digest.digest()
    centres = _known.get(key)
    if centres is None:
        _check_pressure(step)
        centres = centres_of(fields, mesh, detector)
        while len(_known) >= REMEMBERED:
            _known.pop(next(iter(_known)), None)
        _known[key] = centres
    return centres


def _check_pressure(step: Mapping[str, Any]) -> None:
    sample = step["msl"][::4, ::4]
    known = sample[~np.isnan(sample)]
    if known.size and not 80_000 < known.mean() < 120_000:
        raise DataError(
            f"Sea-level pressure has a mean of {known.mean():.4g} Pa at {step['time']}, but about "
            "100000 is expected. Correct its values or its attribute 'units'."
        )
