"""Values that cannot be what they claim."""

import re

import numpy as np
import pytest
import xarray as xr
import yaml

from climlstm.audit import audit as audits
from climlstm.audit.atmosphere import geopotential_bounds
from climlstm.data.cube.cube import plan_cube
from climlstm.data.cube.forcing import forcing_fields
from climlstm.data.sources.declarations import Metadata, declare
from tests.small_audits import found, make_config, make_source


def labelled(name, values, units):
    return {name: (("time", "latitude", "longitude"), values.astype("float32"), {"units": units})}


@pytest.mark.parametrize(
    ("name", "change", "label", "meant"),
    [
        ("msl", lambda v: v / 100, "Pa", "hPa"),
        ("msl", lambda v: v, "hPa", "Pa"),
        ("t2m", lambda v: v - 273.15, "K", "degC"),
        ("t2m", lambda v: v, "degC", "K"),
    ],
)
def test_units_that_contradict_the_values(name, change, label, meant):
    clean = make_source()
    values = clean[name].values
    config = make_config()
    plan = plan_cube(make_source(**labelled(name, change(values), label)), config.data)
    [finding] = audits.audit(config, plan).findings
    assert finding.rule == "units-contradict-values"
    assert f"units: {meant}" in finding.fix
    twin = make_source(**labelled(name, change(values), meant))
    assert found(twin) == set()


def test_heights_labelled_as_geopotential():
    values = 5500 + 100 * np.random.default_rng(1).standard_normal((380, 8, 16))
    config = make_config(state=["t2m", "z500"])
    for units, expected in (("m2 s-2", {"units-contradict-values"}), ("gpm", set())):
        source = make_source(**labelled("z500", values, units))
        source["z500"].attrs["standard_name"] = "geopotential_height" if units == "gpm" else ""
        assert found(source, config) == expected, units


GLOBE = np.linspace(-90, 90, 37)


@pytest.mark.parametrize(
    ("level", "lowest", "highest"),
    [
        (1000, -2900, 3500),  # Southern Ocean in winter; Siberian high
        (850, 9300, 16500),
        (500, 45500, 59000),
        (200, 102000, 123500),
        (50, 182000, 207000),
        (10, 275000, 318000),  # polar night and polar summer
    ],
)
def test_geopotential_as_it_is_met_on_earth(level, lowest, highest):
    """About the 1st and 99th percentile of ERA5 over any region and season."""
    least, greatest = geopotential_bounds(level, GLOBE)
    assert least < lowest < highest < greatest


@pytest.mark.parametrize("level", [850, 700, 500, 300, 100, 10])
def test_heights_are_told_from_geopotentials(level):
    for latitude in (0, 30, 50, 60, 90):
        least, greatest = geopotential_bounds(level, np.array([latitude]))
        assert greatest / 9.80665 < least


def test_bounds_of_the_geopotential_depend_on_the_latitude():
    """A subarctic winter's 500 hPa surface lies below all that the tropics have seen."""
    tropics, arctic = (geopotential_bounds(500, np.array([y])) for y in (5, 70))
    assert arctic[0] < 4400 * 9.81 < tropics[0] < 5850 * 9.81 < min(tropics[1], arctic[1])
    assert geopotential_bounds(500, GLOBE)[0] == arctic[0]
    assert geopotential_bounds(0.3, GLOBE) is None


def test_geopotentials_of_reanalyses_are_within_their_bounds_everywhere(real_data):
    file = real_data / "era5_ensemble_2017_01" / "era5-levels-members.grib"
    pytest.importorskip("cfgrib", reason="needs climlstm[grib]")
    found = xr.open_dataset(file, engine="cfgrib", backend_kwargs={"indexpath": ""})["z"]
    for level in found.isobaricInhPa.values:
        for latitude in found.latitude.values:
            least, greatest = geopotential_bounds(level, np.array([latitude]))
            row = found.sel(isobaricInhPa=level, latitude=latitude).values
            assert least < row.min() <= row.max() < greatest


def test_deep_lows_at_1000_hpa_are_no_error():
    values = -1500 + 700 * np.random.default_rng(1).standard_normal((380, 8, 16))
    source = make_source(**labelled("z1000", values, "m2 s-2"))
    assert found(source, make_config(state=["t2m", "z1000"])) == set()


def test_where_nobody_can_be_sure_there_is_a_warning_and_no_unit_is_advised():
    """Some values of 1000 hPa lie beyond what is met on Earth; as heights they would not."""
    values = np.random.default_rng(1).normal(-5000, 3000, (380, 8, 16))
    source = make_source(**labelled("z1000", values, "m2 s-2"))
    config = make_config(state=["t2m", "z1000"])
    findings = audits.audit(config, plan_cube(source, config.data)).findings
    [finding] = [f for f in findings if f.rule == "units-contradict-values"]
    assert finding.severity == "warning"
    assert "units:" not in finding.fix
    assert "{z1000: {trusted: true}}" in finding.fix


def test_values_that_are_trusted_are_left_alone():
    """What the advice says works: declared so, the same values are no finding."""
    values = 360 + np.random.default_rng(0).standard_normal((380, 8, 16))
    source, config = make_source(**labelled("t2m", values, "K")), make_config()
    [finding] = audits.audit(config, plan_cube(source, config.data)).findings
    assert finding.severity == "warning"
    said = yaml.safe_load(re.search(r"say so .*'variables: (.*)'", finding.fix)[1])
    trusted = declare(source, Metadata.model_validate({"variables": said}), "source")
    assert found(trusted) == set()


def test_missing_values_that_may_be_values_are_told():
    values = np.random.default_rng(0).normal(10, 5, (380, 8, 16)).round()
    source = make_source(**labelled("t2m", np.where(values == 0, np.nan, values), "degC"))
    source["t2m"].encoding["_FillValue"] = 0.0
    config = make_config()
    findings = {f.rule: f for f in audits.audit(config, plan_cube(source, config.data)).findings}
    assert set(findings) == {"fill-may-be-a-value", "steps-incomplete"}
    assert "0, which would be 273.15 K" in findings["fill-may-be-a-value"].value
    assert "'variables: {t2m: {valid: [0]}}'" in findings["fill-may-be-a-value"].fix
    source["t2m"].encoding["_FillValue"] = -999.0
    assert found(source) == {"steps-incomplete"}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda v: np.full_like(v, 285), "channel-constant"),
        (lambda v: np.broadcast_to(v[:1], v.shape), "channel-constant"),
        (lambda v: np.full_like(v, np.nan), "channel-mostly-missing"),
        (lambda v: np.where(np.arange(16) == 3, np.inf, v), "channel-infinite"),
        (lambda v: np.where(np.arange(16) < 7, np.nan, v), None),
    ],
    ids=["one value", "one field", "all missing", "infinite", "7 of 16: clean"],
)
def test_channels_without_values_or_variation(change, rule):
    values = change(make_source()["t2m"].values)
    assert found(make_source(**labelled("t2m", values, "K"))) == ({rule} if rule else set())


def test_a_target_that_is_a_forcing_already():
    source = make_source()
    times, lat, lon = (source[n].values for n in ("time", "latitude", "longitude"))
    sun = 280 + 10 * forcing_fields(["cos_zenith"], times, lat, lon)[:, 0]
    twin = sun + np.random.default_rng(0).standard_normal(sun.shape)
    for values, expected in ((sun, {"target-is-known"}), (twin, set())):
        source = make_source(**labelled("t2m", values, "K"))
        assert found(source, make_config(forcing=["cos_zenith"])) == expected
    assert found(source, make_config()) == set()
