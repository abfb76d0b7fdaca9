"""Geometry against values that can be checked by hand."""

import numpy as np
import pytest
import xarray as xr

from climlstm.grid import (
    cell_area_weights,
    great_circle_km,
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
