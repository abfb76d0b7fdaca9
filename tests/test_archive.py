"""A run uses little of a great archive, and costs by what it uses."""

import pickle

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

import climlstm
from climlstm.config import DataConfig
from climlstm.data.cube.cube import plan_cube
from climlstm.data.sources import origin
from climlstm.data.sources.origin import open_zarr
from climlstm.data.store.stored_part import make_parts

HOURS = 50_000
USED = {"t2m": "K", "msl": "Pa"}
PERIODS = {
    "train": ("2000-01-01", "2003-12-31"),
    "valid": ("2004-01-01", "2004-12-31"),
    "test": ("2005-01-01", "2005-06-30"),
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Metadata of 40 variables in hourly chunks, of which a run uses two."""
    place = tmp_path_factory.mktemp("archive") / "a.zarr"
    group = zarr.open_group(place, mode="w", zarr_format=2)
    axes = {
        "time": (np.arange(HOURS), "hours since 2000-01-01"),
        "latitude": (np.linspace(60, 30, 4), "degrees_north"),
        "longitude": (np.arange(8) * 5.0, "degrees_east"),
    }
    for name, (values, units) in axes.items():
        axis = group.create_array(name, data=values, fill_value=-999)
        axis.attrs.update({"_ARRAY_DIMENSIONS": [name], "units": units})
    names = [*USED, *(f"unused_{number}" for number in range(38))]
    for name in names:
        array = group.create_array(
            name, shape=(HOURS, 4, 8), chunks=(1, 4, 8), dtype="float32", fill_value=np.nan
        )
        units = USED.get(name, "1")
        array.attrs.update({"_ARRAY_DIMENSIONS": list(axes), "units": units})
    zarr.consolidate_metadata(place)
    return place


def plan_of(source, step="6h"):
    given = {"catalog": "-", "source": "-", "state": tuple(USED), "step": step}
    return plan_cube(source, DataConfig(**given, periods=PERIODS))


def test_only_used_variables_become_dask_arrays(archive, monkeypatch):
    made = []
    from_array = da.from_array
    monkeypatch.setattr(da, "from_array", lambda *a, **k: made.append(k) or from_array(*a, **k))
    source = open_zarr(archive)
    assert len(source.data_vars) == 40
    cube = plan_of(source).cube
    assert len(made) == 2
    assert cube["t2m"].chunks == ((1,) * (-(-HOURS // 6)), (4,), (8,))
    (three,) = dask.optimize(cube["t2m"][:3].data)
    assert len(three.__dask_graph__()) < 10  # not one task a chunk


def test_workers_get_no_more_for_variables_that_they_do_not_use(archive):
    plan = plan_of(open_zarr(archive))
    assert set(plan.source.data_vars) == set(USED)
    lean = plan_of(open_zarr(archive, drop_variables=[f"unused_{n}" for n in range(38)]))
    assert len(pickle.dumps(plan)) <= 1.01 * len(pickle.dumps(lean))
    assert len(pickle.dumps(plan)) < 24 * HOURS + 20_000  # times, and which of them are taken


def test_opening_reads_nothing_but_axes(archive, monkeypatch):
    opened = []
    monkeypatch.setattr(
        origin.Origin,
        "open",
        lambda self: opened.append(self.path) or zarr.open_array(archive / self.path),
    )
    plan = plan_of(open_zarr(archive))
    assert plan.cube.sizes["time"] == -(-HOURS // 6)
    assert opened == []
    parts = make_parts(plan, tuple(USED))
    assert opened == list(USED)
    assert all(part.how.startswith("chunks decoded by zarrs") for part in parts)


def test_long_records_have_a_bounded_number_of_tasks(archive, monkeypatch):
    monkeypatch.setattr("climlstm.data.cube.cube.MAX_TASKS", 1000)
    cube = plan_of(open_zarr(archive), step="1h").cube
    assert cube["t2m"].chunks[0] == (50,) * 1000


def test_inspecting_names_the_channels_without_a_message_for_each_that_is_missing(
    archive, monkeypatch
):
    described = []
    monkeypatch.setattr(
        "climlstm.data.cube.matching.listed", lambda *_: described.append(1) or "many"
    )
    found = climlstm.inspect(str(archive))
    assert set(USED) < set(found.channels)
    assert (
        found.reading.decoded <= 512 * 4 * 8 * 4
    )  # few of the 2 million chunks, small as they are
    assert described == []


def test_chunks_keep_their_place_after_a_cut(archive):
    """Chunks of a part are counted from the beginning of the store."""
    source = xr.Dataset(
        {"t2m": (("time", "x"), np.zeros((100, 2), "f4"))}, coords={"time": np.arange(100)}
    )
    place = archive.parent / "chunked.zarr"
    source.to_zarr(place, encoding={"t2m": {"chunks": (10, 2)}}, consolidated=False)
    opened = open_zarr(place, consolidated=False)
    cut = origin.follow(opened, lambda s: s.isel(time=slice(7, 33)).rename(time="day"))
    chunks = origin.chunks_along(cut["t2m"].variable, "day")
    assert origin.run_lengths(chunks.holding(np.arange(26))) == (3, 10, 10, 3)
    assert chunks.points(np.array([0, 1])) == 13
    assert origin.as_dask(cut)["t2m"].chunks == ((3, 10, 10, 3), (2,))
