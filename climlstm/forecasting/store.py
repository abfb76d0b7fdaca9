"""Forecast stores: Zarr in the layout of WeatherBench, written in parts and opened when whole.

A rollout of many steps is written as it comes."""

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import torch
import xarray as xr

from climlstm.data.forecasts import DONE, written
from climlstm.data.weatherbench import LEADS, to_weatherbench
from climlstm.errors import CheckpointError, DataError, OutputError
from climlstm.files import write_whole, writing
from climlstm.forecasting.ensemble import Ensemble, Times
from climlstm.forecasting.forecast import labelled, lead_axis
from climlstm.forecasting.outside import Outside
from climlstm.forecasting.rollout import FIRST, Going, leads_together, rollout
from climlstm.model.forecaster import Forecaster
from climlstm.model.saving import read_tensors, write_tensors
from climlstm.version import __version__

logger = logging.getLogger(__name__)

ALONE = ("time", "realization", "level")
"""Dimensions along which each place has chunks of its own."""

LEAD_DIMS = (LEADS, "lead_time")

CHUNK_BYTES = 1 << 26
"""Largest chunk, about: codecs take no 2 GiB, which years of steps would fill."""

REQUEST = ".request.json"
GOING = ".going"
"""Folder in `STORE.part`: what rollouts under way go on from, a file each."""
INITS = "inits"
"""Name in these files of the positions of their initialisations."""

KEPT_EVERY_S = 60.0
"""Seconds between two times that a rollout keeps what it goes on from."""


def write_forecasts(
    store: Path,
    forecaster: Forecaster,
    cube: xr.Dataset,
    *,
    init_times: Times,
    steps: int,
    provenance: dict[str, Any],
    batch_size: int = 16,
    ensemble: Ensemble = Ensemble(members=1),  # noqa: B008 (it is frozen)
    outside: Outside = Outside(),  # noqa: B008 (it is frozen)
    progress: Callable[[float], None] | None = None,
    executor: Executor | None = None,
    device: str = "cpu",
) -> None:
    """Forecast into one Zarr in WeatherBench's layout, which appears when it is complete.

    Until then it grows in `STORE.part`, one region an initialisation or, where these are long, some
    of its lead steps; the same call after an interruption goes on there.
    batch_size, ensemble, outside: as in `forecast_batches`.
    progress: gets the number of initialisations that have been written, with parts of others.
    executor: forecasts a batch with each call, in any order, on hosts that see the store and the
        cube's source under the same names; None: this process.
    device: where the network runs, there.
    Raises DataError where the store exists already, or given channels end too early.
    """
    if store.exists():
        raise DataError(f"{store} exists already. Give another --out, or delete it.")
    outside.check(forecaster.spec, cube, init_times, steps)
    part = store.with_name(store.name + ".part")
    request = {
        "forecaster": provenance.get("digest"),
        "init_times": [str(t) for t in init_times],
        "steps": steps,
        "ensemble": ensemble.description,
    }
    if not is_same_request(part, request):
        _clear(part)
        provenance = provenance | {"ensemble": ensemble.description}
        with writing(store), write_whole(part) as begun:
            _write_skeleton(begun, forecaster, init_times, steps, ensemble.members, provenance)
            (begun / REQUEST).write_text(json.dumps(request), encoding="utf-8")
    done = written(part)
    if done:
        logger.info("going on with %s: %d of %d are there", part, len(done), len(init_times))
    batches = _batches(part, init_times, done, batch_size)
    given: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "ensemble": ensemble}
    given |= {"outside": outside, "device": device}
    if progress and executor is None:
        given["progress"] = lambda share: progress(len(done) + share)
    write = partial(_write_batch, part.resolve(), init_times, forecaster.cpu(), cube, **given)
    with _finished(executor, write, batches) as finished:
        for batch in finished:
            _note(part, batch)
            done |= {str(t) for t in batch}
            if progress:
                progress(len(done))
    _complete(part, store)


def _complete(part: Path, store: Path) -> None:
    """Give a store its name, without what tells how far it was."""
    for marker in (REQUEST, DONE):
        (part / marker).unlink(missing_ok=True)
    shutil.rmtree(part / GOING, ignore_errors=True)
    os.replace(part, store)


@contextmanager
def _finished(
    executor: Executor | None, write: Callable[[Times], Times], batches: Sequence[Times]
) -> Iterator[Iterator[Times]]:
    """Batches as they are written, here or by an executor; what is not begun is given up."""
    if executor is None:
        yield map(write, batches)
        return
    futures = [executor.submit(write, batch) for batch in batches]
    try:
        yield (future.result() for future in as_completed(futures))
    finally:
        for future in futures:
            future.cancel()


def _write_skeleton(
    part: Path,
    forecaster: Forecaster,
    init_times: Times,
    steps: int,
    members: int,
    provenance: dict[str, Any],
) -> None:
    """Coordinates and attributes, and no values yet, so that each region can be written alone."""
    spec, starts = forecaster.spec, (1,) if members == 1 else (1, members)
    grid = spec.grid.shape
    one = labelled(torch.zeros(*starts, 1, len(spec.channels), *grid), spec, init_times[:1])
    shape = (len(init_times), *starts[1:], steps, *grid)
    lazy = da.full(shape, np.nan, dtype="float32", chunks=shape)  # never computed
    template = xr.Dataset(
        {name: (field.dims, lazy, field.attrs) for name, field in one.items()},
        one.drop_vars("lead_time").coords.assign(
            init_time=init_times, lead_time=lead_axis(spec.step, 0, steps)
        ),
        attrs=one.attrs
        | {
            "Conventions": "CF-1.11",
            "source": f"climlstm {__version__}, network {spec.network}",
            "climlstm_provenance": json.dumps(provenance),
        },
    )
    stored = to_weatherbench(template)
    encoding = encoding_of(stored, leads_together(forecaster, steps))
    stored.to_zarr(part, compute=False, zarr_format=2, consolidated=True, encoding=encoding)


