"""Places in words on a grid: countries as Natural Earth draws them."""

import numpy as np
import pytest

from climlstm.errors import DataError
from climlstm.grid import LatLon
from climlstm.grid.countries import country_rings, in_country
from climlstm.grid.places import place_mask


@pytest.fixture(scope="module")
def globe():
    return LatLon(np.arange(89.5, -90, -1), np.arange(0.5, 360, 1))


def km2(mask, grid) -> float:
    """Area on a sphere of 6371 km."""
    return float(grid.area[mask].sum() / grid.area.sum() * 4 * np.pi * 6371**2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("australia", 7.69e6), ("BRA", 8.51e6), ("Russia", 16.9e6), ("antarctica", 12.3e6)],
)
def test_a_country_has_its_area(globe, name, expected):
    """Across the 180th meridian and around the pole, too; CIA World Factbook, Russia on its maps
    without the seas that it counts, Antarctica without shelves."""
    mask = place_mask(f"country:{name}", globe)
    assert km2(mask, globe) == pytest.approx(expected, rel=0.03)


def test_countries_agree_with_shapely():
    shapely = pytest.importorskip("shapely")
    random = np.random.default_rng(0)
    phi, lam = random.uniform(-40, -20, 3000), random.uniform(14, 36, 3000)
    outer, *holes = country_rings("ZAF")  # Lesotho is a hole of it
    whole = shapely.Polygon(outer)
    polygon = shapely.Polygon(outer, [h for h in holes if whole.contains(shapely.Point(h[0]))])
    inside = shapely.contains_xy(polygon, lam, phi)
    assert 300 < inside.sum() < 2000
    np.testing.assert_array_equal(in_country("South Africa", phi, lam), inside)


def test_countries_join_other_places(globe):
    france = place_mask("country:france", globe)
    mainland = place_mask("country:FRA and box:40..52,-6..10", globe)
    assert 0 < mainland.sum() < france.sum()  # without Guiana and Réunion
    assert not (mainland & place_mask("country:germany", globe)).any()


def test_an_unknown_country_gets_the_nearest_name(globe):
    with pytest.raises(DataError, match=r"no country 'germny'\. Did you mean 'germany'"):
        place_mask("country:germny", globe)
    for name in ("new_zealand", "NZL"):  # the two spellings that the message shows
        assert place_mask(f"country:{name}", globe).any()


def test_maps_show_a_country_and_a_box():
    pytest.importorskip("cartopy")
    from climlstm.plots.projections import region_bounds

    italy = region_bounds("country:italy")
    assert (6 < italy.west + 1 < 8, 18 < italy.east - 1 < 19) == (True, True)
    assert region_bounds("box:45..55,-10..20") == region_bounds((-10, 20, 45, 55))
    across = region_bounds("country:RUS")
    assert across.west < 30
    assert across.east > 185
