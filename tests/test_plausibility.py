"""Values that cannot be what they claim."""

import numpy as np
import pytest

from climlstm.audit import audit as audits
from climlstm.audit import plausibility
from climlstm.data.cube.cube import plan_cube
from climlstm.data.cube.forcing import forcing_fields
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


def test_the_standard_atmosphere():
    """Heights of the ICAO standard atmosphere: 5574 m at 500 hPa, 1457 m at 850, 20576 m at 50."""
    assert plausibility.standard_height(500) == pytest.approx(5574, abs=2)
    assert plausibility.standard_height(850) == pytest.approx(1457, abs=2)
    assert plausibility.standard_height(50) == pytest.approx(20576, abs=10)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda v: np.full_like(v, 285), "channel-constant"),
        (lambda v: np.broadcast_to(v[:1], v.shape), "channel-constant"),
        (lambda v: np.where(np.arange(16) < 9, np.nan, v), "channel-mostly-missing"),
        (lambda v: np.full_like(v, np.nan), "channel-mostly-missing"),
        (lambda v: np.where(np.arange(16) == 3, np.inf, v), "channel-infinite"),
        (lambda v: np.where(np.arange(16) < 7, np.nan, v), None),
    ],
    ids=["one value", "one field", "9 of 16 missing", "all missing", "infinite", "7 of 16: clean"],
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
