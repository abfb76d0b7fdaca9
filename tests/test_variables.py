"""Names of channels, and what the built-in variables say of themselves."""

import numpy as np
import pytest
import xarray as xr

from climlstm import plugins
from climlstm.data.sources.units import conversion
from climlstm.errors import PluginError
from climlstm.plugins.channels import channel

BUILT_IN = [p.name for p in plugins.discover("variables") if p.distribution == "climlstm"]


@pytest.mark.parametrize(
    ("name", "variable", "level"),
    [
        ("t2m", "t2m", None),
        ("z500", "z", 500),
        ("u850", "u", 850),
        ("orography", "orography", None),
    ],
)
def test_channel_is_a_variable_and_a_level(name, variable, level):
    found = channel(name)
    assert (found.name, found.variable.name, found.level) == (name, variable, level)


def test_u10_is_the_wind_at_10_m_and_u100hpa_that_at_100_hpa():
    assert channel("u10").level is None
    assert channel("u100").variable.era5_name == "100m_u_component_of_wind"
    assert (channel("u100hPa").variable.name, channel("u100hPa").level) == ("u", 100)


def test_unknown_channel_names_the_nearest():
    with pytest.raises(PluginError, match=r"no channel 't2n'. Did you mean 't2m'"):
        channel("t2n")
    with pytest.raises(PluginError, match="no channel 'zz500'"):
        channel("zz500")


def test_variable_on_levels_needs_one():
    with pytest.raises(PluginError, match=r"'z' is kept on pressure levels.*'z500'"):
        channel("z")


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_variables_are_complete(name):
    variable = plugins.load("variables", name)
    assert variable.name == name
    assert variable.long_name
    if variable.style.units:
        conversion(variable.units, variable.style.units, standard_name=variable.standard_name)


def test_pairs_of_wind_components_change_sign_across_a_pole():
    signs = {name: plugins.load("variables", name).component for name in BUILT_IN}
    assert {name for name, sign in signs.items() if sign == "eastward"} == {"u", "u10", "u100"}
    assert {name for name, sign in signs.items() if sign == "northward"} == {"v", "v10", "v100"}


def test_no_name_means_two_variables():
    """An alias may be shared only by z, on levels, and the orography, on none."""
    owner: dict[tuple[str, bool], str] = {}
    for name in BUILT_IN:
        variable = plugins.load("variables", name)
        for alias in {variable.name, variable.era5_name, *variable.aliases} - {None}:
            key = (alias.lower(), variable.on_levels)
            assert owner.setdefault(key, name) == name


def test_wind_speed_is_the_length_of_the_vector():
    wind = xr.Dataset({"u10": ("x", np.float32([3, 0])), "v10": ("x", np.float32([-4, 2]))})
    np.testing.assert_array_equal(channel("ws10").variable.derive(wind), [5, 2])
