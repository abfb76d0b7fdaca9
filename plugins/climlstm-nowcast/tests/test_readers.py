"""Radar files of three formats, written here as their specifications say, and a real one."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from climlstm_nowcast.frames import rate_of_dbz

import climlstm
from climlstm.errors import CatalogError, DataError

REAL = Path(__file__).parents[4] / "shared/data/real/radar_bom_melbourne_2018_06_16"
STEREO = "+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378.14 +b=6356.75 +x_0=0 +y_0=0"


def write_odim(path, *, quantity="RATE", gain=0.5, offset=0.0, kind="COMP", start="115500"):
    raw = np.array([[0, 255, 2], [4, 0, 0]], "uint8")
    with h5py.File(path, "w") as file:
        what = file.create_group("what").attrs
        what["object"], what["date"], what["time"] = kind, b"20240501", b"120000"
        where = file.create_group("where").attrs
        where["projdef"] = STEREO.replace("6378.14", "6378140").replace("6356.75", "6356750")
        where["xscale"], where["yscale"] = 2000.0, 1000.0
        where["LL_lon"], where["LL_lat"] = 10.0, 50.0
        data = file.create_group("dataset1/data1")
        data["data"] = raw
        said = data.create_group("what").attrs
        said["quantity"], said["gain"], said["offset"] = quantity, gain, offset
        said["nodata"], said["undetect"] = 255.0, 0.0
        times = file["dataset1"].create_group("what").attrs
        times["startdate"], times["starttime"] = "20240501", start
        times["enddate"], times["endtime"] = "20240501", "120000"


def write_knmi(path, *, formula="GEO = 0.01 * PV + 0.0", what="ACCUMULATED_PRECIPITATION"):
    with h5py.File(path, "w") as file:
        image = file.create_group("image1")
        image.attrs["image_geo_parameter"] = np.bytes_(what)
        image["image_data"] = np.array([[0, 100], [65535, 50]], "uint16")
        said = image.create_group("calibration").attrs
        said["calibration_formulas"] = np.bytes_(formula)
        said["calibration_out_of_image"] = np.array([65535])
        overview = file.create_group("overview").attrs
        overview["product_datetime_start"] = np.bytes_("26-AUG-2010;00:00:00.000")
        overview["product_datetime_end"] = np.bytes_("26-AUG-2010;00:05:00.000")
        place = file.create_group("geographic").attrs
        place["geo_pixel_size_x"], place["geo_pixel_size_y"] = 1.0, -1.0
        place["geo_column_offset"], place["geo_row_offset"] = 0.0, 3649.98
        projection = file.create_group("geographic/map_projection").attrs
        projection["projection_proj4_params"] = np.bytes_(STEREO)


def test_odim_tells_dry_rain_and_outside_apart(tmp_path):
    write_odim(tmp_path / "a.h5")
    frame = xr.open_dataset(tmp_path / "a.h5", engine="odim")
    assert frame.rain_rate.attrs["units"] == "mm h-1"
    np.testing.assert_array_equal(frame.rain_rate[0], [[0, np.nan, 1], [2, 0, 0]])
    np.testing.assert_array_equal(frame.rain_status[0], [[0, 3, 1], [1, 0, 0]])
    assert frame.time.values == np.datetime64("2024-05-01T12:00")
    assert frame.crs.attrs["grid_mapping_name"] == "polar_stereographic"


def test_odim_lies_where_its_corner_says(tmp_path):
    from climlstm.environment import import_pyproj

    write_odim(tmp_path / "a.h5")
    frame = xr.open_dataset(tmp_path / "a.h5", engine="odim")
    pyproj = import_pyproj()
    crs = pyproj.CRS.from_cf(frame.crs.attrs)
    back = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    west, south = float(frame.x[0]) - 1000, float(frame.y[-1]) - 500
    np.testing.assert_allclose(back.transform(west, south), (10.0, 50.0), atol=1e-6)
    assert float(frame.y[0] - frame.y[1]) == 1000
    assert float(frame.x[1] - frame.x[0]) == 2000


def test_odim_reflectivity_becomes_rain_and_sums_become_rates(tmp_path):
    write_odim(tmp_path / "dbz.h5", quantity="DBZH", gain=10.0, offset=0.0)
    frame = xr.open_dataset(tmp_path / "dbz.h5", engine="odim")
    assert float(frame.rain_rate[0, 1, 0]) == pytest.approx(rate_of_dbz(40.0))
    other = xr.open_dataset(tmp_path / "dbz.h5", engine="odim", backend_kwargs={"zr": (300, 1.4)})
    assert float(other.rain_rate[0, 1, 0]) == pytest.approx((1e4 / 300) ** (1 / 1.4))
    write_odim(tmp_path / "sum.h5", quantity="ACRR")
    frame = xr.open_dataset(tmp_path / "sum.h5", engine="odim")
    assert float(frame.rain_rate[0, 1, 0]) == pytest.approx(2 * 12)  # 2 mm in five minutes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "PVOL"}, "polar coordinates"),
        ({"quantity": "VRADH"}, "no rain"),
        ({"quantity": "ACRR", "start": "120000"}, "over which time"),
    ],
)
def test_odim_that_is_no_picture_of_rain_is_refused(tmp_path, options, words):
    write_odim(tmp_path / "a.h5", **options)
    with pytest.raises(DataError, match=words):
        xr.open_dataset(tmp_path / "a.h5", engine="odim")


def test_knmi_sums_become_rates_on_its_own_grid(tmp_path):
    write_knmi(tmp_path / "a.h5")
    frame = xr.open_dataset(tmp_path / "a.h5", engine="knmi")
    np.testing.assert_allclose(frame.rain_rate[0], [[0, 12], [np.nan, 6]], rtol=1e-6)
    assert frame.rain_status.values[0, 1, 0] == 3
    np.testing.assert_allclose(frame.y, [-3650480, -3651480])
    assert frame.crs.attrs["semi_major_axis"] == pytest.approx(6378140)
    assert frame.time.values == np.datetime64("2010-08-26T00:05")


def test_knmi_with_another_formula_is_refused(tmp_path):
    write_knmi(tmp_path / "a.h5", formula="GEO = log(PV)")
    with pytest.raises(DataError, match="calibration"):
        xr.open_dataset(tmp_path / "a.h5", engine="knmi")


def test_a_file_that_is_no_hdf5_says_so(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        xr.open_dataset(tmp_path / "a.h5", engine="knmi")


def test_rain_of_reflectivity_is_marshall_and_palmers():
    np.testing.assert_allclose(rate_of_dbz(35.0), 5.6, atol=0.03)


@pytest.mark.skipif(not REAL.exists(), reason="needs the radar files of Melbourne")
def test_a_catalog_of_real_files_streams_as_rain_rates(tmp_path):
    catalog = tmp_path / "catalog.yaml"
    args = f"{{urlpath: '{REAL}/2_20180616_1[01]*.nc', engine: radar_cf}}"
    catalog.write_text(f"sources: {{radar: {{driver: netcdf, args: {args}}}}}\n")
    source = climlstm.open_source(str(catalog), "radar")
    assert source.sizes["time"] == 20
    raw = xr.open_dataset(REAL / "2_20180616_100600.prcp-cscn.nc", engine="netcdf4")
    frame = source.rain_rate.sel(time="2018-06-16T10:06")
    np.testing.assert_allclose(frame, raw.precipitation * 10, rtol=1e-6)
    assert float(source.y[0]) == 128000


def test_a_frame_without_a_place_is_refused(tmp_path):
    rain = xr.Dataset(
        {"r": (("y", "x"), np.ones((2, 2)), {"standard_name": "rainfall_rate", "units": "mm h-1"})}
    )
    rain.to_netcdf(tmp_path / "a.nc")
    catalog = tmp_path / "catalog.yaml"
    args = "{urlpath: '{{ CATALOG_DIR }}/a.nc', engine: radar_cf}"
    catalog.write_text(f"sources: {{radar: {{driver: netcdf, args: {args}}}}}\n")
    with pytest.raises(CatalogError, match="names no grid mapping"):
        climlstm.open_source(str(catalog), "radar")
