"""Projected and curvilinear grids: places, areas, angles and seams, against values known apart."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from climlstm.environment import import_pyproj
from climlstm.errors import DataError
from climlstm.grid import Curvilinear, Projected, from_dict, grid_of, to_dict
from climlstm.grid.find import find_placed
from climlstm.grid.mappings import from_cf, from_text, from_wrf, rotated_pole

REAL = Path(__file__).parents[2] / "shared" / "data" / "real"
LAMBERT = "+proj=lcc +lat_0=25 +lon_0=265 +lat_1=25 +lat_2=25 +R=6371200"
needs_files = pytest.mark.skipif(not REAL.is_dir(), reason="the real data set is not here")


def lambert(rows=9, columns=12, spacing=80e3):
    y = 2e6 - spacing * np.arange(rows)
    return Projected(y, spacing * np.arange(columns) - 4e5, from_text(LAMBERT).to_wkt())


def tripolar(rows=12, columns=24):
    """Curvilinear cells: latitude rows, above 60 degrees an ellipse that folds onto a line."""
    lam = (np.arange(columns) + 0.5) * 360 / columns
    south = np.linspace(-40, 60, rows // 2)
    latitude = [np.full(columns, value) for value in south]
    longitude = [lam] * south.size
    for part in (np.arange(rows - rows // 2) + 1) / (rows - rows // 2 + 0.5):
        x, y = 30 * np.cos(np.deg2rad(lam)), 30 * (1 - part) * np.sin(np.deg2rad(lam))
        latitude.append(90 - np.hypot(x, y))
        longitude.append(np.rad2deg(np.arctan2(y, x)) % 360)
    return np.array(latitude), np.array(longitude)


def dataset(latitude, longitude, **attributes):
    return xr.Dataset(
        {"tos": (("time", "j", "i"), np.zeros((1, *latitude.shape)))},
        {"lat": (("j", "i"), latitude, {"standard_name": "latitude"} | attributes),
         "lon": (("j", "i"), longitude, {"standard_name": "longitude"})},
    )  # fmt: skip


def source_of(grid, *, scale=1.0, units="m", mapping=True):
    """A file on a projected grid as others write it: rows from the south, no 2-D coordinates."""
    names = ("projection_y_coordinate", "projection_x_coordinate")
    coords = {
        dim: (dim, values * scale, {"units": units, "standard_name": name})
        for dim, values, name in zip(("y", "x"), (grid.y[::-1], grid.x), names, strict=True)
    }
    source = xr.Dataset({"t": (("y", "x"), np.zeros(grid.shape))}, coords)
    attributes = {k: v for k, v in grid.crs.to_cf().items() if k != "crs_wkt"}
    return source.assign(proj=((), 0, attributes)) if mapping else source


def test_rotated_pole_by_the_formula_of_the_sphere():
    """sin(lat) = sin(lat') sin(pole) + cos(lat') cos(lon') cos(pole): COSMO's transformation."""
    crs = rotated_pole(39.25, -162.0, 0.0, 6371229.0)
    grid = Projected(np.array([10.0, -20.0]), np.array([-15.0, 5.0, 25.0]), crs.to_wkt())
    phi, lam = np.deg2rad(grid.y)[:, None], np.deg2rad(grid.x)
    pole = np.deg2rad(39.25)
    sine = np.sin(phi) * np.sin(pole) + np.cos(phi) * np.cos(lam) * np.cos(pole)
    np.testing.assert_allclose(np.sin(np.deg2rad(grid.latitude)), sine, atol=1e-9)
    assert grid.latitude.min() > 15


def test_areas_of_a_projection_are_those_of_its_cells_on_the_ellipsoid():
    grid = lambert()
    crs, half = grid.crs, 40e3
    geod = import_pyproj().Geod(a=6371200, b=6371200)
    to_place = import_pyproj().Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    ring = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    steps = np.linspace(-1, 1, 20)
    found = np.empty(grid.shape)
    for i, y in enumerate(grid.y):
        for j, x in enumerate(grid.x):
            edges = [np.outer(1 - (steps + 1) / 2, a) + np.outer((steps + 1) / 2, b)
                     for a, b in zip(ring, ring[1:] + ring[:1], strict=True)]  # fmt: skip
            corners = np.concatenate(edges) * half
            lon, lat = to_place.transform(x + corners[:, 0], y + corners[:, 1])
            found[i, j] = abs(geod.polygon_area_perimeter(lon, lat)[0])
    np.testing.assert_allclose(grid.area, found / found.mean(), rtol=2e-5)
    assert np.ptp(grid.area) > 0.02


def test_rows_of_a_lambert_cone_turn_by_its_constant():
    grid = lambert()
    expected = -np.sin(np.deg2rad(25)) * np.deg2rad(grid.longitude + 95)
    np.testing.assert_allclose(grid.angle, expected, atol=1e-7)


@pytest.mark.parametrize(("scale", "units"), [(1.0, "m"), (1e-3, "km"), (1.0, "meters")])
def test_kilometres_and_rows_from_the_south_give_the_same_grid(scale, units):
    grid = lambert()
    found = find_placed(source_of(grid, scale=scale, units=units))
    np.testing.assert_allclose(found.grid.latitude, grid.latitude, atol=1e-9)
    assert found.rows.indices.tolist() == list(range(8, -1, -1))


def test_a_projection_in_kilometres_is_kept_in_metres():
    crs = from_text(LAMBERT + " +units=km")
    assert {axis.unit_conversion_factor for axis in crs.axis_info} == {1.0}
    place = Projected(np.array([1e6]), np.array([1e6]), crs.to_wkt())
    same = Projected(np.array([1e6]), np.array([1e6]), from_text(LAMBERT).to_wkt())
    np.testing.assert_allclose(place.latitude, same.latitude)


def test_a_mapping_that_arithmetic_lost_is_found_by_places_or_by_itself():
    grid = lambert()
    with_places = xr.Dataset({"t": (grid.dims, np.zeros(grid.shape))}, grid.coordinates())
    assert find_placed(with_places).grid.kind == "projected"
    without = find_placed(with_places.drop_vars("crs") * 2)
    assert without.grid.kind == "curvilinear"
    np.testing.assert_allclose(without.grid.latitude, grid.latitude)
    inside = (slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(without.grid.area[inside], grid.area[inside], rtol=2e-3)
    with pytest.raises(DataError, match="crs: EPSG"):
        find_placed(source_of(grid, mapping=False))


def test_the_long_form_of_a_grid_mapping():
    source = source_of(lambert())
    source["other"] = ((), 0, {"grid_mapping_name": "latitude_longitude"})
    source["t"].attrs["grid_mapping"] = "other: lat lon proj: x y"
    assert find_placed(source).grid.kind == "projected"


def test_a_mapping_that_contradicts_the_places_loses():
    grid = lambert()
    source = xr.Dataset({"t": (grid.dims, np.zeros(grid.shape))}, grid.coordinates())
    moved = source.assign_coords(longitude=source.longitude + 20)
    found = find_placed(moved).grid
    assert found.kind == "curvilinear"
    np.testing.assert_allclose(found.longitude, grid.longitude + 20)


def test_numbers_of_rows_are_no_metres():
    grid = lambert()
    source = xr.Dataset({"t": (grid.dims, np.zeros(grid.shape))}, grid.coordinates())
    numbered = source.assign_coords(
        y=("y", np.arange(9.0), {"units": "1"}), x=("x", np.arange(12.0), {"units": "1"})
    )
    np.testing.assert_allclose(find_placed(numbered).grid.y, grid.y, atol=1e-3)


def test_coarse_cells_lie_in_the_middle_of_their_blocks():
    grid = lambert(8, 12)
    coarse = grid.coarsened(2)
    blocks = grid.area.reshape(4, 2, 6, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse.area, blocks / blocks.mean(), rtol=1e-4)
    curved = Curvilinear.of(grid.latitude, grid.longitude).coarsened(2)
    np.testing.assert_allclose(curved.latitude, coarse.latitude, atol=0.02)


@pytest.mark.parametrize("grid", [lambert(), Curvilinear.of(*tripolar())])
def test_stores_and_checkpoints_keep_a_grid(grid, tmp_path):
    assert from_dict(json.loads(json.dumps(to_dict(grid)))) == grid
    data = xr.Dataset({"t": (grid.dims, np.zeros(grid.shape))}, grid.coordinates())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        data.to_zarr(tmp_path / "cube.zarr")
    assert grid_of(xr.open_zarr(tmp_path / "cube.zarr")) == grid


def test_a_tripolar_grid_wraps_and_folds():
    latitude, longitude = tripolar()
    grid = find_placed(dataset(latitude, longitude)).grid
    assert grid.latitude[0].mean() > grid.latitude[-1].mean()
    beyond = grid.continuation
    assert (beyond.wraps, beyond.north, beyond.south, beyond.shift) == (True, "fold", "ends", 23)


def test_columns_and_rows_that_come_twice_are_taken_once():
    latitude, longitude = tripolar()
    mirrored = [np.concatenate([each, each[-1:, ::-1]]) for each in (latitude, longitude)]
    doubled = [np.concatenate([e[:, -1:], e, e[:, :1]], axis=1) for e in mirrored]
    found = find_placed(dataset(*doubled))
    assert found.grid.shape == (12, 24)
    np.testing.assert_allclose(found.grid.latitude, latitude[::-1])
    assert found.columns.indices.tolist() == list(range(1, 25))


def test_cells_without_a_place_have_no_area():
    latitude, longitude = tripolar()
    latitude[3, 4] = longitude[7, 7:9] = latitude[7, 7:9] = 0
    latitude[3, 4] = np.nan
    grid = find_placed(dataset(latitude, longitude)).grid
    assert (grid.area == 0).sum() == 3
    assert np.isfinite(grid.latitude).all()
    assert grid.area.mean() == pytest.approx(1)


def test_areas_come_from_the_file_before_corners():
    latitude, longitude = tripolar()
    area = np.arange(latitude.size, dtype="float64").reshape(latitude.shape)
    source = dataset(latitude, longitude).assign(areacello=(("j", "i"), area))
    np.testing.assert_allclose(find_placed(source).grid.area[::-1], area / area.mean())


def test_a_mapping_that_cannot_be_read_says_what_to_declare():
    with pytest.raises(DataError, match="'crs: EPSG"):
        from_cf({"grid_mapping_name": "lambert_conformal_conic"}, "crs")
    with pytest.raises(DataError, match="is no projection"):
        from_text("nonsense")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"MAP_PROJ": 1, "TRUELAT1": 30.0, "TRUELAT2": 60.0}, "Lambert"),
        ({"MAP_PROJ": 2, "TRUELAT1": -70.0, "TRUELAT2": -70.0}, "Polar Stereographic"),
        ({"MAP_PROJ": 3, "TRUELAT1": 20.0, "TRUELAT2": 0.0}, "Mercator"),
        ({"MAP_PROJ": 6, "POLE_LAT": 39.25, "POLE_LON": 180.0}, "Pole rotation"),
    ],
)
def test_projections_of_wrf(attributes, expected):
    given = {"CEN_LAT": 45.0, "STAND_LON": 10.0} | attributes
    assert expected in from_wrf(given).to_wkt()


@needs_files
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cordex_rotated_pole/tas_EUR-22_MPI-M-MPI-ESM-LR_rcp85_r1i1p1_GERICS-REMO2015_v1_mon_"
         "202101.nc", "projected"),
        ("cordex_rotated_pole/psl_EUR-11_MOHC-HadGEM2-ES_rcp85_r1i1p1_IPSL-WRF381P_v1_day_"
         "20110101-20201231.nc", "curvilinear"),
        ("projected_grids/test_lcc.nc", "projected"),
        ("projected_grids/tmean_1910_1910.nc", "projected"),
        ("cmip6_tos_curvilinear/tos_Omon_CESM2-FV2_historical_r1i1p1f1_gn_200001.nc",
         "curvilinear"),
        ("cmip6_tos_curvilinear/tos_Omon_CNRM-CM6-1_ssp245_r1i1p1f2_gn_201501.nc", "curvilinear"),
    ],
)  # fmt: skip
def test_real_files_lie_where_their_coordinates_say(name, kind):
    source = xr.open_dataset(REAL / name, engine="netcdf4", decode_timedelta=False)
    found = find_placed(source)
    assert found.grid.kind == kind
    cells = np.ix_(found.rows.indices, found.columns.indices)
    latitude = source["lat"].values[cells]
    there = found.grid.area > 0
    np.testing.assert_allclose(found.grid.latitude[there], latitude[there], atol=5e-4)
    assert (np.diff(found.grid.latitude[:, 0]) < 0).all()


@needs_files
def test_radar_in_kilometres_is_256_km_wide():
    [file] = (REAL / "radar_bom_melbourne_2018_06_16").glob("*_100000.*")
    grid = find_placed(xr.open_dataset(file, engine="netcdf4", decode_timedelta=False)).grid
    assert np.ptp(grid.latitude) == pytest.approx(256 / 111.0, rel=0.02)


@needs_files
def test_keys_of_grib_give_the_projection_and_its_sphere():
    pytest.importorskip("cfgrib", reason="needs the extra grib")
    from climlstm.data.sources.catalog import open_path

    source = open_path(str(REAL / "projected_grids" / "lambert_grid.grib"))
    grid = find_placed(source).grid
    np.testing.assert_allclose(np.diff(grid.x), 2500, atol=0.1)
    assert "+R=6367470" in grid.crs.to_proj4()
    np.testing.assert_allclose(grid.latitude[::-1], source.latitude, atol=1e-3)
