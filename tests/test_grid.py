"""Geometry against values that can be checked by hand."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from climlstm.errors import DataError
from climlstm.grid import (
    Continuation,
    LatLon,
    Plane,
    cell_area_weights,
    great_circle_km,
    grid_of,
    has_pole_row,
    is_periodic,
    reaches_pole,
    wrap_longitude,
)


def latitude(values):
    return xr.DataArray(np.asarray(values, dtype="float64"), dims="latitude")


def test_rows_that_halve_each_hemisphere_by_area():
    """Rows between 0, 30 and 90 degrees: sin 30 = 1/2, so all four have the same area."""
    edges = np.array([90, 30, 0, -30, -90])
    middle = np.array([60, 15, -15, -60])
    area = np.abs(np.diff(np.sin(np.deg2rad(edges))))
    assert area == pytest.approx([0.5] * 4)
    assert cell_area_weights(latitude(middle)).mean() == pytest.approx(1)


@pytest.mark.parametrize("rows", [np.linspace(90, -90, 181), np.linspace(87.1875, -87.1875, 32)])
def test_weights_have_mean_one_and_do_not_vanish_at_the_poles(rows):
    weight = cell_area_weights(latitude(rows))
    assert weight.mean() == pytest.approx(1)
    assert weight.min() > 0
    assert np.allclose(weight, weight[::-1])


def test_weights_do_not_depend_on_the_order_of_rows():
    north_first = cell_area_weights(latitude([60, 50, 40]))
    assert np.allclose(north_first[::-1], cell_area_weights(latitude([40, 50, 60])))


def test_a_quarter_of_the_equator():
    assert great_circle_km(0, 0, 0, 90) == pytest.approx(np.pi / 2 * 6371.0)


def test_distance_does_not_care_how_longitudes_are_counted():
    assert great_circle_km(10, 359, 10, 1) == pytest.approx(great_circle_km(10, -1, 10, 1))


def test_all_meridians_meet_at_the_pole():
    assert great_circle_km(90, 0, 90, 123) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("longitude", "closes"),
    [
        (np.arange(0, 360, 5.625), True),
        (np.arange(-180, 180, 1.0), True),
        (np.arange(0, 359, 1.0), False),
        (np.arange(-25, 46, 1.0), False),
        ([0.0], False),
    ],
)
def test_which_longitudes_close_the_circle(longitude, closes):
    assert is_periodic(longitude) is closes


def test_pole_rows():
    assert has_pole_row([90, 0, -90], 90)
    assert not has_pole_row([87.1875, 0], 90)
    assert reaches_pole(np.linspace(87.1875, -87.1875, 32), -90)
    assert not reaches_pole([75, 74, 73], 90)


def test_wrapping_longitudes():
    assert wrap_longitude([190, -190, 360, 540]).tolist() == [-170, 170, 0, -180]
    assert wrap_longitude([-10], start=0).tolist() == [350]


def gaussian(rows):
    """Latitudes of a Gaussian grid, north to south: roots of the Legendre polynomial."""
    return np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(rows)[0]))[::-1]


@pytest.mark.parametrize("rows", [32, 64, 94, 160, 320, 640])
@pytest.mark.parametrize("order", [1, -1])
def test_gaussian_grids_reach_both_poles(rows, order):
    latitudes = gaussian(rows)[::order]
    for pole in (90, -90):
        assert reaches_pole(latitudes, pole)
        assert not has_pole_row(latitudes, pole)
    assert not reaches_pole(latitudes[1:] if order == 1 else latitudes[:-1], 90)
    assert reaches_pole(latitudes[1:] if order == 1 else latitudes[:-1], -90)
    globe = LatLon(latitudes[::order], np.arange(0, 360, 5.0))
    assert globe.continuation == Continuation(True, "across", "across")


@given(
    rows=st.integers(4, 400), with_poles=st.booleans(), cut=st.integers(1, 3), flip=st.booleans()
)
def test_a_region_that_ends_a_row_short_of_a_pole_is_a_region(rows, with_poles, cut, flip):
    spacing = 180 / (rows - 1 if with_poles else rows)
    first = 90 - (0 if with_poles else spacing / 2)
    latitudes = first - spacing * np.arange(rows)
    assert reaches_pole(latitudes, 90)
    assert reaches_pole(latitudes, -90)
    part = latitudes[cut:][::-1] if flip else latitudes[cut:]
    if part.size > 1:
        assert not reaches_pole(part, 90)


def test_what_lies_beyond_a_grid():
    columns = np.arange(0, 360, 1.5)
    assert LatLon(np.linspace(90, -90, 121), columns).continuation == Continuation(
        True, "point", "point"
    )
    assert LatLon(np.linspace(60, 30, 21), columns).continuation == Continuation(True)
    assert LatLon(np.linspace(90, 30, 41), columns[:20]).continuation == Continuation()


def test_a_grid_has_place_area_and_coordinates():
    grid = LatLon(np.array([45.0, 0.0, -45.0]), np.array([0.0, 90.0]))
    assert grid.latitude.shape == grid.longitude.shape == grid.area.shape == grid.shape == (3, 2)
    assert grid.area.mean() == pytest.approx(1)
    again = grid_of(xr.Dataset(coords=grid.coordinates()))
    assert again.kind == "latlon"
    np.testing.assert_array_equal(again.longitude, grid.longitude)


def test_a_plane_says_that_it_is_one():
    plane = Plane.of_size(3, 4)
    again = grid_of(xr.Dataset(coords=plane.coordinates()))
    assert again.kind == "plane"
    assert (again.area == 1).all()
    assert again.continuation == Continuation()
    strange = xr.Dataset(coords=plane.coordinates())
    strange["latitude"].attrs["grid"] = "hexagons"
    with pytest.raises(DataError, match="grid is 'hexagons'"):
        grid_of(strange)
