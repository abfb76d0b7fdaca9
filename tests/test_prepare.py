"""A prepared store holds the cube, opens like any source, and is whole or not there."""

import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from climlstm.config import DataConfig
from climlstm.data.cube.cube import CubePlan, plan_cube
from climlstm.data.estimate import Layout, choose_layout, estimate
from climlstm.data.prepare import _Writer, prepare, restrict
from climlstm.data.sources.origin import open_zarr
from climlstm.data.statistics.compute import STATISTICS, compute_statistics
from climlstm.errors import DataError

PERIODS = {
    "train": ("2020-01-03", "2020-01-20"),
    "valid": ("2020-01-21", "2020-01-25"),
    "test": ("2020-01-26", "2020-01-28"),
}
DATA = DataConfig(
    catalog="-",
    source="-",
    state=("t2m", "z500"),
    static=("orography",),
    step="6h",
    periods=PERIODS,
)


@pytest.fixture
def source(tmp_path) -> xr.Dataset:
    """Thirty days, 3-hourly, south to north, with a level, a hole and a static variable."""
    random = np.random.default_rng(0)
    times = pd.date_range("2020-01-01", "2020-01-31", freq="3h").to_numpy()
    coords = {
        "time": times,
        "level": [500, 850],
        "latitude": np.linspace(-30, 60, 7),
        "longitude": np.arange(0, 40, 5.0),
    }
    z = 5e4 + 1e3 * random.standard_normal((times.size, 2, 7, 8))
    t2m = 280 + 10 * random.standard_normal((times.size, 7, 8))
    t2m[64, 3, 3] = np.nan  # 9 January, 00 UTC
    dataset = xr.Dataset(
        {
            "z": (("time", "level", "latitude", "longitude"), z.astype("float32")),
            "t2m": (("time", "latitude", "longitude"), t2m.astype("float32")),
            "orography": (("latitude", "longitude"), random.random((7, 8)).astype("float32")),
        },
        coords=coords,
    )
    for name, units in (("z", "m2 s-2"), ("t2m", "K"), ("orography", "m2 s-2")):
        dataset[name].attrs["units"] = units
    dataset["orography"].attrs["standard_name"] = "surface_geopotential"
    dataset.chunk(time=16).to_zarr(tmp_path / "source.zarr", consolidated=False)
    return open_zarr(tmp_path / "source.zarr", consolidated=False)


@pytest.fixture
def plan(source, monkeypatch) -> CubePlan:
    """Small chunks, so that there are several shards."""
    monkeypatch.setattr("climlstm.data.estimate.CHUNK_BYTES", 4 * 4 * 7 * 8)
    monkeypatch.setattr("climlstm.data.estimate.SHARD_BYTES", 9 * 4 * 7 * 8)
    return restrict(plan_cube(source, DATA), DATA)


def assert_holds(place: Path, plan: CubePlan) -> xr.Dataset:
    """The store has the values and attributes of the cube, and nothing private to open it."""
    written = xr.open_zarr(place, chunks={})
    xr.testing.assert_identical(
        written.drop_attrs(deep=False).compute(), plan.cube.drop_attrs(deep=False).compute()
    )
    return written


def test_store_holds_the_cube(plan, tmp_path):
    written = assert_holds(prepare(plan, tmp_path / "cube.zarr", data=DATA), plan)
    assert written["t2m"].encoding["chunks"] == (4, 7, 8)
    assert written["t2m"].encoding["shards"] == (8, 7, 8)
    assert written.sizes["time"] == 26 * 4  # 3 to 28 January
    assert written["z500"].attrs["units"] == "m2 s-2"
    assert not list((tmp_path / "cube.zarr").glob(".*"))
    assert not (tmp_path / "cube.zarr.unfinished").exists()


def test_store_is_a_source(plan, tmp_path, monkeypatch):
    """The cube of the prepared store is the cube, and its statistics are inside."""
    prepare(plan, tmp_path / "cube.zarr", data=DATA)
    again = plan_cube(open_zarr(tmp_path / "cube.zarr"), DATA)
    xr.testing.assert_equal(again.cube.compute(), plan.cube.compute())
    train, *others = (DATA.periods.bounds(name) for name in ("train", "valid", "test"))
    asked = {"channels": ("z500", "t2m"), "train": train, "others": others}
    expected = compute_statistics(plan.cube, **asked)
    assert [str(gap.time)[:13] for gap in expected.missing] == ["2020-01-09T00"]
    monkeypatch.setattr(
        "climlstm.data.statistics.compute._compute", lambda *_, **__: pytest.fail("read")
    )
    inside = compute_statistics(again, **asked)
    np.testing.assert_allclose(inside.mean, expected.mean, rtol=1e-7)
    np.testing.assert_allclose(inside.tendency_std, expected.tendency_std, rtol=1e-7)
    assert inside.missing == expected.missing
    with pytest.raises(pytest.fail.Exception, match="read"):  # another period: computed anew
        compute_statistics(again, **asked | {"train": others[0]})


