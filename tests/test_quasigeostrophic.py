"""The quasi-geostrophic model against what its equations promise."""

from dataclasses import replace

import numpy as np
import pytest

from climlstm.simulation.quasigeostrophic import (
    DAY,
    ROTATION,
    STEP,
    Parameters,
    QuasiGeostrophic,
    land_fraction,
    northern_winter,
)

INVISCID = Parameters(
    relaxation_per_day=0, drag_per_day=0, diffusion_per_day=0, trade_wind=0, mountains=0
)
DAYS = np.timedelta64(1, "D")
NEW_YEAR = np.array(["2001-01-01"], "datetime64[ns]")


@pytest.fixture(scope="module")
def developed():
    """Potential vorticity of weather, two months after the start."""
    model = QuasiGeostrophic(Parameters())
    start = NEW_YEAR - 60 * DAYS
    return model.advance(model.initial(0, northern_winter(start)), start, 60 * DAYS)


def energy(model, vorticity):
    """Kinetic and available potential, m2 s-2: minus half the mean of ψ q, of equal layers."""
    psi, q = (
        model.harmonics.synthesise(field) for field in (model.streamfunction(vorticity), vorticity)
    )
    return -model.harmonics.analyse(psi * q)[0, 0].real.sum() / 2


def potential_enstrophy(model, vorticity):
    """Of each level, s-2."""
    q = model.harmonics.synthesise(vorticity + model._ground)
    return model.harmonics.analyse(q**2)[0, 0, :, 0].real / 2


def test_streamfunction_inverts_potential_vorticity(developed):
    model = QuasiGeostrophic(Parameters())
    again = model.potential_vorticity(model.streamfunction(developed))
    np.testing.assert_allclose(again, developed, atol=1e-12 * np.abs(developed).max())


@pytest.mark.parametrize("mountains", [0, 1])
def test_energy_and_potential_enstrophy_are_conserved(developed, mountains):
    """Without forcing and dissipation, to the accuracy of the time step, for ten days."""
    model = QuasiGeostrophic(replace(INVISCID, mountains=mountains))
    later = model.advance(developed, NEW_YEAR, 10 * DAYS)
    assert np.abs(later - developed).max() > 0.1 * np.abs(developed).max()
    assert energy(model, later) == pytest.approx(energy(model, developed), rel=1e-3)
    np.testing.assert_allclose(
        potential_enstrophy(model, later), potential_enstrophy(model, developed), rtol=1e-3
    )


def test_friction_and_diffusion_take_energy(developed):
    calm = replace(Parameters(), jet=(0, 0), land_cooling=(0, 0), trade_wind=0)
    for lost in (
        replace(calm, relaxation_per_day=0, diffusion_per_day=0),
        replace(calm, drag_per_day=0, diffusion_per_day=0),
        replace(calm, drag_per_day=0, relaxation_per_day=0),
    ):
        model = QuasiGeostrophic(lost)
        later = model.advance(developed, NEW_YEAR, DAYS)
        assert energy(model, later) < (1 - 1e-4) * energy(model, developed)


def test_rossby_haurwitz_wave_moves_at_its_analytic_speed():
    """A barotropic wave (m, n) on solid rotation ω moves at ω - 2 (Ω + ω) / (n (n + 1)) rad/s.

    Haurwitz 1940, J. Mar. Res. 3, 254.
    """
    model = QuasiGeostrophic(INVISCID)
    m, n, rotation = 4, 5, 0.05 * ROTATION
    radius = 6.371e6
    psi = np.zeros((22, 22, 3, 1), dtype=complex)
    psi[0, 1] = -rotation * radius**2 / np.sqrt(3)  # -ω a² sin φ
    psi[m, n] = 1e7
    elapsed = 5 * DAYS
    later = model.streamfunction(model.advance(model.potential_vorticity(psi), NEW_YEAR, elapsed))
    speed = rotation - 2 * (ROTATION + rotation) / (n * (n + 1))
    angle = -m * speed * 5 * DAY
    expected = psi.copy()
    expected[m, n] *= np.exp(1j * angle)
    assert abs(angle) > 1  # it has moved
    np.testing.assert_allclose(later, expected, atol=1e-3 * 1e7)


def test_the_equilibrium_jet_alone_stands_still():
    model = QuasiGeostrophic(
        Parameters(drag_per_day=0, diffusion_per_day=0, mountains=0, land_cooling=(0, 0))
    )
    equilibrium = model.equilibrium(np.array([1.0]))
    rate = model.tendency(model.potential_vorticity(equilibrium), equilibrium)
    assert np.abs(rate).max() < 1e-20  # s-2; 1e-10 in developed weather


def test_a_run_continues_bit_for_bit(developed):
    model = QuasiGeostrophic(Parameters())
    at_once = model.advance(developed, NEW_YEAR, 12 * STEP)
    half = model.advance(developed, NEW_YEAR, 6 * STEP)
    assert np.array_equal(at_once, model.advance(half, NEW_YEAR + 6 * STEP, 6 * STEP))


def test_members_have_their_own_season_and_do_not_mix(developed):
    model = QuasiGeostrophic(Parameters())
    times = np.array(["2001-01-01", "2001-07-01"], "datetime64[ns]")
    both = model.advance(np.repeat(developed, 2, axis=-1), times, DAYS)
    for member in (0, 1):
        alone = model.advance(developed, times[[member]], DAYS)
        np.testing.assert_allclose(both[..., [member]], alone, atol=1e-15)
    assert np.abs(both[..., 0] - both[..., 1]).max() > 1e-8


def test_winter_is_at_the_solstice():
    times = np.array(["2010-12-21T18", "2011-06-21T18", "2011-03-21"], "datetime64[ns]")
    np.testing.assert_allclose(northern_winter(times), [1, -1, 0], atol=0.05)


def test_land_is_where_it_is():
    latitude, longitude = np.array([64.6875, 0.0, -81.5625]), np.arange(64) * 5.625
    land = land_fraction(latitude, longitude)
    siberia, pacific, africa = 16, 32, 4
    assert land[0, siberia] == 1
    assert land[1, pacific] == 0
    assert land[1, africa] > 0.9
    assert np.all(land[2, :10] == 1)  # Antarctica
    area = np.cos(np.deg2rad(np.linspace(87.1875, -87.1875, 32)))
    world = land_fraction(np.linspace(87.1875, -87.1875, 32), longitude)
    assert np.average(world.mean(axis=1), weights=area) == pytest.approx(0.29, abs=0.02)
