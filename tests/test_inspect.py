"""A first look at sources: what it shows of variables, times, grid, channels and problems."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.data.inspect import inspect
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
    assert found.times == (
        "2020-01-01T00:00 to 2020-01-02T00:00, 4 times, every 6h but for 1 place"
    )
    assert found.grid == "2 × 3 cells, 10 to 0 degrees north, 0 to 20 degrees east"
    assert found.channels == {"t2m": "t2m", "z500": "z", "z850": "z"}
    assert found.problems == ()
    text = repr(found)
    assert "channels: t2m, z850, z500" in text
    assert "time 4 × level 2 × latitude 2 × longitude 3 (850, 500 hPa)" in text
    assert "<td>m2 s-2</td>" in found._repr_html_()


def test_months_are_called_months():
    months = pd.date_range("2020-01-01", periods=14, freq="MS")
    assert inspect(small(months)).times.endswith("14 times, every month")


def test_a_variable_that_cannot_be_used_is_told_with_the_remedy():
    found = inspect(small(units="furlong"))
    assert "t2m" not in found.channels
    assert "the variable 't2m' is in 'furlong'" in found.problems[0]


def test_a_source_without_a_time_axis_is_still_described():
    found = inspect(small().isel(time=0, drop=True))
    assert "No time axis is recognised" in found.times
    assert found.channels == {}
    assert [row[0] for row in found.variables] == ["t2m", "z"]


def test_files_say_their_chunks_and_fill_values(tmp_path):
    encoding = {"t2m": {"_FillValue": -999.0, "chunksizes": (2, 2, 3)}}
    small().to_netcdf(tmp_path / "small.nc", encoding=encoding, engine="netcdf4")
    [row] = [row for row in inspect(tmp_path / "small.nc").variables if row[0] == "t2m"]
    assert row[1:] == ("K", "time 4 × latitude 2 × longitude 3", "float32", "2 × 2 × 3", "-999")


def test_a_source_of_a_catalog_and_its_errors(weather, tmp_path):
    found = inspect(f"{weather}/catalog.yaml:atmosphere")
    assert {"t850", "msl", "z500", "ws10", "orography"} <= set(found.channels)
    with pytest.raises(CatalogError, match=r"as '.*catalog.yaml:NAME'. It has: atmosphere"):
        inspect(weather / "catalog.yaml")
    with pytest.raises(CatalogError, match="has no ending that says how to read it"):
        inspect(tmp_path / "data")
    with pytest.raises(CatalogError, match="there is nothing at"):
        inspect(tmp_path / "data.nc")