def test_a_store_of_an_earlier_version_is_read_for_its_extremes(plan, tmp_path):
    """Those versions did not look for values that cannot be; the store stays as it is."""
    prepare(plan, tmp_path / "cube.zarr", data=DATA)
    stored = open_zarr(tmp_path / "cube.zarr")
    del stored.attrs[STATISTICS]["extremes"]
    train, *others = (DATA.periods.bounds(name) for name in ("train", "valid", "test"))
    asked = {"channels": ("z500", "t2m"), "train": train, "others": others}
    found = compute_statistics(plan_cube(stored, DATA), **asked)
    assert found.extremes == compute_statistics(plan.cube, **asked).extremes != ()


def test_an_interrupted_preparation_goes_on(plan, tmp_path):
    out = tmp_path / "cube.zarr"
    written = []

    def get_until_it_fails(graph, keys, **_):
        values = dask.get(graph, list(dask.core.flatten(keys))[:5])
        written.extend(values)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(plan, out, data=DATA, scheduler=get_until_it_fails)
    unfinished = tmp_path / "cube.zarr.unfinished"
    assert not out.exists()
    shards = {place: place.stat().st_mtime_ns for place in unfinished.glob("*/c/*/0/0")}
    assert len(shards) == 5
    reports = []
    prepare(plan, out, data=DATA, progress=lambda *report: reports.append(report))
    assert_holds(out, plan)
    kept = [out / place.relative_to(unfinished) for place in shards]
    assert [place.stat().st_mtime_ns for place in kept] == list(shards.values())
    assert reports[-1] == (26, 26)


def test_another_cube_does_not_go_on_with_it(plan, source, tmp_path):
    out = tmp_path / "cube.zarr"
    prepare(plan, out)
    shutil.copytree(out, tmp_path / "other.zarr.unfinished")
    with pytest.raises(DataError, match="unfinished store of other data"):
        prepare(plan, tmp_path / "other.zarr")


def test_nothing_is_overwritten(plan, tmp_path):
    (tmp_path / "cube.zarr").mkdir()
    with pytest.raises(DataError, match=r"something at .* already"):
        prepare(plan, tmp_path / "cube.zarr")


def test_a_disk_too_small_is_refused_before_anything_is_written(plan, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"has only 0\.977 KiB free"):
        prepare(plan, tmp_path / "place" / "cube.zarr")
    assert not list((tmp_path / "place").iterdir())


def test_size_is_predicted(plan, tmp_path):
    expected = estimate(plan)
    prepare(plan, tmp_path / "cube.zarr")
    shards = list((tmp_path / "cube.zarr").glob("*/c/*/0/0"))
    assert expected.files == len(shards) == 26
    assert expected.decoded == 2 * 26 * 4 * 7 * 8 * 4
    assert expected.seconds > 0
    stored = sum(place.stat().st_size for place in shards)
    assert stored == pytest.approx(expected.stored, rel=0.25)  # with the index of each shard


def test_chunks_suit_the_plane():
    assert choose_layout((32, 64), 5000) == Layout(chunk=64, shard=4096)
    assert choose_layout((121, 240), 5000) == Layout(chunk=4, shard=288)
    assert choose_layout((721, 1440), 5000) == Layout(chunk=1, shard=8)
    assert choose_layout((32, 64), 10) == Layout(chunk=10, shard=10)


def test_a_period_without_data_is_refused(source):
    days = {"train": "2031-01-01", "valid": "2031-01-02", "test": "2031-01-03"}
    periods = DATA.periods.model_validate({name: (day, day) for name, day in days.items()})
    later = DATA.model_copy(update={"periods": periods})
    with pytest.raises(DataError, match="no time within the periods"):
        restrict(plan_cube(source, later), later)


@pytest.mark.slow
def test_dask_distributed_writes_the_same_store(plan, tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        prepare(plan, tmp_path / "cube.zarr", data=DATA, scheduler=client.get)
    assert_holds(tmp_path / "cube.zarr", plan)


@pytest.mark.slow
def test_an_executor_of_processes_writes_the_same_store(plan, tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        prepare(plan, tmp_path / "cube.zarr", data=DATA, scheduler=pool)
    assert_holds(tmp_path / "cube.zarr", plan)


def test_an_executor_that_fails_leaves_what_is_written(plan, tmp_path, monkeypatch):
    """Threads stand for workers; the fifth piece fails, and another try goes on."""
    written = []
    write = _Writer.write

    def fail_once(writer, part, shard):
        written.append((part, shard))
        if len(written) == 5:
            raise OSError("the disk has gone")
        write(writer, part, shard)

    monkeypatch.setattr(_Writer, "write", fail_once)
    out = tmp_path / "cube.zarr"
    with ThreadPoolExecutor(1) as pool, pytest.raises(OSError, match="the disk has gone"):
        prepare(plan, out, scheduler=pool)
    assert not out.exists()
    before = len(written)
    with ThreadPoolExecutor(1) as pool:
        prepare(plan, out, scheduler=pool)
    assert len(set(written[before:]) & set(written[:before])) == 1  # the one that failed
    assert_holds(out, plan)


def test_shards_are_plain_zarr(plan, tmp_path):
    """Readable without anything of ours."""
    prepare(plan, tmp_path / "cube.zarr")
    array = zarr.open_array(tmp_path / "cube.zarr" / "t2m", mode="r")
    np.testing.assert_array_equal(array[:], plan.cube["t2m"].values)
