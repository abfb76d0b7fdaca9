"""Hostile and unlucky input: one clear error or the right result, never a crash or an escape."""

import contextlib
import json
import time

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
import zarr

from climlstm.config import Config, load_config
from climlstm.data.cube.cube import plan_cube
from climlstm.data.statistics.compute import compute_statistics
from climlstm.data.windows.starts import valid_starts
from climlstm.errors import ClimLSTMError, ConfigError, DataError
from climlstm.runs import check_run, open_cube
from climlstm.steps import Step
from climlstm.training import checkpoint
from climlstm.training.loop import run_training

RUN = {
    "name": "small",
    "data": {
        "catalog": "catalog.yaml",
        "source": "s",
        "step": "6h",
        "state": ["t2m"],
        "periods": {
            "train": ["2001-01-01", "2001-01-20"],
            "valid": ["2001-01-21", "2001-01-25"],
            "test": ["2001-01-26", "2001-01-30"],
        },
    },
    "model": {"options": {"hidden": [4]}},
    "training": {"horizon": 1, "epochs": 1, "batch_size": 4, "precision": "float32", "threads": 1},
}


# Run files.


def write_run(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text) if isinstance(text, str) else path.write_bytes(text)
    return path


def places(content, path=()):
    """Every key of nested dictionaries."""
    for key, value in content.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


WRONG = [None, [], {}, "", -1, 10**400, float("nan"), [[]], {"a": {}}, "\x00", True, "../../x"]


