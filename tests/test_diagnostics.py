"""Pressure, wind and temperature against flows whose balance is known in closed form."""

import numpy as np
import pytest

from climlstm.simulation.diagnostics import balanced_geopotential, diagnose, output_grid
from climlstm.simulation.quasigeostrophic import RADIUS, ROTATION, Parameters, QuasiGeostrophic

SPIN = 0.04 * ROTATION
"""Of the air relative to the Earth: 19 m s-1 at the equator."""


@pytest.fixture(scope="module")
def model():
    return QuasiGeostrophic(Parameters())


@pytest.fixture
def solid_rotation():
    """Streamfunction -ω a² sin φ at all levels: zonal wind ω a cos φ."""
    psi = np.zeros((22, 22, 3, 1), dtype=complex)
    psi[0, 1] = -SPIN * RADIUS**2 / np.sqrt(3)
    return psi


def test_solid_rotation_is_in_gradient_wind_balance(model, solid_rotation):
    """(1/a) ∂Φ/∂φ = -(f + u tan φ / a) u gives Φ = -(Ω + ω/2) ω a² sin² φ + constant."""
    geopotential = output_grid().synthesise(balanced_geopotential(model.harmonics, solid_rotation))
    sine = np.sin(np.deg2rad(output_grid().latitude))
    expected = -(ROTATION + SPIN / 2) * SPIN * RADIUS**2 * (sine**2 - 1 / 3)
    np.testing.assert_allclose(geopotential[5, :, 0, 0], expected, atol=1e-6 * np.ptp(expected))


def test_resting_air_is_the_standard_atmosphere(model):
    fields = diagnose(model, np.zeros((22, 22, 3, 1), dtype=complex))
    assert fields["msl"].shape == (1, 32, 64)
    assert np.ptp(fields["msl"]) == 0
    assert fields["msl"][0, 0, 0] == pytest.approx(101325)
    assert fields["z500"][0, 0, 0] / 9.80665 == pytest.approx(5574)
    assert fields["t850"][0, 0, 0] == pytest.approx(288.15 - 0.0065 * 1457, abs=0.1)
    assert fields["u10"][0, 0, 0] == fields["v10"][0, 0, 0] == 0


def test_thickness_is_temperature(model, solid_rotation):
    """10 K m of thickness: ΔΦ = R T ln(800/500), for a layer around 632 hPa."""
    psi = solid_rotation * np.array([0, 1, 0])[:, None]  # flow at 500 hPa only
    fields = diagnose(model, model.potential_vorticity(psi))
    change = fields["t850"] - fields["t850"].mean()
    layer = (fields["z500"] - fields["z500"].mean()) / (287.05 * np.log(800 / 500))
    at_850 = (850 / np.sqrt(500 * 800)) ** (287.05 * 0.0065 / 9.80665)  # warmer below
    np.testing.assert_allclose(change, layer * at_850, rtol=0.01, atol=0.05)


def test_surface_wind_is_weaker_and_blows_towards_low_pressure(model, solid_rotation):
    """Westerlies, with low pressure at both poles."""
    fields = diagnose(model, model.potential_vorticity(solid_rotation))
    north, south = 7, 24  # 48 degrees
    westerly = SPIN * RADIUS * np.cos(np.deg2rad(output_grid().latitude[north]))
    speed = np.hypot(fields["u10"], fields["v10"])[0]
    assert np.all(fields["u10"][0, [north, south]] > 0)
    assert np.all(fields["v10"][0, north] > 0)
    assert np.all(fields["v10"][0, south] < 0)
    np.testing.assert_allclose(speed[south].max() / westerly, 0.8, atol=0.01)
    assert 0.59 < speed[north].min() / westerly < speed[north].max() / westerly <= 0.81
