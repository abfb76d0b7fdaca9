"""Weather from the streamfunctions of the simulated atmosphere: pressure, wind, temperature.

Each quantity follows from the state of the model at the same time, by a stated formula.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.data.sources.units import STANDARD_GRAVITY
from climlstm.grid import LatLon
from climlstm.simulation.quasigeostrophic import (
    GAS_CONSTANT,
    RADIUS,
    ROTATION,
    TRUNCATION,
    QuasiGeostrophic,
    land_fraction,
    orography,
)
from climlstm.simulation.spherical import Complex, Real, SphericalHarmonics

Float32 = NDArray[np.float32]

LAPSE_RATE = 6.5e-3
"""Lapse rate of the standard atmosphere (ICAO), K m-1."""
STANDARD_HEIGHT = (11784.0, 5574.0, 1949.0)
"""Geopotential height of 200, 500 and 800 hPa in the standard atmosphere (ICAO), m:
the global means, which the model leaves open."""
MEAN_PRESSURE = 101325.0
"""Global mean of pressure at mean sea level, Pa."""
SURFACE_TEMPERATURE = 288.15
"""Temperature at the ground of the standard atmosphere (ICAO), K."""
WIND_AT_SEA, WIND_ON_LAND = (0.8, 15.0), (0.6, 35.0)
"""Boundary layer: wind at 10 m over the wind above it, and degrees that it is turned towards low
pressure, in the observed range; values in between where a cell is partly land."""

CHANNELS = {
    "msl": ("air_pressure_at_mean_sea_level", "mean sea level pressure", "Pa"),
    "u10": ("eastward_wind", "10 m eastward wind", "m s-1"),
    "v10": ("northward_wind", "10 m northward wind", "m s-1"),
    "t850": ("air_temperature", "temperature at 850 hPa", "K"),
    "z500": ("geopotential", "geopotential at 500 hPa", "m2 s-2"),
    "z200": ("geopotential", "geopotential at 200 hPa", "m2 s-2"),
}
STATIC = {
    "orography": ("surface_altitude", "height of the idealised mountains", "m"),
    "land_mask": ("land_area_fraction", "share of land", "1"),
}
"""standard_name, long_name and units of the channels and static fields."""


def diagnose(model: QuasiGeostrophic, vorticity: Complex) -> dict[str, Float32]:
    """The channels (member, latitude, longitude) of states of potential vorticity.

    Geopotential balances the streamfunction at each level. The flow at 800 hPa stands for that at
    the ground, as it does in the friction of the model; pressure at mean sea level follows from
    its geopotential Φ, less the global mean, hydrostatically: p = p0 exp(Φ / R T). Temperature at
    850 hPa follows from the thickness of 500-800 hPa with a constant lapse rate γ: T(p) =
    T850 (p / 850)^k with k = R γ / g, so that Φ500 - Φ800 = T850 g / γ ((800/850)^k - (500/850)^k).
    For the wind at 10 m see `WIND_AT_SEA`.
    """
    grid = output_grid()
    streamfunction = model.streamfunction(vorticity)
    deviation = grid.synthesise(balanced_geopotential(model.harmonics, streamfunction))
    geopotential = deviation + STANDARD_GRAVITY * np.array(STANDARD_HEIGHT)[:, None]
    exponent = GAS_CONSTANT * LAPSE_RATE / STANDARD_GRAVITY
    warmth = (800 / 850) ** exponent - (500 / 850) ** exponent
    thickness = geopotential[:, :, 1] - geopotential[:, :, 2]
    u10, v10 = _boundary_layer(*grid.rotational_wind(streamfunction[:, :, -1]))
    fields = {
        "msl": MEAN_PRESSURE * np.exp(deviation[:, :, -1] / (GAS_CONSTANT * SURFACE_TEMPERATURE)),
        "u10": u10,
        "v10": v10,
        "t850": LAPSE_RATE / STANDARD_GRAVITY * thickness / warmth,
        "z500": geopotential[:, :, 1],
        "z200": geopotential[:, :, 0],
    }
    return {name: field.T.astype(np.float32) for name, field in fields.items()}


def balanced_geopotential(harmonics: SphericalHarmonics, streamfunction: Complex) -> Complex:
    """Geopotential (m, n, …), m2 s-2, with global mean zero, by the nonlinear balance equation.

    The divergence equation for rotational wind that stays so (Charney 1955, Tellus 7, 22):
    ∇²Φ = ∇·((f + ζ) ∇ψ) - ∇²(|∇ψ|² / 2). Lows are deeper and highs flatter than in geostrophic
    balance. Nothing is divided by the Coriolis parameter, so the equator is no exception.
    """
    trailing = [1] * (streamfunction.ndim - 2)
    laplacian = harmonics.laplacian.reshape(-1, *trailing)
    coriolis = 2 * ROTATION * np.sin(np.deg2rad(harmonics.latitude)).reshape(-1, *trailing)
    gradient = 2 * ROTATION * np.cos(np.deg2rad(harmonics.latitude)) / RADIUS
    vorticity = laplacian * streamfunction
    absolute = coriolis + harmonics.synthesise(vorticity)
    psi_x, psi_y = harmonics.gradient(streamfunction)
    zeta_x, zeta_y = harmonics.gradient(vorticity)
    zeta_y = zeta_y + gradient.reshape(-1, *trailing)
    forcing = absolute * (absolute - coriolis) + zeta_x * psi_x + zeta_y * psi_y
    geopotential = harmonics.invert_laplacian(harmonics.analyse(forcing))
    geopotential -= harmonics.analyse((psi_x**2 + psi_y**2) / 2)
    geopotential[0, 0] = 0
    return geopotential


def _boundary_layer(east: Real, north: Real) -> tuple[Real, Real]:
    """Wind at 10 m from the wind above the boundary layer, each (longitude, latitude, member)."""
    grid = output_grid()
    land = land_fraction(grid.latitude, grid.longitude).T[:, :, None]
    factor, degrees = (
        sea + (ground - sea) * land for sea, ground in zip(WIND_AT_SEA, WIND_ON_LAND, strict=True)
    )
    side = np.tanh(grid.latitude / 15)[:, None]  # to the left in the north; smooth at the equator
    angle = np.deg2rad(degrees) * side
    return (
        factor * (east * np.cos(angle) - north * np.sin(angle)),
        factor * (east * np.sin(angle) + north * np.cos(angle)),
    )


@cache
def output_grid() -> SphericalHarmonics:
    """The 5.625 degree grid of WeatherBench, 64 x 32: latitudes 87.1875 to -87.1875."""
    latitude = 90 - 180 / 32 * (np.arange(32) + 0.5)
    return SphericalHarmonics(TRUNCATION, latitude=latitude, longitude_count=64, radius=RADIUS)


def labelled(fields: dict[str, Float32], coordinates: Mapping[str, xr.Variable]) -> xr.Dataset:
    """The channels as a Dataset, with these leading dimensions before latitude and longitude."""
    dimensions = (*coordinates, "latitude", "longitude")
    variables = {
        name: xr.Variable(dimensions, fields[name], _attributes(*names))
        for name, names in CHANNELS.items()
    }
    return xr.Dataset(variables, {**coordinates, **_places()})


def static_fields() -> xr.Dataset:
    """Orography and land mask of the model, (latitude, longitude)."""
    grid = output_grid()
    values = {
        "orography": orography(grid.latitude, grid.longitude),
        "land_mask": land_fraction(grid.latitude, grid.longitude),
    }
    variables = {
        name: xr.Variable(
            ("latitude", "longitude"), values[name].astype(np.float32), _attributes(*names)
        )
        for name, names in STATIC.items()
    }
    return xr.Dataset(variables, _places())


def _places() -> dict[str, Any]:
    grid = output_grid()
    latitude, longitude = (np.asarray(x, "float64") for x in (grid.latitude, grid.longitude))
    return LatLon(latitude, longitude).coordinates()


def _attributes(standard_name: str, long_name: str, units: str) -> dict[str, str]:
    return {"standard_name": standard_name, "long_name": long_name, "units": units}
