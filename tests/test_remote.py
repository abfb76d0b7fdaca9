"""Remote stores: many requests in flight, tries again, and a cache that several may share."""

import asyncio
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore, WrapperStore

from climlstm.config import DataConfig
from climlstm.data.cube.cube import CubePlan, plan_cube
from climlstm.data.sources.origin import open_zarr
from climlstm.data.statistics.climatology import climatology
from climlstm.data.statistics.compute import compute_statistics
from climlstm.data.store.remote import Cache
from climlstm.data.windows.plan import WindowPlan
from climlstm.data.windows.stream import WindowStream
from climlstm.errors import DataError

PERIODS = {
    "train": ("2020-01-01", "2020-02-10"),
    "valid": ("2020-02-11", "2020-02-12"),
    "test": ("2020-02-13", "2020-02-14"),
}
DATA = DataConfig(catalog="-", source="-", state=("t2m", "msl"), step="6h", periods=PERIODS)


class FarStore(WrapperStore):
    """A local store as if it were far away: slow to answer, and sometimes failing."""

    def __init__(self, store: LocalStore):
        super().__init__(store)
        self.delay = 0.0
        self.failures: dict[str, int] = {}
        """How often the next requests of a key fail."""
        self.silent: set[str] = set()
        """Keys that are never answered."""
        self.asked: list[str] = []
        self.in_flight = self.most_in_flight = 0

    def _with_store(self, store: LocalStore) -> "FarStore":
        return self

    async def get(self, key, prototype, byte_range=None):
        if "/c/" in key:
            self.asked.append(key)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(1000.0 if key in self.silent else self.delay)
            if self.failures.get(key, 0) > 0:
                self.failures[key] -= 1
                raise ConnectionError("the line is dead")
            return await super().get(key, prototype, byte_range)
        finally:
            self.in_flight -= 1


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("climlstm.data.store.remote.PAUSE", 0.001)


@pytest.fixture
def store(tmp_path) -> FarStore:
    """Two channels of 200 steps in chunks of 2: 100 objects each, one of which does not exist."""
    random = np.random.default_rng(0)
    times = pd.date_range("2020-01-01", periods=200, freq="6h").to_numpy()
    coords = {"time": times, "latitude": [60.0, 50, 40], "longitude": np.arange(4.0)}
    source = xr.Dataset(coords=coords)
    for name, units in (("t2m", "K"), ("msl", "Pa")):
        values = random.standard_normal((200, 3, 4)).astype("float32")
        source[name] = (("time", "latitude", "longitude"), values, {"units": units})
    encoding = {name: {"chunks": (2, 3, 4)} for name in source.data_vars}
    source.to_zarr(tmp_path / "far.zarr", encoding=encoding, zarr_format=3, consolidated=False)
    return FarStore(LocalStore(tmp_path / "far.zarr"))


def plan_of(store: FarStore) -> CubePlan:
    return plan_cube(open_zarr(store, consolidated=False), DATA)


def open_stream(plan: CubePlan, **options) -> WindowStream:
    given = {"channels": DATA.state, "history": 2, "horizon": 2, "threads": 2}
    given |= {"mean": np.zeros(2), "std": np.ones(2)}
    return WindowStream(plan, **given | options)


def read_all(stream: WindowStream, expected: np.ndarray, epoch: int = 0) -> None:
    """All windows of an epoch, each compared with what lies on disk."""
    groups = WindowPlan(np.arange(196), batch_size=4, seed=0, segment=11).groups(epoch)
    for starts, window in zip(np.concatenate(groups), stream.windows(groups), strict=True):
        values = expected[starts[:, None] + np.arange(4)]
        np.testing.assert_array_equal(window.history, values[:, :2])
        np.testing.assert_array_equal(window.target, values[:, 2:])


def values_of(store: FarStore) -> np.ndarray:
    """(time, channel, latitude, longitude) as they lie on disk."""
    group = zarr.open_group(store._store, mode="r")
    return np.stack([group[name][:] for name in DATA.state], axis=1)


def test_windows_come_with_many_requests_in_flight(store):
    expected, plan = values_of(store), plan_of(store)
    store.delay = 0.02
    with open_stream(plan, memory=100_000) as stream:
        assert {part.how for part in stream.reader.parts} == {
            "chunks decoded by zarrs, fetched ahead by zarr's own store"
        }
        store.asked.clear()
        read_all(stream, expected)
    assert store.most_in_flight >= 16
    assert len(store.asked) < 2.5 * 200  # halos of short strips are asked for twice


def test_a_cube_that_fits_is_fetched_once(store):
    expected, plan = values_of(store), plan_of(store)
    with open_stream(plan, memory=10**8) as stream:
        store.asked.clear()
        for epoch in range(3):
            read_all(stream, expected, epoch)
    assert len(store.asked) == len(set(store.asked)) == 200


