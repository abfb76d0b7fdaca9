"""Spherical harmonics against functions that can be written down."""

import numpy as np
import pytest

from climlstm.simulation.spherical import SphericalHarmonics, legendre

RADIUS = 2.0


@pytest.fixture(scope="module")
def harmonics():
    return SphericalHarmonics.gaussian(21, radius=RADIUS)


@pytest.fixture
def coefficients(harmonics):
    generator = np.random.default_rng(0)
    shape = (*harmonics.kept.shape, 3)
    values = generator.normal(size=shape) + 1j * generator.normal(size=shape)
    values[0] = values[0].real
    return values * harmonics.kept[:, :, None]


def angles(harmonics):
    return np.deg2rad(harmonics.longitude)[:, None], np.deg2rad(harmonics.latitude)


def area_mean(harmonics, values):
    return harmonics.analyse(values)[0, 0].real


def test_first_legendre_functions():
    mu = np.array([-0.5, 0.0, 0.8])
    values, slopes = legendre(2, mu)
    cosine = np.sqrt(1 - mu**2)
    np.testing.assert_allclose(values[0, 1], np.sqrt(3) * mu)
    np.testing.assert_allclose(values[1, 1], np.sqrt(3 / 2) * cosine)
    np.testing.assert_allclose(values[0, 2], np.sqrt(5) * (3 * mu**2 - 1) / 2)
    np.testing.assert_allclose(slopes[0, 2], (1 - mu**2) * np.sqrt(5) * 3 * mu, atol=1e-15)


def test_t21_needs_64_by_32_points(harmonics):
    assert (harmonics.longitude.size, harmonics.latitude.size) == (64, 32)
    assert harmonics.latitude[0] == pytest.approx(85.7606, abs=1e-4)  # of every T21 data set


def test_round_trip(harmonics, coefficients):
    there_and_back = harmonics.analyse(harmonics.synthesise(coefficients))
    np.testing.assert_allclose(there_and_back, coefficients, atol=1e-12)


def test_any_latitudes_can_be_synthesised():
    latitude = np.array([85.0, 45.0, 0.0, -30.0])
    grid = SphericalHarmonics(3, latitude=latitude, longitude_count=8, radius=RADIUS)
    gaussian = SphericalHarmonics.gaussian(3, radius=RADIUS)
    lam, phi = angles(gaussian)
    dipole = gaussian.analyse(np.cos(phi) * np.cos(lam))
    lam, phi = angles(grid)
    np.testing.assert_allclose(grid.synthesise(dipole), np.cos(phi) * np.cos(lam), atol=1e-14)


def test_gradient_of_a_dipole(harmonics):
    lam, phi = angles(harmonics)
    east, north = harmonics.gradient(harmonics.analyse(np.cos(phi) * np.cos(lam)))
    np.testing.assert_allclose(east, np.broadcast_to(-np.sin(lam) / RADIUS, east.shape), atol=1e-13)
    np.testing.assert_allclose(north, -np.sin(phi) * np.cos(lam) / RADIUS, atol=1e-13)


def test_gauss_theorem(harmonics, coefficients):
    """The mean of |∇ψ|² is minus that of ψ ∇²ψ."""
    field = coefficients[:, :, 0]
    east, north = harmonics.gradient(field)
    product = harmonics.synthesise(field) * harmonics.synthesise(harmonics.laplacian * field)
    expected = -area_mean(harmonics, product)
    assert area_mean(harmonics, east**2 + north**2) == pytest.approx(expected)


def test_curl_of_the_rotational_wind_is_the_laplacian(harmonics, coefficients):
    field = coefficients[:, :, 0] * (np.arange(22) < 21)  # wind reaches one degree higher
    vorticity = harmonics.curl(*harmonics.rotational_wind(field))
    np.testing.assert_allclose(vorticity, harmonics.laplacian * field, atol=1e-9)
    field[0, 0] = 0
    np.testing.assert_allclose(harmonics.invert_laplacian(vorticity), field, atol=1e-10)
