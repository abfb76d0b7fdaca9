"""Conversions of units, by values that can be looked up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from climlstm.data.sources.units import conversion, is_time_reference
from climlstm.errors import DataError


@pytest.mark.parametrize(
    ("found", "wanted", "value", "expected"),
    [
        ("degC", "K", 20.0, 293.15),
        ("Celsius", "K", -273.15, 0.0),
        ("C", "K", 0.0, 273.15),
        ("degF", "K", 32.0, 273.15),
        ("hPa", "Pa", 1013.25, 101325.0),
        ("mb", "Pa", 1000.0, 1e5),
        ("millibars", "Pa", 1000.0, 1e5),
        ("knots", "m s-1", 1.0, 1852 / 3600),
        ("kt", "m s-1", 1.0, 1852 / 3600),
        ("km/h", "m s-1", 3.6, 1.0),
        ("m s**-1", "m s-1", 7.0, 7.0),
        ("m.s-1", "m s-1", 7.0, 7.0),
        ("m**2 s**-2", "m2 s-2", 5.0, 5.0),
        ("gpm", "m2 s-2", 1.0, 9.80665),
        ("gpdm", "m2 s-2", 552.0, 5520 * 9.80665),
        ("%", "1", 50.0, 0.5),
        ("(0 - 1)", "%", 0.5, 50.0),
        ("g/kg", "kg kg-1", 1.0, 0.001),
        ("g kg**-1", "kg kg-1", 1.0, 0.001),
        ("mm", "m", 1.0, 0.001),
    ],
)
def test_conversion(found, wanted, value, expected):
    convert = conversion(found, wanted)
    assert convert.scale * value + convert.offset == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("spellings", "wanted", "value", "expected"),
    [
        (["Pa", "pa", "PA", "Pascal", "Pascals", "PASCALS"], "Pa", 7, 7),
        (["hPa", "HPA", "hectopascals", "mb", "mbs", "mbar", "Millibars"], "Pa", 7, 700),
        (["K", "k", "Kelvin", "Kelvins", "degK", "deg_K", "degrees K", "degree_Kelvin"], "K", 7, 7),
        (["C", "degC", "deg C", "Celsius", "Celsius_scale", "degrees_celsius", "DegC"], "K", 7,
         280.15),
        (["m/s", "ms-1", "m s^-1", "m/sec", "meters/second", "metres per second"], "m s-1", 7, 7),
        (["Pascal/s", "Pa/sec", "pascals s-1"], "Pa s-1", 7, 7),
        (["kg m-2", "Kg/m^2", "kg.m-2", "KG M-2".replace("M", "m"), "kilograms/meter^2"], "kg m-2",
         7, 7),
        (["g/kg", "grams/kg", "gm/kg", "grams kg-1"], "kg kg-1", 7, 0.007),
        (["gpm", "GPM", "geopotential meters", "geopotential_metre"], "m2 s-2", 1, 9.80665),
        (["kt", "kts", "Knots"], "m s-1", 1, 1852 / 3600),
        (["percent", "%", "PCT", "percentage"], "1", 50, 0.5),
        (["ºC", "°C", "oC", "celcius", "Deg. C"], "K", 0, 273.15),
        (["1e-5 s-1", "10^-5 s^-1", "10**-5 s**-1"], "s-1", 3, 3e-5),
        (["Watts/m2", "watts per square meter", "W m^-2"], "W m-2", 7, 7),
        (["Newton m-2", "N/m2"], "Pa", 7, 7),
        (["-", "none", "1"], "1", 7, 7),
        (["m s^{-1}", "m s⁻¹", "m·s-1"], "m s-1", 7, 7),
    ],
)  # fmt: skip
def test_units_as_people_write_them(spellings, wanted, value, expected):
    for spelling in spellings:
        convert = conversion(spelling, wanted)
        assert convert.scale * value + convert.offset == pytest.approx(expected), spelling


@pytest.mark.parametrize(("found", "wanted"), [("M/S", "m s-1"), ("kN", "m s-1"), ("c", "K")])
def test_what_may_mean_something_else_stays_refused(found, wanted):
    with pytest.raises(DataError):
        conversion(found, wanted)


def test_months_have_no_fixed_length():
    for found in ("mm/month", "mm month-1", "kg m-2 mon-1"):
        with pytest.raises(DataError, match="counts months, which have no fixed length"):
            conversion(found, "m s-1")


SAME = {
    "m s-1": ("m", "s"), "Pa s-1": ("Pa", "s"), "kg m-2": ("kg", "m2"), "J m-2": ("J", "m2"),
    "W m-2": ("W", "m2"), "kg kg-1": ("kg", "kg"), "m2 s-2": ("m2", "s2"),
}  # fmt: skip
WAYS = {"m": ["m", "meter", "metres"], "s": ["s", "sec", "seconds"], "Pa": ["Pa", "Pascals"],
        "kg": ["kg", "Kg", "kilograms"], "J": ["J", "Joules"], "W": ["W", "watts"]}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_spelling_of_a_quotient_is_the_same_unit(data):
    """Slash or powers, with signs, dots or blanks, words or letters."""
    wanted, (above, below) = data.draw(st.sampled_from(list(SAME.items())))

    def written(part, sign):
        unit, power = part.rstrip("2"), part[len(part.rstrip("2")) :] or "1"
        word = data.draw(st.sampled_from(WAYS[unit]))
        if sign + power == "1":
            return word
        return word + data.draw(st.sampled_from(["", "^", "**"])) + sign + power

    if data.draw(st.booleans()):
        found = written(above, "") + data.draw(st.sampled_from(["/", " / "])) + written(below, "")
    else:
        found = written(above, "") + data.draw(st.sampled_from([" ", "  "])) + written(below, "-")
    convert = conversion(found, wanted)
    assert (convert.scale, convert.offset) == (1, 0), found


def test_height_stands_for_geopotential_only_where_that_is_meant():
    assert conversion("m", "m2 s-2", standard_name="geopotential").scale == 9.80665
    assert conversion("m2 s-2", "m", standard_name="surface_altitude").scale == pytest.approx(
        1 / 9.80665
    )
    with pytest.raises(DataError, match="cannot be converted"):
        conversion("m", "m2 s-2", standard_name="specific_kinetic_energy")


def test_mass_of_precipitation_stands_for_depth():
    name = "lwe_thickness_of_precipitation_amount"
    assert conversion("kg m-2", "m", standard_name=name).scale == pytest.approx(0.001)


@pytest.mark.parametrize(("found", "wanted"), [("K", "Pa"), ("1", "K"), ("m", "s")])
def test_other_dimensions_are_refused(found, wanted):
    with pytest.raises(DataError, match=f"'{found}' cannot be converted to '{wanted}'"):
        conversion(found, wanted)


@pytest.mark.parametrize("found", ["bananas", "((", "hPa / bananas"])
def test_unknown_units_are_refused(found):
    with pytest.raises(DataError, match="is not understood"):
        conversion(found, "K")


def test_time_references():
    assert is_time_reference("hours since 1900-01-01 00:00:0.0")
    assert not is_time_reference("hours")
