"""Known variables made of others that the source holds instead."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.config import DataConfig
from climlstm.data.cube.cube import plan_cube
from climlstm.errors import DataError

PERIODS = {
    "train": ("2022-05-01", "2022-05-03"),
    "valid": ("2022-05-04", "2022-05-04"),
    "test": ("2022-05-05", "2022-05-05"),
}
TIMES = pd.date_range("2022-05-01", periods=25, freq="h")


def source_of(times=TIMES, **fields) -> xr.Dataset:
    """Fields of one value, or one a time, each with its unit, on 3 × 4 cells."""
    coords = {"time": times, "latitude": [50.0, 49, 48], "longitude": [0.0, 1, 2, 3]}
    shape = (len(times), 3, 4)
    made = {}
    for name, (values, units, *attrs) in fields.items():
        full = np.broadcast_to(np.reshape(values, (-1, 1, 1)), shape).astype("float32")
        said = {"units": units} | (attrs[0] if attrs else {})
        made[name] = (("time", "latitude", "longitude"), full, said)
    return xr.Dataset(made, coords).chunk(time=7)


def cube_of(source: xr.Dataset, *state: str, step: str = "1h", **data) -> xr.Dataset:
    chosen = DataConfig(catalog="-", source="-", state=state, step=step, periods=PERIODS, **data)
    return plan_cube(source, chosen).cube


def value(cube: xr.Dataset, name: str, time: int = 0) -> float:
    return float(cube[name][time, 0, 0])


@pytest.mark.parametrize(
    ("direction", "east", "north"), [(0, 0, -5), (90, -5, 0), (270, 5, 0), (225, 3.5355, 3.5355)]
)
def test_speed_and_direction_make_components(direction, east, north):
    """A wind from the west, 270 degrees, blows towards the east."""
    source = source_of(ws10=(5, "m s-1"), wind_direction_10m=(direction, "degrees"))
    cube = cube_of(source, "u10", "v10")
    assert value(cube, "u10") == pytest.approx(east, abs=1e-4)
    assert value(cube, "v10") == pytest.approx(north, abs=1e-4)


def test_components_that_the_source_holds_are_read():
    winds = {"ws10": (5, "m s-1"), "wdir10": (0, "degree"), "u10": (1, "m s-1")}
    assert value(cube_of(source_of(**winds), "u10", "v10"), "u10") == 1


def test_a_mean_of_directions_is_refused():
    source = source_of(ws10=(5, "m s-1"), wdir10=(np.arange(25) * 10, "degree"))
    with pytest.raises(DataError, match="'wdir10' is a direction, which has no mean over 6h"):
        cube_of(source, "u10", step="6h", channels={"u10": {"over_step": "mean"}})
    assert value(cube_of(source, "u10", step="6h"), "u10") == pytest.approx(0, abs=1e-5)


def test_humidity_and_dew_point_are_each_others():
    """At 1000 hPa air of 10 g/kg has a dew point of 14.0 °C (WMO tables: 13.97)."""
    moist = source_of(huss=(10, "g kg-1"), sp=(1000, "hPa"))
    dew = value(cube_of(moist, "d2m"), "d2m")
    assert dew - 273.15 == pytest.approx(14.0, abs=0.05)
    back = cube_of(source_of(d2m=(dew, "K"), sp=(1000, "hPa")), "q2m")
    assert value(back, "q2m") == pytest.approx(0.010, rel=1e-5)
    dry = cube_of(source_of(huss=(0, "1"), sp=(1000, "hPa")), "d2m")
    assert 100 < value(dry, "d2m") < 200  # finite


@pytest.mark.parametrize("said", [{}, {"cell_methods": "time: mean"}])
def test_a_rate_of_rain_becomes_what_fell_over_the_step(said):
    rate = np.r_[9.0, np.arange(24)] / 3600  # kg m-2 in each hour
    cube = cube_of(source_of(pr=(rate, "kg m-2 s-1", said)), "tp", step="6h")
    assert cube["tp"].attrs["units"] == "m"
    assert np.isnan(value(cube, "tp"))  # five of the six hours before are not there
    assert value(cube, "tp", 1) == pytest.approx((0 + 1 + 2 + 3 + 4 + 5) / 1000, rel=1e-5)


def test_a_monthly_rate_fills_its_month():
    months = pd.date_range("2022-01-01", periods=3, freq="MS")
    source = source_of(months, pr=(1 / 86400, "kg m-2 s-1", {"cell_methods": "time: mean"}))
    cube = cube_of(source, "tp", step="1 month")
    depths = [value(cube, "tp", month) for month in range(3)]
    np.testing.assert_allclose(depths, [0.031, 0.028, 0.031], rtol=1e-5)
