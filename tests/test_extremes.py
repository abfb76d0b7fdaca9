"""Values that cannot be are found wherever they are, with the line of the catalog that helps."""

import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from climlstm.advice import declarations
from climlstm.audit.extremes import check_statistics
from climlstm.config import DataConfig
from climlstm.data.cube.cube import plan_cube
from climlstm.data.sources.fills import default_fills
from climlstm.data.statistics.compute import compute_statistics
from climlstm.data.statistics.extremes import Extremes
from climlstm.data.statistics.statistics import Statistics

PERIODS = {
    "train": ("2020-01-01", "2020-01-20"),
    "valid": ("2020-01-21", "2020-01-25"),
    "test": ("2020-01-26", "2020-01-30"),
}


def weather(steps: int = 120) -> np.ndarray:
    random = np.random.default_rng(0)
    return (281 + 6 * random.standard_normal((steps, 3, 4))).astype("float32")


def source_of(values: np.ndarray, *, name: str = "t2m", **attrs) -> xr.Dataset:
    times = pd.date_range("2020-01-01", periods=len(values), freq="6h")
    coords = {"time": times, "latitude": [60.0, 50, 40], "longitude": [0.0, 1, 2, 3]}
    attrs = {"units": "K"} | attrs
    return xr.Dataset({name: (("time", "latitude", "longitude"), values, attrs)}, coords).chunk(
        time=7
    )


def looked_at(source: xr.Dataset, state: str = "t2m"):
    data = DataConfig(catalog="-", source="-", state=(state,), step="6h", periods=PERIODS)
    plan = plan_cube(source, data)
    train, *others = data.periods.spans.values()
    statistics = compute_statistics(plan, channels=(state,), train=train, others=others)
    return statistics, list(check_statistics(plan, statistics))


def test_weather_as_it_is_passes():
    assert looked_at(source_of(weather()))[1] == []


@pytest.mark.parametrize("step", [3, 90, 110])  # in each of the periods
@pytest.mark.parametrize("value", [-999.0, -9999.0, 0.0, 9e15, 1e20, -1e30])
def test_one_wild_value_is_found_in_any_period(step, value):
    values = weather()
    values[step, 1, 2] = value
    [finding] = looked_at(source_of(values))[1]
    assert (finding.rule, finding.severity) == ("value-impossible", "error")
    time = pd.Timestamp("2020-01-01") + step * pd.Timedelta("6h")
    assert (
        f"at 1 place, the first at {time:%Y-%m-%d %H:%M}, latitude 50, longitude 2" in finding.value
    )
    missing = declarations(finding.fix)[0]["variables"]["t2m"]["missing"]
    assert missing == [pytest.approx(value)]
    assert looked_at(source_of(values, missing=missing))[1] == []  # the advice helps


def test_the_advice_is_in_the_units_of_the_file_and_helps():
    values = weather() - 273.15
    values[[5, 9], 0, 0] = -9999
    source = source_of(values, units="degC")
    [finding] = looked_at(source)[1]
    assert "at 2 places" in finding.value
    assert "{missing: [-9999]}" in finding.fix
    source["t2m"].attrs["missing"] = [-9999.0]
    statistics, findings = looked_at(source)
    assert findings == []
    assert [gap.cells for gap in statistics.missing] == [1, 1]


@pytest.mark.parametrize("code", [-99.0, -99.9, -9.99e8, -1e34])
@pytest.mark.parametrize("name", ["t2m", "soil_ice"])
def test_codes_that_would_pass_for_values_are_told(name, code):
    """-99 °C is cold and not impossible; of a variable of the source's own nothing is known."""
    values = weather() - 281
    values[[5, 9], 0, 0] = code
    source = source_of(values, name=name, units="degC" if name == "t2m" else "kg m-3")
    [finding] = looked_at(source, name)[1]
    assert finding.severity == ("warning" if code > -100 else "error")
    missing = declarations(finding.fix)[0]["variables"][name]["missing"]
    assert missing == [pytest.approx(code)]
    source[name].attrs["missing"] = missing
    statistics, findings = looked_at(source, name)
    assert findings == []
    assert [gap.cells for gap in statistics.missing] == [1, 1]