@pytest.mark.parametrize("place", list(places(RUN)), ids=".".join)
def test_a_run_file_with_anything_in_the_place_of_anything(tmp_path, place):
    """It loads where the value is possible there, and is else a ConfigError."""
    for value in WRONG:
        content = json.loads(json.dumps(RUN))
        section = content
        for key in place[:-1]:
            section = section[key]
        section[place[-1]] = value
        path = write_run(tmp_path, yaml.safe_dump(content))
        if place[-1] in ("data", "periods", "step", "train", "name"):
            with pytest.raises(ConfigError):
                load_config(path)
        else:
            with contextlib.suppress(ConfigError):
                assert isinstance(load_config(path), Config)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\xff\xfe\x00name", "cannot be read"),
        (b"name: \x00", "not valid YAML"),
        ("name: !!python/name:os.system\n", "not valid YAML"),
        ("name: !include /etc/passwd\n", "not valid YAML"),
        ("name: a\nname: b\n", "stands there twice"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: &a {b: *a}", "unfolds to more than"),
        ("a: " + "9" * 10000, "not valid YAML"),
        ("# " + "x" * 4_000_001, "larger than 4000 kB"),
    ],
)
def test_texts_that_are_no_run_file(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        load_config(write_run(tmp_path, text))


@pytest.mark.parametrize(
    "bomb", ["[{}]", "{{<<: [{}]}}"], ids=["billion laughs", "merges of merges"]
)
def test_a_flood_of_aliases_is_refused_before_it_unfolds(tmp_path, bomb):
    first = "[x, x]" if bomb == "[{}]" else "{k: v}"
    lines = [f"a0: &a0 {first}"]
    for level in range(1, 30):
        body = bomb.format(", ".join([f"*a{level - 1}"] * 9))
        lines.append(f"a{level}: &a{level} {body}")
    path = write_run(tmp_path, "\n".join(lines))
    began = time.process_time()
    with pytest.raises(ConfigError, match="unfolds to more than"):
        load_config(path)
    with pytest.raises(ConfigError, match="unfolds to more than"):
        load_config(write_run(tmp_path, yaml.safe_dump(RUN)), ["model.options=&a [*a]"])
    assert time.process_time() - began < 5


def test_moments_with_a_time_zone_become_utc(tmp_path):
    content = json.loads(json.dumps(RUN))
    content["data"]["periods"]["valid"] = ["2001-01-21T02:00+02:00", "2001-01-25T23:00Z"]
    start, stop = load_config(write_run(tmp_path, yaml.safe_dump(content))).data.periods.bounds(
        "valid"
    )
    assert (start, stop) == (pd.Timestamp("2001-01-21T00"), pd.Timestamp("2001-01-25T23"))


# Sources.


def make_source(days=30, **coords):
    times = np.arange(days * 4) * np.timedelta64(6, "h") + np.datetime64("2001-01-01", "ns")
    values = 280 + np.random.default_rng(0).standard_normal((times.size, 8, 16))
    dims = ("time", "latitude", "longitude")
    return xr.Dataset(
        {"t2m": (dims, values.astype("float32"), {"units": "K"})},
        {
            "time": times,
            "latitude": np.linspace(78.75, -78.75, 8),
            "longitude": np.arange(16) * 22.5,
        }
        | coords,
    )


def run_on(tmp_path, source, *, zarr_format=3, time_chunk=8, chunks=None, **options):
    """A run on a source that is written as Zarr; also the folder of that."""
    store = tmp_path / "s.zarr"
    source.to_zarr(
        store,
        zarr_format=zarr_format,
        consolidated=False,
        encoding={"t2m": {"chunks": chunks or (min(time_chunk, source.sizes["time"]), 8, 16)}},
        **options,
    )
    (tmp_path / "catalog.yaml").write_text(
        "sources:\n  s: {driver: zarr, args: {urlpath: '{{ CATALOG_DIR }}/s.zarr'}}\n"
    )
    return load_config(write_run(tmp_path, yaml.safe_dump(RUN))), store


def chunks_of(store):
    return sorted(p for p in (store / "t2m").rglob("*") if p.is_file() and p.name != "zarr.json")


def test_a_clean_store_trains(tmp_path):
    config, _ = run_on(tmp_path, make_source())
    run_training(config)
    assert checkpoint.latest_checkpoint(tmp_path / "runs" / "small")


def test_missing_chunks_become_gaps(tmp_path):
    config, store = run_on(tmp_path, make_source())
    chunks_of(store)[0].unlink()  # eight steps, now fill values
    cube = open_cube(config.data)
    bounds = config.data.periods.bounds
    statistics = compute_statistics(cube, channels=["t2m"], train=bounds("train"))
    absent = np.isnan(cube["t2m"].values).all(axis=(1, 2)).sum()
    assert absent == 8
    assert statistics.unusable.size == 8
    starts = valid_starts(
        cube["time"].values, length=3, step=Step.parse("6h"), unusable=statistics.unusable
    )
    assert (
        starts.min() == 8 or not np.intersect1d(starts[:, None] + np.arange(3), np.arange(8)).size
    )
    run_training(config)


def test_truncated_and_flipped_bytes_are_noticed(tmp_path):
    """Zarr's zstd frames carry no checksum of their own by default; a crc32c codec does."""
    source = make_source()
    codecs = [zarr.codecs.ZstdCodec(checksum=True), zarr.codecs.Crc32cCodec()]
    encoding = {"t2m": {"chunks": (8, 8, 16), "compressors": codecs}}
    source.to_zarr(tmp_path / "s.zarr", consolidated=False, encoding=encoding)
    (tmp_path / "catalog.yaml").write_text(
        "sources:\n  s: {driver: zarr, args: {urlpath: '{{ CATALOG_DIR }}/s.zarr'}}\n"
    )
    config = load_config(write_run(tmp_path, yaml.safe_dump(RUN)))
    chunk = chunks_of(tmp_path / "s.zarr")[3]
    whole = chunk.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for spoilt in (whole[: len(whole) // 2], bytes(flipped), b""):
        chunk.write_bytes(spoilt)
        with pytest.raises(DataError, match="'t2m' cannot be read"):
            run_training(config)
        assert checkpoint.latest_checkpoint(tmp_path / "runs" / "small") is None
    chunk.write_bytes(whole)
    run_training(config)


@pytest.mark.parametrize(
    "shape",
    [[10**12, 8, 16], [2**40, 2**20, 2**10], [0, 8, 16], [-1, 8, 16], [3, 8, 16]],
    ids=["beyond memory", "beyond bytes", "none", "negative", "other than written"],
)
def test_chunk_sizes_that_lie(tmp_path, shape):
    """Nothing of the size that the metadata claim is allocated for what is not there."""
    config, store = run_on(tmp_path, make_source())
    path = store / "t2m" / "zarr.json"
    content = json.loads(path.read_text())
    content["chunk_grid"]["configuration"]["chunk_shape"] = shape
    path.write_text(json.dumps(content))
    with pytest.raises(ClimLSTMError, match=r"cannot be (read|opened)"):
        run_training(config)
    assert not check_run(config).passed


@pytest.mark.slow
def test_a_chunk_for_every_value(tmp_path):
    config, _ = run_on(tmp_path, make_source(), chunks=(1, 1, 1))
    run_training(config)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_leave_their_steps_out(tmp_path, value):
    source = make_source()
    source["t2m"][10, 3, 5] = value
    config, _ = run_on(tmp_path, source)
    cube = open_cube(config.data)
    statistics = compute_statistics(
        cube, channels=["t2m"], train=config.data.periods.bounds("train")
    )
    assert np.isfinite([statistics.mean, statistics.std, statistics.tendency_std]).all()
    assert list(statistics.unusable) == [source["time"].values[10]]
    run_training(config)


def test_one_time_step_and_none(tmp_path):
    for number, says in ((1, "holds no window"), (0, "is empty")):
        folder = tmp_path / str(number)
        folder.mkdir()
        source = make_source().isel(time=slice(number))
        if number == 0:
            source = make_source(days=1).isel(time=slice(1))
        config, store = run_on(folder, source)
        if number == 0:
            for name in ("t2m", "time"):
                array = zarr.open_group(store, mode="r+")[name]
                array.resize((0, *array.shape[1:]))
        with pytest.raises(DataError, match=says):
            run_training(config)
        assert not check_run(config).passed


@pytest.mark.parametrize(
    ("axis", "order", "says"),
    [
        ("time", [0, 2, 1, *range(3, 120)], "not in order"),
        ("time", [0, 1, 1, *range(2, 120)], "more than once"),
        ("latitude", [0, 2, 1, 3, 4, 5, 6, 7], "neither rise nor fall"),
        ("longitude", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], "not evenly spaced|region"),
    ],
)
def test_axes_that_are_not_monotonic(tmp_path, axis, order, says):
    source = make_source().isel({axis: order})
    if axis == "longitude":
        source["longitude"] = [0, 22.5, 45, 67.5, 90, 100, 150, 160, 200, 250, 290, 300, 310, 350]
    config = Config.model_validate(RUN)
    with pytest.raises(DataError, match=says):
        plan_cube(source.chunk(), config.data)


def test_longitudes_of_359_99(tmp_path):
    source = make_source()
    source["longitude"] = (np.arange(16) * 22.5 - 0.01) % 360
    cube = plan_cube(source.chunk(), Config.model_validate(RUN).data).cube
    assert (np.diff(cube["longitude"]) > 0).all()
    np.testing.assert_allclose(np.diff(cube["longitude"]), 22.5, atol=1e-4)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian", "all_leap"])
def test_calendars_of_models_are_taken_as_they_are(tmp_path, calendar):
    source = make_source()
    source["time"] = xr.date_range("2001-01-01", periods=120, freq="6h", calendar=calendar,
                                   use_cftime=True)  # fmt: skip
    config, _ = run_on(tmp_path, source)
    assert list(open_cube(config.data)["time"].values) == list(source["time"].values)
    assert check_run(config).digest


@pytest.mark.parametrize("dtype", ["int16", "float64", "complex64", "S3", "bool"])
def test_values_of_another_type(tmp_path, dtype):
    source = make_source()
    source["t2m"] = source["t2m"].round().astype(dtype).assign_attrs(units="K")
    config = Config.model_validate(RUN)
    if dtype in ("int16", "float64", "bool"):
        cube = plan_cube(source.chunk(), config.data).cube
        assert cube["t2m"].dtype == "float32"
        np.testing.assert_array_equal(cube["t2m"], source["t2m"].astype("float32"))
    else:
        with pytest.raises(DataError, match=r"'t2m'.*(numbers|type)"):
            plan_cube(source.chunk(), config.data)


def test_a_source_of_20000_channels(tmp_path):
    source = make_source(days=2)
    many = xr.Dataset(
        {f"x{number}": source["t2m"].variable for number in range(20_000)} | {"t2m": source["t2m"]},
        source.coords,
    )
    config = Config.model_validate(RUN)
    began = time.process_time()
    cube = plan_cube(many, config.data).cube
    assert list(cube.data_vars) == ["t2m"]
    absent = config.data.model_copy(update={"state": ("msl",)})
    with pytest.raises(DataError) as error:
        plan_cube(many, absent)
    assert len(str(error.value)) < 5000
    assert time.process_time() - began < 20
