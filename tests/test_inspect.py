"""A first look at sources: what it shows of variables, times, grid, channels and problems."""

import json
import subprocess
import sys

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.data.cube.matching import find_fields
from climlstm.data.inspect import inspect
from climlstm.data.words import describe_times
from climlstm.errors import CatalogError


def small(times=("2020-01-01T00", "2020-01-01T06", "2020-01-01T12", "2020-01-02T00"), units="K"):
    """Temperature at 2 m and geopotential at two levels on 2 x 3 cells."""
    shape = (len(times), 2, 3)
    t2m = (("time", "latitude", "longitude"), np.zeros(shape, "float32"), {"units": units})
    z = np.zeros((len(times), 2, 2, 3), "float32")
    return xr.Dataset(
        {"t2m": t2m, "z": (("time", "level", "latitude", "longitude"), z, {"units": "m2 s-2"})},
        {
            "time": np.array(times, "M8[ns]"),
            "level": ("level", [850, 500], {"units": "hPa"}),
            "latitude": [10.0, 0.0],
            "longitude": [0.0, 10.0, 20.0],
        },
    )


def test_an_open_dataset_says_what_it_holds():
    found = inspect(small())
    assert str(found.times) == (
        "2020-01-01 00:00 to 2020-01-02 00:00, 4 times, every 6h, but for 1 gap: "
        "2020-01-01 12:00 to 2020-01-02 00:00"
    )
    assert found.grid == "2 × 3 cells, 10°, 10 to 0 degrees north, 0 to 20 degrees east"
    assert found.channels == {"t2m": "t2m", "z500": "z", "z850": "z"}
    assert found.problems == ()
    text = repr(found)
    assert "channels: t2m, z850, z500" in text
    assert "time 4 × level 2 × latitude 2 × longitude 3 (850, 500 hPa)" in text
    assert "<td>m2 s-2</td>" in found._repr_html_()


def test_an_archive_of_many_variables_is_not_described_again_for_each(monkeypatch):
    """The list of variables that an error has takes longer than all else where there are many."""
    many, described = small(), []
    many = many.assign({f"variable_{i}": many["z"] for i in range(30)})
    for module in ("chosen", "matching"):
        monkeypatch.setattr(
            f"climlstm.data.cube.{module}.listed", lambda *_: described.append(1) or "many"
        )
    assert {"t2m", "z500", "z850"} <= set(inspect(many).channels)
    assert len(described) < 100  # for those of ours that it lacks


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (pd.date_range("2020-01-01", periods=14, freq="MS"), "monthly"),
        (pd.date_range("2020-01-31", periods=14, freq="QE"), "every 3 months"),
        (pd.date_range("1990-07-01", periods=9, freq="YS-JUL"), "yearly"),
        (pd.date_range("2020-01-01", periods=9, freq="D"), "daily"),
        (pd.date_range("2020-01-01", periods=9, freq="h"), "hourly"),
        (pd.date_range("2020-01-01", periods=9, freq="5min"), "every 5min"),
        (["2020-01-01"], "a single time"),
    ],
)
def test_steps_have_names(times, words):
    facts = describe_times(xr.DataArray(np.array(times, "M8[ns]"), dims="time"))
    assert facts.words == words
    assert facts.gaps == ()


@pytest.mark.parametrize(("freq", "step"), [("MS", "monthly"), ("D", "daily"), ("6h", "every 6h")])
@pytest.mark.parametrize("calendar", ["noleap", "360_day", "julian"])
def test_other_calendars_are_named(freq, step, calendar):
    times = xr.date_range("1850-01-01", periods=400, freq=freq, calendar=calendar, use_cftime=True)
    facts = describe_times(xr.DataArray(times, dims="time"))
    assert facts.words == f"{step}, {calendar}"
    assert (facts.first, facts.gaps) == ("1850-01-01 00:00", ())
    facts = describe_times(xr.DataArray(times.delete(7), dims="time"))
    assert len(facts.gaps) == 1


def test_missing_values_are_counted_and_reading_is_timed():
    source = small()
    source["t2m"][:, :, 0] = np.nan
    found = inspect(source)
    [t2m] = [each for each in found.variables if each.name == "t2m"]
    assert t2m.missing == pytest.approx(1 / 3)
    assert "33% missing" in repr(found)
    assert str(found.reading) == (
        "288 B in memory; read once in less than a second (192 B tried); a chunk holds 1 step"
    )


