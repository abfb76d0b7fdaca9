"""How the grid continues beyond its edges."""

import numpy as np
import pytest
import torch

from climlstm.errors import ConfigError
from climlstm.model.convlstm import ConvLSTM
from climlstm.model.padding import Geometry, interior, with_halo
from tests.equations import GLOBE, REGION, halo_numpy, randn

torch.set_num_threads(1)


@pytest.mark.parametrize("pole_row", [False, True])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("poles", [(False, False), (True, False), (False, True), (True, True)])
def test_halo_is_what_lies_beyond(periodic, poles, pole_row):
    if any(poles) and not periodic:
        pytest.skip("no pole without the whole circle")
    geometry = Geometry(
        4, 6, periodic=periodic, north_pole=poles[0], south_pole=poles[1], pole_row=pole_row
    )
    field = randn(2, 4, 6)
    for width in (0, 1, 2):
        padded = with_halo(field, width, geometry)
        np.testing.assert_array_equal(padded, halo_numpy(field.numpy(), width, geometry))
        assert torch.equal(interior(padded, width), field)


@pytest.mark.parametrize("geometry", [GLOBE, Geometry(5, 6, True, True, pole_row=True), REGION])
def test_gradient_of_a_halo(geometry):
    field = randn(2, 3, geometry.rows, geometry.columns, dtype=torch.float64).requires_grad_()
    sign = torch.tensor([1.0, -1.0, -1.0])
    assert torch.autograd.gradcheck(lambda f: with_halo(f, 2, geometry, sign), field)


def rotation_about_an_equatorial_axis(latitude: np.ndarray, longitude: np.ndarray) -> torch.Tensor:
    """(3, H, W): wind of a globe that turns about the axis 0N 0E, and a scalar that it carries.

    u = -sin(lat) cos(lon), v = sin(lon); the scalar is the z coordinate rotated by 30 degrees.
    Smooth on the sphere, with wind across both poles. The formulas hold at |lat| > 90 too, where
    the row lies beyond the pole and east and north have turned round.
    """
    phi, lam = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)
    u, v = -np.sin(phi) * np.cos(lam), np.sin(lam) * np.ones_like(phi)
    scalar = np.cos(phi) * np.sin(lam) * 0.5 + np.sin(phi) * np.sqrt(0.75)
    return torch.from_numpy(np.stack([u, v, scalar]))


@pytest.mark.parametrize("pole_row", [False, True])
def test_field_turned_through_a_pole_stays_smooth_and_wind_changes_sign_there(pole_row):
    latitude = np.linspace(90, -90, 13) if pole_row else np.linspace(82.5, -82.5, 12)
    spacing, longitude = 15.0, np.arange(0, 360, 15.0)
    geometry = Geometry(
        len(latitude), 24, periodic=True, north_pole=True, south_pole=True, pole_row=pole_row
    )
    rim = np.array([2 * spacing, spacing])
    beyond = np.concatenate([latitude[0] + rim, latitude, latitude[-1] - rim[::-1]])
    around = np.arange(-30, 390, 15.0)
    expected = rotation_about_an_equatorial_axis(beyond, around)
    padded = with_halo(
        rotation_about_an_equatorial_axis(latitude, longitude),
        2,
        geometry,
        torch.tensor([-1.0, -1.0, 1.0]),
    )
    torch.testing.assert_close(padded, expected)


def test_pole_without_the_whole_circle_is_refused():
    with pytest.raises(ConfigError, match="half a turn away"):
        Geometry(4, 6, north_pole=True)
    with pytest.raises(ConfigError, match="half a turn away"):
        Geometry(4, 5, periodic=True, south_pole=True)


def test_kernel_wider_than_the_grid_is_refused():
    with pytest.raises(ConfigError, match="too wide"):
        ConvLSTM(1, 0, 0, history=1, geometry=REGION, hidden=(2,), kernel=9)


def test_patches_that_do_not_divide_the_grid_are_refused():
    with pytest.raises(ConfigError, match=r"patches of 2 by 2 cells\. Choose a patch"):
        ConvLSTM(1, 0, 0, history=1, geometry=REGION, hidden=(2,), patch=2)
