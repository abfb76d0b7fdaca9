"""Forecasts of several runs as one ensemble."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from climlstm.errors import DataError
from climlstm.files import write_whole, writing


def join_members(stores: Mapping[str, Path], out: Path) -> None:
    """Write forecasts of the same times by several runs into one store, their members in turn.

    stores: forecast stores by the name of their run. The coordinate `run` (realization) says whose
    each member is, and the provenance holds that of each run under `runs`.
    Raises DataError where they are not of the same channels, grid and times.
    """
    opened = {
        name: xr.open_zarr(store, decode_times=False, mask_and_scale=False)
        for name, store in stores.items()
    }
    first = next(iter(opened.values()))
    for name, other in opened.items():
        _check_alike(name, other, next(iter(opened)), first)
    parts = [_with_members(one) for one in opened.values()]
    joined = _named(_side_by_side(parts), opened, parts)
    joined.attrs = first.attrs | {"climlstm_provenance": json.dumps(_provenance(opened))}
    for key, field in joined.data_vars.items():
        if "realization" not in field.dims:
            continue
        like = first[key]
        chunks = dict(zip(like.dims, like.encoding["chunks"], strict=True)) | {"realization": 1}
        joined[key] = field.chunk({dim: chunks[dim] for dim in field.dims})
        joined[key].encoding = {"chunks": [chunks[dim] for dim in field.dims]}
    with writing(out), write_whole(out) as begun:
        joined.to_zarr(begun, zarr_format=2, consolidated=True)


def members_of_runs(forecasts: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Forecasts in memory of the same times by several runs, their members in turn.

    Raises DataError where they are not of the same channels, grid and times.
    """
    first_name, first = next(iter(forecasts.items()))
    for name, other in forecasts.items():
        _check_alike(name, other, first_name, first)
    parts = [_with_members(one, after="init_time") for one in forecasts.values()]
    return _named(_side_by_side(parts), forecasts, parts)


def _side_by_side(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    how: dict[str, Any] = {"data_vars": "minimal", "coords": "minimal", "compat": "override"}
    return xr.concat(parts, "realization", join="override", **how)


def _named(joined: xr.Dataset, names: Iterable[str], parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """The members, numbered, with the run of each."""
    runs = [
        n for n, part in zip(names, parts, strict=True) for _ in range(part.sizes["realization"])
    ]
    described = {"standard_name": "realization", "long_name": "member of the ensemble"}
    return joined.assign_coords(
        realization=("realization", np.arange(len(runs)), described),
        run=("realization", np.array(runs, dtype="object"), {"long_name": "run of the member"}),
    )


def _with_members(store: xr.Dataset, *, after: str = "time") -> xr.Dataset:
    """The forecasts with a dimension `realization`, of one member where they have none."""
    if "realization" in store.dims:
        return store.drop_vars("realization", errors="ignore")
    fields = {
        name: field.expand_dims("realization", axis=field.dims.index(after) + 1)
        for name, field in store.data_vars.items()
        if after in field.dims
    }
    return store.assign(fields)


def _check_alike(name: str, other: xr.Dataset, first_name: str, first: xr.Dataset) -> None:
    def differ(what: str) -> DataError:
        return DataError(
            f"Forecasts of '{name}' and '{first_name}' cannot be one ensemble: {what}. Choose runs "
            "that were trained on the same channels, grid and step."
        )

    if set(other.data_vars) != set(first.data_vars):
        ours, theirs = (sorted(map(str, each.data_vars)) for each in (other, first))
        raise differ(f"the first has {', '.join(ours)}, the other {', '.join(theirs)}")
    for key in first.coords:
        if key == "realization":
            continue
        if key not in other.coords or not np.array_equal(other[key].values, first[key].values):
            raise differ(f"they differ in '{key}'")


def _provenance(opened: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Provenance of the first run, with each run's own under `runs`."""
    each = {name: json.loads(one.attrs["climlstm_provenance"]) for name, one in opened.items()}
    members = sum(one.sizes.get("realization", 1) for one in opened.values())
    first = next(iter(each.values()))
    return first | {"ensemble": {"members": members, "runs": list(each)}, "runs": each}