def test_a_variable_that_may_be_one_of_ours_is_told_with_the_line_that_works(write_entry):
    source = small().rename(t2m="temp")
    source["temp"].attrs["long_name"] = "temperature at 2 m"
    found = inspect(source)
    assert "temp" in found.channels
    assert "t2m" not in found.channels
    [problem] = found.hints
    line = problem.split("metadata: ")[1].strip("'.")
    assert line == "variables: {temp: {name: t2m}}"
    assert "t2m" in inspect(f"{write_entry('{' + line + '}', source)}:a").channels


def test_a_variable_that_cannot_be_used_is_told_with_the_remedy():
    found = inspect(small(units="furlong"))
    assert "t2m" not in found.channels
    assert "the variable 't2m' is in 'furlong'" in found.problems[0]


def test_a_source_without_a_time_axis_is_still_described():
    found = inspect(small().isel(time=0, drop=True))
    assert found.times == "no time axis"
    assert "No time axis is recognised" in found.problems[0]
    assert found.channels == {}
    assert [each.name for each in found.variables] == ["t2m", "z"]


def test_files_say_their_chunks_and_fill_values(tmp_path):
    encoding = {"t2m": {"_FillValue": -999.0, "chunksizes": (2, 2, 3)}}
    small().to_netcdf(tmp_path / "small.nc", encoding=encoding, engine="netcdf4")
    [row] = [v.row() for v in inspect(tmp_path / "small.nc").variables if v.name == "t2m"]
    dims = "time 4 × latitude 2 × longitude 3"
    assert row[1:] == ("K", dims, "float32", "2 × 2 × 3", "-999", "t2m")


def test_a_source_of_a_catalog_and_its_errors(weather, tmp_path):
    found = inspect(f"{weather}/catalog.yaml:atmosphere")
    assert {"t850", "msl", "z500", "ws10", "orography"} <= set(found.channels)
    with pytest.raises(CatalogError, match=r"as '.*catalog.yaml:NAME'. It has: atmosphere"):
        inspect(weather / "catalog.yaml")
    with pytest.raises(CatalogError, match="has no ending that says how to read it"):
        inspect(tmp_path / "data")
    with pytest.raises(CatalogError, match="there is nothing at"):
        inspect(tmp_path / "data.nc")


def test_of_many_variables_only_those_that_may_be_ours_are_looked_up(tmp_path, monkeypatch):
    """As in ARCO-ERA5: many variables, small chunks, some on 37 levels; 30 s where each is."""
    shape, levels = (24, 37, 8, 16), np.linspace(1, 1000, 37)
    coords = {
        "time": pd.date_range("2020-01-01", periods=shape[0], freq="h"),
        "level": ("level", levels, {"units": "hPa"}),
        "latitude": np.linspace(90, -90, 8),
        "longitude": np.linspace(0, 337.5, 16),
    }
    dims, one = ("time", "level", "latitude", "longitude"), {"units": "K"}
    lazy = da.zeros(shape, chunks=(1, 37, 8, 16), dtype="float32")
    fields = {f"surface_{n}_mean": (("time", *dims[2:]), lazy[:, 0], one) for n in range(250)}
    fields |= {name: (dims, lazy, one) for name in ("temperature", "z", "other", "specific")}
    source = xr.Dataset(fields, coords)
    source.to_zarr(tmp_path / "many.zarr", compute=False, consolidated=False)
    looked = []
    monkeypatch.setattr(
        "climlstm.data.possible.find_fields", lambda *given: looked.append(1) or find_fields(*given)
    )
    found = inspect(tmp_path / "many.zarr")
    assert len(looked) < 2 * 254  # each variable as one of ours, and under its own name
    assert len(found.variables) == 254
    assert "t1000" in found.channels


def test_the_command_prints_text_or_json_and_loads_no_torch(weather):
    command = "import sys; from climlstm.cli import main\ntry: main()\n"
    command += "finally: print('torch' in sys.modules, file=sys.stderr)"
    run = [sys.executable, "-c", command, "inspect", f"{weather}/catalog.yaml:atmosphere"]
    text = subprocess.run(run, capture_output=True, text=True, check=True)
    assert "400 times, every 6h" in text.stdout
    assert text.stderr.strip() == "False"
    found = subprocess.run([*run, "--json"], capture_output=True, text=True, check=True)
    content = json.loads(found.stdout)
    assert content["times"]["step"] == "6h"
    assert "msl" in content["channels"]