def test_nothing_is_left_on_disk_without_a_cache(store, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    expected, plan = values_of(store), plan_of(store)
    with open_stream(plan, memory=100_000) as stream:
        read_all(stream, expected)
        left = {p.name for p in (tmp_path / "temporary").rglob("*") if p.is_file()}
        assert left == {".alive"}
    assert not list((tmp_path / "temporary").iterdir())


def test_chunks_that_were_never_written_are_missing_values(store, tmp_path):
    (tmp_path / "far.zarr" / "t2m" / "c" / "5" / "0" / "0").unlink()
    plan = plan_of(store)
    train = (pd.Timestamp("2020-01-01"), pd.Timestamp("2020-02-10"))
    statistics = compute_statistics(plan, channels=DATA.state, train=train)
    assert [gap.cells for gap in statistics.missing] == [12, 12]
    normal = climatology(plan, train, channels=DATA.state, unusable=statistics.unusable)
    assert normal.notnull().all()


def test_a_failed_request_is_repeated(store):
    expected, plan = values_of(store), plan_of(store)
    store.failures = {f"t2m/c/{chunk}/0/0": 3 for chunk in range(0, 100, 7)}
    with open_stream(plan, memory=100_000) as stream:
        read_all(stream, expected)
    assert set(store.failures.values()) == {0}


def test_a_request_that_keeps_failing_is_an_error(store):
    expected, plan = values_of(store), plan_of(store)
    store.failures = {"msl/c/50/0/0": 1000}
    with (
        open_stream(plan, memory=100_000) as stream,
        pytest.raises(DataError, match=r"'msl/c/50/0/0' .* cannot be read.*the line is dead"),
    ):
        read_all(stream, expected)


@pytest.mark.timeout(60)
def test_a_failure_ends_the_wait_for_what_does_not_come(store):
    """One task fails while another one waits for an object that is on its way."""
    expected, plan = values_of(store), plan_of(store)
    store.failures, store.silent = {"msl/c/50/0/0": 1000}, {"t2m/c/50/0/0"}
    with (
        open_stream(plan, memory=100_000) as stream,
        pytest.raises(DataError, match="the line is dead"),
    ):
        read_all(stream, expected)


def test_a_cache_spares_the_second_epoch_and_the_next_run(store, tmp_path):
    expected, plan = values_of(store), plan_of(store)
    cache = Cache(tmp_path / "cache", 10**9)
    with open_stream(plan, memory=100_000, remote_cache=cache) as stream:
        store.asked.clear()
        read_all(stream, expected)
        assert len(store.asked) <= 200  # what two strips need is here the second time
        store.asked.clear()
        read_all(stream, expected, epoch=1)
        assert not store.asked
    with open_stream(plan, memory=100_000, remote_cache=Cache(tmp_path / "cache", 10**9)) as stream:
        opened = len(store.asked)  # what zarr-python is asked for, to compare with
        read_all(stream, expected, epoch=2)
        assert len(store.asked) == opened


@pytest.mark.slow
def test_a_cache_does_not_grow_beyond_its_limit(store, tmp_path):
    """Two streams throw out what the other has just fetched, and neither notices."""
    expected, plan = values_of(store), plan_of(store)
    size = Path(tmp_path / "far.zarr/t2m/c/5/0/0").stat().st_size
    caches = [Cache(tmp_path / "cache", 20 * size) for _ in range(2)]
    with (
        open_stream(plan, memory=100_000, remote_cache=caches[0]) as one,
        open_stream(plan, memory=100_000, remote_cache=caches[1]) as other,
    ):
        for epoch in range(3):
            read_all(one, expected, epoch)
            read_all(other, expected, epoch + 1)
    kept = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.name != ".cache.lock"]
    assert 5 * size < sum(place.stat().st_size for place in kept) <= 20 * size
    assert not list((tmp_path / "cache").glob(".reading-*"))


def fill(folder: Path, remote: Path, seed: int) -> int:
    """In a process of its own: read all windows, in an order of its own, through the cache."""
    store = FarStore(LocalStore(remote))
    expected, plan = values_of(store), plan_of(store)
    size = (remote / "t2m/c/5/0/0").stat().st_size
    with open_stream(plan, memory=100_000, remote_cache=Cache(folder, 40 * size)) as stream:
        for epoch in range(seed, seed + 2):
            read_all(stream, expected, epoch)
    return len(store.asked)


@pytest.mark.slow
def test_processes_share_a_cache(store, tmp_path):
    """Three throw out what the others have just fetched, and all get the right values."""
    cache, far = tmp_path / "cache", tmp_path / "far.zarr"
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        asked = list(pool.map(fill, [cache] * 3, [far] * 3, [0, 1, 2]))
    assert min(asked) > 0
    size = (far / "t2m/c/5/0/0").stat().st_size
    kept = [p for p in cache.rglob("*") if p.is_file() and p.name != ".cache.lock"]
    assert 0 < sum(place.stat().st_size for place in kept) <= 40 * size
    assert not list(cache.glob(".reading-*"))


def test_what_a_killed_process_was_reading_is_deleted(store, tmp_path):
    cache = tmp_path / "cache"
    dead = cache / ".reading-dead"
    (dead / "c").mkdir(parents=True)
    (dead / "c" / "0").write_bytes(b"x")
    (dead / ".alive").touch()
    plan = plan_of(store)
    with open_stream(plan, memory=100_000, remote_cache=Cache(cache, 10**9)):
        assert not dead.exists()
        alive = set(cache.glob(".reading-*"))
        assert len(alive) == 2
        with open_stream(plan, memory=100_000, remote_cache=Cache(cache, 10**9)):
            assert alive < set(cache.glob(".reading-*"))  # those who live keep theirs
    assert not list(cache.glob(".reading-*"))


def test_another_array_under_the_same_keys_is_not_confused(store, tmp_path):
    """What identifies an object is store, array and its metadata, not its key alone."""
    cache = Cache(tmp_path / "cache", 10**9)
    arrays = [zarr.open_array(store, path=name, mode="r") for name in DATA.state]
    assert cache.shelf(arrays[0]).folder != cache.shelf(arrays[1]).folder
    assert cache.shelf(arrays[0]).folder == cache.shelf(arrays[0]).folder
