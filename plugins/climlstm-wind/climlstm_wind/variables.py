"""The variables: entry points of `climlstm.variables`.

Names follow the ECMWF parameter database where it has one (`ws`, `vo`); standard names follow CF.
"""

import numpy as np
import xarray as xr

from climlstm.data.sources.units import STANDARD_GRAVITY
from climlstm.plugins import Style, Variable
from climlstm_wind.sphere import curl, divergence, gradient

DRY_AIR = 287.05
"""Gas constant of dry air, J kg-1 K-1 (WMO)."""

HUB_HEIGHT_M = 100.0
SCREEN_HEIGHT_M = 2.0

SMALL_GRADIENT = 1e-9
"""Gradient (K m-1) below which a front has no direction: a thousandth of a kelvin in 1000 km."""


def air_density_100m(pressure: xr.DataArray, temperature: xr.DataArray) -> xr.DataArray:
    """Density of dry air 100 m above ground, kg m-3.

    pressure: at the surface, Pa; temperature: at 2 m, K.
    The pressure falls hydrostatically in an isothermal layer. Moisture, which makes tropical air
    lighter by up to 1.5 %, and the lapse rate (0.3 %) are left out.
    """
    climb = STANDARD_GRAVITY * (HUB_HEIGHT_M - SCREEN_HEIGHT_M) / DRY_AIR
    return pressure * np.exp(-climb / temperature) / (DRY_AIR * temperature)


def wind_power_density(ds: xr.Dataset) -> xr.DataArray:
    """Flux of kinetic energy through a vertical area 100 m above ground, ρ |V|³ / 2, W m-2."""
    density = air_density_100m(ds["sp"], ds["t2m"])
    return density * np.hypot(ds["u100"], ds["v100"]) ** 3 / 2


def thermal_front_parameter(ds: xr.Dataset) -> xr.DataArray:
    """-∇|∇T| · ∇T / |∇T|, K m-2 (Renard and Clarke 1965, Mon. Wea. Rev. 93, 547; Hewson 1998).

    Positive where the gradient weakens towards the warm air: a front lies on its maximum, on the
    warm side of the zone of strong gradient. Zero where there is no gradient.
    """
    east, north = gradient(ds["t"])
    strength = np.hypot(east, north)
    along, across = gradient(strength)
    there = strength > SMALL_GRADIENT
    return xr.where(there, -(along * east + across * north) / strength.where(there, 1.0), 0.0)


WS = Variable(
    name="ws",
    long_name="Wind speed",
    units="m s-1",
    standard_name="wind_speed",
    era5_name="wind_speed",
    on_levels=True,
    inputs=("u", "v"),
    derive=lambda ds: np.hypot(ds["u"], ds["v"]),
    style=Style(colormap="YlOrRd", limits=(0, 70), contour_interval=10),
)
WS100 = Variable(
    name="ws100",
    long_name="100 m wind speed",
    units="m s-1",
    standard_name="wind_speed",
    inputs=("u100", "v100"),
    derive=lambda ds: np.hypot(ds["u100"], ds["v100"]),
    style=Style(colormap="YlOrRd", limits=(0, 30)),
)
VO = Variable(
    name="vo",
    long_name="Relative vorticity",
    units="s-1",
    standard_name="atmosphere_relative_vorticity",
    era5_name="vorticity",
    on_levels=True,
    inputs=("u", "v"),
    derive=lambda ds: curl(ds["u"], ds["v"]),
    style=Style(colormap="RdBu_r", limits=(-2e-4, 2e-4)),
)
DIV = Variable(
    name="div",
    long_name="Divergence of the horizontal wind",
    units="s-1",
    standard_name="divergence_of_wind",
    era5_name="divergence",
    on_levels=True,
    inputs=("u", "v"),
    derive=lambda ds: divergence(ds["u"], ds["v"]),
    style=Style(colormap="PuOr_r", limits=(-1e-4, 1e-4)),
)
WPD100 = Variable(
    name="wpd100",
    long_name="Wind power density 100 m above ground",
    units="W m-2",
    inputs=("u100", "v100", "sp", "t2m"),
    derive=wind_power_density,
    style=Style(colormap="YlGnBu", limits=(0, 2500)),
)
TFP = Variable(
    name="tfp",
    long_name="Thermal front parameter",
    units="K m-2",
    on_levels=True,
    inputs=("t",),
    derive=thermal_front_parameter,
    style=Style(colormap="RdBu_r", limits=(-1e-10, 1e-10)),
)