def test_a_value_that_is_right_may_be_declared_so():
    values = weather()
    values[3, 1, 2] = 99
    assert [f.rule for f in looked_at(source_of(values))[1]] == ["value-impossible"]
    assert looked_at(source_of(values, trusted=1))[1] == []


def test_steps_with_one_value_are_told():
    values = weather()
    values[[8, 30]] = 281
    [finding] = looked_at(source_of(values))[1]
    assert (finding.rule, finding.severity) == ("steps-constant", "warning")
    assert "at 2 steps" in finding.what
    assert "2020-01-03T00:00" in finding.value


@pytest.mark.parametrize("kind", ["still", "steady"])
def test_a_channel_that_does_not_change_in_training_is_an_error(kind):
    """It varies later, and in space, so that neither a sample nor its deviation shows it."""
    values = weather()
    ramp = np.arange(80, dtype="float32")[:, None, None] if kind == "steady" else 0
    values[:80] = np.round(values[0]) + ramp * np.float32(0.125)
    errors = [f for f in looked_at(source_of(values))[1] if f.severity == "error"]
    assert [f.rule for f in errors] == ["channel-constant"]
    assert "'t2m' does not change in the training period" in errors[0].what


def test_extremes_survive_json_and_are_unknown_in_earlier_statistics():
    values = weather()
    values[40] = 280
    known, _ = looked_at(source_of(values))
    again = Statistics.from_dict(known.to_dict())
    assert (again.extremes, again.constant) == (known.extremes, known.constant)
    content = known.to_dict()
    del content["extremes"], content["constant"]
    assert Statistics.from_dict(content).extremes == ()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pieces_give_the_extremes_of_the_whole(data):
    values = data.draw(
        st.lists(st.sampled_from([np.nan, -3.0, 0.0, 2.0, 5.0]), min_size=24, max_size=24)
    )
    fields = np.array(values, "float32").reshape(6, 2, 2)
    cuts = sorted(data.draw(st.sets(st.integers(1, 5))))
    whole = Extremes()
    for piece in np.split(np.arange(6), cuts):
        whole = whole.merge(Extremes.of(fields[piece], piece, finite=False))
    known = fields[np.isfinite(fields)]
    for found, value in ((whole.least, min), (whole.greatest, max)):
        if known.size == 0:
            assert found is None
            continue
        assert found.value == value(known.tolist())
        assert found.count == (fields == found.value).sum()
        first = np.argwhere(fields == found.value)[0].tolist()
        assert [found.position, found.row, found.column] == first


DEFAULTS = {
    "f4": {},
    "f8": {},
    "i2": {"scale_factor": 0.002, "add_offset": 280.0},
    "i4": {"scale_factor": 1e-4},
    "i8": {"scale_factor": 1e-4},
    "u8": {"scale_factor": 1e-4},
}


@pytest.mark.parametrize("dtype", DEFAULTS)
def test_what_was_never_written_to_netcdf_counts_as_missing(tmp_path, dtype):
    values = weather()
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        axes = {"latitude": [60, 50, 40], "longitude": [0, 1, 2, 3], "time": np.arange(120) * 6}
        units = ("degrees_north", "degrees_east", "hours since 2020-01-01")
        for (dim, axis), unit in zip(axes.items(), units, strict=True):
            file.createDimension(dim, len(axis))
            file.createVariable(dim, "f8", (dim,))[:] = axis
            file[dim].units = unit
        t2m = file.createVariable("t2m", dtype, ("time", "latitude", "longitude"))
        t2m.setncatts({"units": "K"} | DEFAULTS[dtype])
        for step in range(120):
            if step not in (57, 58, 99):
                t2m[step] = values[step]
    source = xr.open_dataset(tmp_path / "a.nc", chunks={}, engine="netcdf4")
    statistics, findings = looked_at(source)
    assert findings == []
    assert [
        int((gap.time - source.time.values[0]) / np.timedelta64(6, "h"))
        for gap in statistics.missing
    ] == [57, 58, 99]
    assert statistics.mean[0] == pytest.approx(281, abs=0.5)


def test_other_formats_and_stated_fills_have_no_default():
    assert default_fills(source_of(weather()).variables["t2m"]) == []
    stated = xr.Variable((), np.float32(1), {"_FillValue": -1.0}, {"original_shape": ()})
    assert default_fills(stated) == []