def encoding_of(stored: xr.Dataset, together: int | None = None) -> dict[Hashable, dict[str, Any]]:
    """Chunks of one initialisation, member and level each; times in seconds.

    together: lead times that are written at once; None: all.
    """
    encoding: dict[Hashable, dict[str, Any]] = {
        name: {"chunks": _chunks(field, together)} for name, field in stored.items()
    }
    encoding["time"] = {"units": "seconds since 1970-01-01", "dtype": "int64"}
    for name in {"valid_time", "valid_time_bnds"} & set(stored.coords):
        encoding[name] = encoding["time"] | {"chunks": stored[name].shape}
    return encoding


def _chunks(field: xr.DataArray, together: int | None) -> list[int]:
    """Sizes of chunks: whole fields of as many lead times as fit into `CHUNK_BYTES`."""
    cells = {d: n for d, n in field.sizes.items() if d not in (*ALONE, *LEAD_DIMS)}
    leads = max(1, CHUNK_BYTES // (4 * math.prod(cells.values())))
    leads = min(leads, together or leads)
    sizes = {d: 1 if d in ALONE else min(n, leads) for d, n in field.sizes.items()} | cells
    return [sizes[d] for d in field.dims]


def _batches(part: Path, init_times: Times, done: set[str], batch_size: int) -> list[Times]:
    """Batches that are left to forecast: those under way as they were begun, then others."""
    kept = [_read(path) for path in sorted((part / GOING).glob("*.safetensors"))]
    begun = [init_times[going[INITS].numpy()] for going in kept]
    begun = [batch for batch in begun if not done & {str(t) for t in batch}]
    done = done | {str(t) for batch in begun for t in batch}
    left = np.array([t for t in init_times if str(t) not in done], dtype=init_times.dtype)
    return begun + [left[first : first + batch_size] for first in range(0, left.size, batch_size)]


def _read(kept: Path) -> Going:
    """Raises CheckpointError where the file is damaged."""
    try:
        return read_tensors(kept)
    except CheckpointError as error:
        raise CheckpointError(f"{error} Delete it; its forecasts begin anew then.") from error


def _write_batch(
    part: Path,
    init_times: Times,
    forecaster: Forecaster,
    cube: xr.Dataset,
    batch: Times,
    *,
    device: str,
    steps: int,
    progress: Callable[[float], None] | None = None,
    **options: Any,
) -> Times:
    """Forecast from a batch of the initial times into a store; returns the batch."""
    places = torch.tensor([int(np.flatnonzero(init_times == init)[0]) for init in batch])
    kept = part / GOING / f"{places[0]}.safetensors"
    going, saved = _read(kept) if kept.exists() else None, time.monotonic()
    options |= {"steps": steps, "going": going}
    for forecasts, going in rollout(forecaster.to(device), cube, batch, **options):
        last = int(going[FIRST])
        with writing(part):
            _write_region(part, forecasts, init_times, last)
            if last < steps and time.monotonic() - saved >= KEPT_EVERY_S:
                with write_whole(kept) as written:
                    write_tensors(written, going | {INITS: places})
                saved = time.monotonic()
        if progress:
            progress(len(batch) * last / steps)
    return batch


def _write_region(part: Path, forecasts: xr.Dataset, init_times: Times, last: int) -> None:
    """Write lead steps of some initialisations, each in chunks of its own.

    last: number of the last lead step.
    """
    for init in forecasts["init_time"].values:
        position = int(np.flatnonzero(init_times == init)[0])
        one = to_weatherbench(forecasts.sel(init_time=[init]))
        along = "lead_time" if "lead_time" in one.dims else LEADS
        region = {
            "time": slice(position, position + 1),
            along: slice(last - one.sizes[along], last),
        }
        one.drop_vars(list(one.coords)).to_zarr(part, region=region, zarr_format=2)


def _note(part: Path, inits: Times) -> None:
    """Record initialisations as written; called in one process, whichever writes them."""
    with (part / DONE).open("a", encoding="utf-8") as file:
        file.writelines(f"{init}\n" for init in inits)


def _clear(part: Path) -> None:
    """Delete the beginning of another forecast. Raises OutputError where it is none of ours."""
    if not part.exists():
        return
    if not (part / REQUEST).is_file():
        raise OutputError(
            f"'{part}' is in the way, and no forecast that climlstm has begun. Move it away, or "
            "give another --out."
        )
    logger.warning("deleting %s: it holds %d starts of another forecast", part, len(written(part)))
    with writing(part):
        shutil.rmtree(part)


def is_same_request(part: Path, request: dict[str, Any]) -> bool:
    """Whether what a folder holds was begun for the same request."""
    try:
        return bool(json.loads((part / REQUEST).read_text(encoding="utf-8")) == request)
    except (OSError, ValueError):
        return False
