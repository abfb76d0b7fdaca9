"""Sums, means and extremes over time fit the step of a run, or are refused with a way out."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from climlstm.audit.sums import check_sums
from climlstm.config import DataConfig
from climlstm.data.cube.accumulation import is_sum_since_midnight, time_method
from climlstm.data.cube.cube import plan_cube
from climlstm.data.prepare import prepare
from climlstm.data.windows.stream import WindowStream
from climlstm.errors import DataError
from climlstm.steps import Step

PERIODS = {
    "train": ("2022-05-01", "2022-05-08"),
    "valid": ("2022-05-09", "2022-05-09"),
    "test": ("2022-05-10", "2022-05-10"),
}


def rain(hours: int = 241) -> np.ndarray:
    """Sums of the hour before, (time, 3, 4), m: at some places and hours none."""
    random = np.random.default_rng(0)
    fallen = random.gamma(0.5, 4e-4, (hours, 3, 4)) * (random.random((hours, 3, 4)) < 0.6)
    return fallen.astype("float32")


def since_midnight(hourly: np.ndarray) -> np.ndarray:
    """01 UTC holds one hour, 00 UTC of the next day 24."""
    whole = np.zeros_like(hourly)
    whole[0] = hourly[0]
    for first in range(1, len(hourly), 24):
        whole[first : first + 24] = np.cumsum(hourly[first : first + 24], axis=0)
    return whole


def source_of(values: np.ndarray, *, name: str = "tp", every: int = 1, **attrs) -> xr.Dataset:
    times = pd.date_range("2022-05-01", periods=len(values), freq=f"{every}h")
    coords = {"time": times, "latitude": [50.0, 49, 48], "longitude": [0.0, 1, 2, 3]}
    attrs = {"units": "m"} | attrs
    return xr.Dataset({name: (("time", "latitude", "longitude"), values, attrs)}, coords).chunk(
        time=11
    )


def data_of(step: str, *state: str, **over_step: str) -> DataConfig:
    channels = {name: {"over_step": method} for name, method in over_step.items()}
    return DataConfig(
        catalog="-", source="-", state=state, step=step, periods=PERIODS, channels=channels
    )


def cube_of(source: xr.Dataset, step: str = "6h", state: str = "tp", **over_step: str):
    return plan_cube(source, data_of(step, state, **over_step))


def sums(hourly: np.ndarray, hours: int) -> np.ndarray:
    """What fell before each step but the first."""
    return hourly[1:].reshape(-1, hours, 3, 4).sum(axis=1)


SAID = {
    "name": {},
    "CF": {"cell_methods": "area: mean time: sum"},
    "CF with interval": {"cell_methods": "time: sum (interval: 1 hour)"},
    "GRIB": {"GRIB_stepType": "accum"},
    "catalog": {"accumulated": "step"},
}


@pytest.mark.parametrize("attrs", SAID.values(), ids=SAID)
def test_hourly_sums_are_summed_over_the_step(attrs):
    hourly = rain()
    found = cube_of(source_of(hourly, **attrs)).cube["tp"].values
    assert np.isnan(found[0]).all()  # what fell before the first time is not known
    np.testing.assert_allclose(found[1:], sums(hourly, 6), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    every=st.sampled_from([1, 2, 3, 6]),
    step=st.sampled_from([6, 12, 24]),
    chunk=st.sampled_from([1, 5, 100]),
    packed=st.booleans(),
    day=st.booleans(),
    gap=st.sampled_from([None, 7, 30]),
)
def test_sums_are_right_for_any_steps_chunks_and_gaps(every, step, chunk, packed, day, gap):
    hourly = rain()
    fallen = since_midnight(hourly) if day else hourly
    if not day and every > 1:
        fallen = np.concatenate([hourly[:1], sums(hourly, every)])
        kept = np.arange(0, 241, every)
    else:
        kept = np.arange(0, 241, every)
        fallen = fallen[kept]
    attrs = {"accumulated": "day" if day else "step"}
    if packed:
        fallen = np.round(fallen / 1e-6).astype("int32")
        attrs |= {"scale_factor": 1e-6, "add_offset": 0.0, "_FillValue": -9999}
    source = source_of(fallen, every=every, **attrs)
    if gap is not None:
        source = source.isel(time=np.delete(np.arange(kept.size), gap))
    cube = cube_of(source.chunk(time=chunk), f"{step}h").cube["tp"]
    ends = ((cube.time.values - np.datetime64("2022-05-01")) / np.timedelta64(1, "h")).astype(int)
    missing = set() if gap is None else {int(kept[gap])}
    for end, field in zip(ends, cube.values, strict=True):
        needed = set(range(end - step + every, end + 1, every))
        if day:  # a difference needs the sum before, unless the day begins there
            needed |= {hour - every for hour in needed if (hour - every) % 24}
        if (end == 0 and not (step == every and not day)) or (
            needed & missing and not (step == every and not day)
        ):
            assert np.isnan(field).all()
        elif end:
            expected = hourly[end - step + 1 : end + 1].sum(axis=0)
            np.testing.assert_allclose(field, expected, rtol=1e-4, atol=4e-6 if packed else 1e-9)


def test_means_and_extremes_are_put_together_as_they_are():
    values = 280 + rain() * 1e4
    for word, combine in (("mean", np.mean), ("maximum", np.max), ("minimum", np.min)):
        source = source_of(values, name="t2m", units="K", cell_methods=f"time: {word}")
        found = cube_of(source, state="t2m").cube["t2m"].values[1:]
        expected = combine(values[1:].reshape(-1, 6, 3, 4), axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "attrs",
    [
        {"accumulated": "never"},
        {"cell_methods": "time: point"},
        {"GRIB_stepType": "instant"},
        {"cell_methods": "time: sum (interval: 6 hours)"},
    ],
)
def test_single_moments_and_sums_over_the_step_itself_are_taken_as_they_are(attrs):
    hourly = rain()
    found = cube_of(source_of(hourly, **attrs)).cube["tp"].values
    np.testing.assert_array_equal(found, hourly[::6])


def test_the_length_of_the_interval_may_stand_in_the_name():
    said = time_method(source_of(rain(), name="total_precipitation_6hr")["total_precipitation_6hr"])
    assert (said.method, said.interval) == ("sum", np.timedelta64(6, "h"))
    rolling = np.lib.stride_tricks.sliding_window_view(rain(), 6, axis=0).sum(axis=-1)
    rolling = np.concatenate([np.zeros((5, 3, 4), "float32"), rolling])
    source = source_of(rolling, name="total_precipitation_6hr")
    found = cube_of(source, "12h").cube["tp"].values[1:]
    np.testing.assert_allclose(found, sums(rain(), 12), rtol=1e-5)


@pytest.mark.parametrize(
    ("units", "is_sum"),
    [("m", True), ("kg m-2", True), ("mm/day", False), ("kg m**-2 s**-1", False)],
)
def test_a_rate_is_no_sum(units, is_sum):
    assert (time_method(source_of(rain(), units=units)["tp"]) is not None) is is_sum


@pytest.mark.parametrize(
    ("name", "units", "method", "hours"),
    [
        ("APCP_surface", "kg/m^2", "sum", None),
        ("A_PCP_GDS0_SFC_acc6h", "kg m-2", "sum", 6),  # NCL's names
        ("DSWRF_P8_L1_GLL0_avg3h", "W m-2", "mean", 3),
        ("pr", "kg m-2", "sum", None),
        ("daily_rain", "mm", "sum", None),
        ("tp_sum", "m", "sum", None),
        ("precipitation_amount_1hour_Accumulation", "kg m-2", "sum", 1),
        ("mx2t", "K", "maximum", None),  # ECMWF's
        ("mn2t6", "K", "minimum", 6),
        ("10fg3", "m s-1", "maximum", 3),
        ("minimum_2m_temperature_since_previous_post_processing", "K", "minimum", None),
    ],
)
def test_names_of_what_stands_for_an_interval(name, units, method, hours):
    said = time_method(source_of(rain(), name=name, units=units)[name])
    expected = None if hours is None else np.timedelta64(hours, "h")
    assert (said.method, said.interval) == (method, expected)


@pytest.mark.parametrize(
    ("name", "units"),
    [("total_column_rain_water", "kg m-2"), ("pr", "kg m-2 s-1"), ("precip", "mm/day"),
     ("i10fg", "m s-1"), ("rain_rate", "mm h-1"), ("t2m", "K"), ("mx_depth", "m")],
)  # fmt: skip
def test_names_of_what_stands_for_a_moment(name, units):
    assert time_method(source_of(rain(), name=name, units=units)[name]) is None


def test_labels_at_the_beginning_are_known_by_the_bounds_of_the_times():
    hourly = rain()
    source = source_of(hourly[1:], cell_methods="time: sum")
    source["time"].attrs["bounds"] = "time_bnds"
    hour = np.timedelta64(1, "h")
    bounds = np.stack([source.time.values, source.time.values + hour], axis=1)
    source = source.assign_coords(time_bnds=(("time", "bnds"), bounds))
    found = cube_of(source).cube["tp"].values
    np.testing.assert_allclose(found[1:], sums(hourly, 6)[:-1], rtol=1e-6)


def test_intervals_that_do_not_make_a_step_are_refused_with_the_line():
    source = source_of(rain(), cell_methods="time: sum (interval: 4 hours)")
    with pytest.raises(DataError, match=r"multiple of 4h.*\{tp: \{accumulated: never\}\}"):
        cube_of(source, "6h")


def test_sums_since_midnight_are_found_out():
    hourly = rain()
    for values, expected in ((hourly, []), (since_midnight(hourly), ["sum-since-midnight"])):
        plan = cube_of(source_of(values))
        found = [f.rule for f in check_sums(plan, Step.parse("6h"))]
        assert [rule for rule in found if rule != "put-together-in-time"] == expected
        assert is_sum_since_midnight(values, plan.axes.time.values) is bool(expected)
    declared = cube_of(source_of(since_midnight(hourly), accumulated="day"))
    [note] = check_sums(declared, Step.parse("6h"))
    assert note.severity == "note"
    np.testing.assert_allclose(declared.cube["tp"].values[1:], sums(hourly, 6), atol=1e-8)


@pytest.mark.parametrize("change", ["half-way", "dry at first"])
def test_sums_since_midnight_are_found_wherever_they_begin(change):
    hourly = rain(24 * 60 + 1)
    values = since_midnight(hourly)
    if change == "half-way":
        values[: 24 * 30 + 1] = hourly[: 24 * 30 + 1]
    else:
        values[: 24 * 40 + 1] = 0
    found = check_sums(cube_of(source_of(values)), Step.parse("6h"))
    assert "sum-since-midnight" in [finding.rule for finding in found]


def air(hours: int = 241) -> xr.Dataset:
    """Temperature and wind of single hours."""
    source = source_of(280 + 1e4 * rain(hours), name="t2m", units="K", cell_methods="time: point")
    winds = source_of(1e4 * rain(hours), name="u10", units="m s-1")
    return source.assign(u10=winds["u10"], v10=2 * winds["u10"].assign_attrs(units="m s-1"))


@pytest.mark.parametrize("method", ["mean", "maximum", "minimum"])
def test_single_hours_are_put_together_where_the_run_file_asks_for_it(method):
    """Days end at 00 UTC, and hold nothing of the day that begins there."""
    source = air()
    days = cube_of(source, "1d", "t2m", t2m=method).cube["t2m"]
    reduce = {"mean": np.mean, "maximum": np.max, "minimum": np.min}[method]
    expected = reduce(source["t2m"].values[1:].reshape(-1, 24, 3, 4), axis=1)
    np.testing.assert_allclose(days.sel(time=slice("2022-05-02", None)), expected, rtol=1e-6)
    assert np.isnan(days.sel(time="2022-05-01")).all()
    assert days.attrs["cell_methods"] == f"time: {method}"
    assert "cell_methods" not in cube_of(source, "1d", "t2m").cube["t2m"].attrs


def test_a_mean_over_the_step_knows_nothing_of_later_hours():
    source = air()
    later = source.assign(t2m=source["t2m"] + 50 * (source.time > np.datetime64("2022-05-05")))
    days, changed = (
        cube_of(each.assign(t2m=each["t2m"].assign_attrs(units="K")), "1d", "t2m", t2m="mean").cube
        for each in (source, later)
    )
    until = {"time": slice("2022-05-02", "2022-05-05")}
    xr.testing.assert_equal(days["t2m"].sel(until), changed["t2m"].sel(until))
    assert (changed["t2m"].sel(time="2022-05-06") > days["t2m"].sel(time="2022-05-06") + 40).all()


def test_a_derived_channel_is_that_of_the_means():
    source = air()
    speed = cube_of(source, "1d", "ws10", ws10="mean").cube["ws10"].values[1:]
    mean = source["u10"].values[1:].reshape(-1, 24, 3, 4).mean(axis=1)
    np.testing.assert_allclose(speed, np.sqrt(5) * mean, rtol=1e-5)


def test_one_variable_in_two_ways_is_refused_until_both_say_the_same():
    with pytest.raises(DataError, match=r"data\.channels\.ws10\.over_step"):
        plan_cube(air(), data_of("1d", "u10", "ws10", u10="mean"))
    cube = plan_cube(air(), data_of("1d", "u10", "ws10", u10="mean", ws10="mean")).cube
    assert np.isfinite(cube["ws10"].values[1:]).all()


def test_days_are_prepared_from_hours_and_read_again_as_they_are(tmp_path):
    """The same run file serves the hours and the prepared days, which keep what they are."""
    hours = air().assign(tp=source_of(since_midnight(rain()), accumulated="day")["tp"])
    data = data_of("1d", "t2m", "tp", t2m="mean")
    plan = plan_cube(hours, data)
    store = prepare(plan, tmp_path / "days.zarr", data=data, scheduler="synchronous")
    days = xr.open_zarr(store)
    xr.testing.assert_equal(days[["t2m", "tp"]].load(), plan.cube[["t2m", "tp"]].compute())
    assert days["tp"].attrs["cell_methods"] == "time: sum"
    xr.testing.assert_equal(plan_cube(days, data).cube.load(), days[["t2m", "tp"]])
    pairs = plan_cube(days, data_of("2d", "t2m")).cube["t2m"].values[1]
    np.testing.assert_allclose(pairs, days["t2m"][1:3].mean("time"), rtol=1e-6)


def test_windows_are_cut_from_the_means():
    plan = cube_of(air(), "1d", "t2m", t2m="mean")
    settings = {"history": 2, "horizon": 1, "mean": np.zeros(1), "std": np.ones(1)}
    with WindowStream(plan, channels=["t2m"], **settings) as stream:
        [window] = stream.windows([np.array([[1, 4]])])
        means = plan.cube["t2m"].values
        for row, start in enumerate((1, 4)):
            np.testing.assert_array_equal(window.history[row, :, 0], means[start : start + 2])
            np.testing.assert_array_equal(window.target[row, :, 0], means[start + 2 : start + 3])
