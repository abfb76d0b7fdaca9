"""How the grid continues beyond its edges."""

import numpy as np
import pytest
import torch

from climlstm.errors import ConfigError
from climlstm.model.convlstm import ConvLSTM
from climlstm.model.geometry import Geometry
from climlstm.model.padding import interior, with_halo
from tests.equations import GLOBE, REGION, halo_numpy, randn, randomise

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


ERA5 = Geometry(721, 1440, True, True, True, pole_row=True)


@pytest.mark.parametrize(
    ("geometry", "patch", "margins", "coarse"),
    [
        (ERA5, 2, (0, 1, 0), (361, 720, False)),
        (ERA5, 3, (1, 1, 0), (241, 480, True)),
        (ERA5, 4, (1, 2, 0), (181, 360, True)),
        (ERA5, 8, (3, 4, 0), (91, 180, True)),
        (Geometry(720, 1440, True, True, True), 8, (0, 0, 0), (90, 180, False)),
        (Geometry(121, 1440, True, True, pole_row=True), 4, (1, 2, 0), (31, 360, True)),
        (Geometry(121, 1440, True, False, True, pole_row=True), 4, (2, 1, 0), (31, 360, True)),
        (Geometry(10, 13), 4, (0, 2, 3), (3, 4, False)),
    ],
)
def test_rows_that_make_no_whole_patches_go_on_beyond_the_edge(geometry, patch, margins, coarse):
    """A row on the pole comes into the middle of a patch, as far as its number of rows allows."""
    assert geometry.margins(patch) == margins
    found = geometry.coarsened(patch)
    assert (found.rows, found.columns, found.pole_row) == coarse


@pytest.mark.parametrize("patch", [2, 3, 4])
def test_patches_on_rows_at_the_poles_turn_with_the_globe(patch):
    geometry = Geometry(13, 24, True, True, True, pole_row=True, sign=(1, -1))
    network = ConvLSTM(2, 1, 0, history=2, geometry=geometry, hidden=(4,), patch=patch)
    randomise(network)
    history, forcing = randn(1, 2, 2, 13, 24), randn(1, 3, 1, 13, 24)
    [first, second] = network.steps(history, forcing)
    turned = network.steps(history.roll(patch, -1), forcing.roll(patch, -1))
    for state, shifted in zip((first, second), turned, strict=True):
        assert state.shape == (1, 2, 13, 24)
        torch.testing.assert_close(shifted, state.roll(patch, -1), atol=1e-5, rtol=1e-5)


def test_patches_on_rows_at_the_poles_see_what_lies_beyond():
    geometry = Geometry(13, 24, True, True, True, pole_row=True, sign=(1, -1))
    network = ConvLSTM(2, 0, 0, history=1, geometry=geometry, hidden=(2,), patch=4)
    [fields] = network._patches(randn(1, 1, 2, 13, 24))
    seen = torch.nn.functional.pixel_shuffle(fields, 4)
    beyond = with_halo(randn(1, 2, 13, 24), 6, geometry, torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(seen, beyond[..., 1:, 2:-2])


def test_columns_that_make_no_whole_patches_round_the_globe_are_refused():
    with pytest.raises(ConfigError, match="Choose a patch of 2, 3, 4, 6, 8, 12, 24"):
        Geometry(12, 24, periodic=True).coarsened(5)


@pytest.mark.parametrize("fold_row", [False, True])
def test_beyond_a_fold_the_rows_come_again_mirrored(fold_row):
    geometry = Geometry(5, 8, periodic=True, fold=7 - fold_row, fold_row=fold_row)
    field, sign = randn(1, 5, 8), torch.tensor([-1.0])
    padded = with_halo(field, 2, geometry, sign)
    for beyond in (1, 2):
        for column in range(-2, 10):
            mirrored = (geometry.fold - column) % 8
            expected = -field[0, beyond - 1 + fold_row, mirrored]
            assert padded[0, 2 - beyond, 2 + column] == expected
    assert (padded[0, -2:] == 0).all()
    assert torch.autograd.gradcheck(
        lambda f: with_halo(f, 2, geometry, sign.double()), field.double().requires_grad_()
    )
