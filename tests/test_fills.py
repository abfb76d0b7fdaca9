"""Fill values that are values, and fill values that are none."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from climlstm.data.cube.cube import build_cube, plan_cube
from climlstm.data.sources.catalog import open_path, open_source
from climlstm.data.store.stored import find_stored
from tests.small_catalogs import weather
from tests.small_sources import data


def write_with_zarr(folder, arrays, fill=0, **attributes):
    """A Zarr store of format 2 as zarr-python writes it: each array has a fill value."""
    group = zarr.open_group(str(folder), mode="w", zarr_format=2)
    for name, (dims, values, attrs) in arrays.items():
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            fill_value=fill if values.ndim > 1 else 0,
            chunks=values.shape,
        )
        array[:] = values
        array.attrs.update({"_ARRAY_DIMENSIONS": dims, **attrs, **attributes.get(name, {})})
    return folder


def arrays(values, units="K"):
    """Four steps on the equator and at Greenwich, the first at the epoch."""
    return {
        "time": (["time"], np.arange(4) * 6, {"units": "hours since 2000-01-01"}),
        "lat": (["lat"], np.array([10.0, 0.0, -10.0]), {"units": "degrees_north"}),
        "lon": (["lon"], np.array([0.0, 90.0, 180.0, 270.0]), {"units": "degrees_east"}),
        "t2m": (["time", "lat", "lon"], values, {"units": units}),
    }


@settings(max_examples=20, deadline=None)
@given(
    dtype=st.sampled_from(["f4", "f8", "i2", "i4", "u1"]),
    zeros=st.sets(st.integers(0, 47), max_size=48),
)
def test_zeros_of_zarr_stores_are_zeros(tmp_path_factory, dtype, zeros):
    """0 °C, midnight of the epoch, the equator and Greenwich, in stores of any type."""
    values = np.arange(1, 49).astype(dtype).reshape(4, 3, 4)
    values.flat[list(zeros)] = 0
    folder = tmp_path_factory.mktemp("zeros") / "a.zarr"
    source = open_path(str(write_with_zarr(folder, arrays(values, units="degC"))))
    plan = plan_cube(source, data("t2m"))
    cube = plan.cube
    np.testing.assert_allclose(cube["t2m"], values + 273.15, rtol=1e-6)
    assert cube["latitude"].values.tolist() == [10, 0, -10]
    assert cube["longitude"].values[0] == 0
    stored = find_stored(source["t2m"])
    assert stored is not None
    assert stored.unpack is None


def test_zeros_are_zeros_where_nothing_is_decoded(write_catalog, tmp_path):
    write_with_zarr(tmp_path / "a.zarr", arrays(np.zeros((4, 3, 4), "f4")))
    path = write_catalog(
        'sources: {a: {driver: zarr, args: {urlpath: "{{ CATALOG_DIR }}/a.zarr", '
        "mask_and_scale: false}}}"
    )
    assert not build_cube(open_source(path, "a"), data("t2m"))["t2m"].isnull().any()


@pytest.mark.parametrize(
    ("fill", "attributes", "missing"),
    [
        (-999.0, {}, -999),
        (0, {"t2m": {"missing_value": 0}}, 0),
        (0, {"t2m": {"scale_factor": 0.5, "add_offset": 10.0}}, 0),
        (np.nan, {}, np.nan),
    ],
    ids=["another number", "stated twice", "packed", "NaN"],
)
def test_chosen_fill_values_stay_missing(tmp_path, fill, attributes, missing):
    values = np.arange(1, 49, dtype="f4").reshape(4, 3, 4)
    values[0, 0, 0] = missing
    source = open_path(
        str(write_with_zarr(tmp_path / "a.zarr", arrays(values), fill=fill, **attributes))
    )
    cube = build_cube(source, data("t2m"))
    assert cube["t2m"].isnull().sum() == 1
    assert cube["t2m"].isnull()[0, 0, 0]


@pytest.mark.parametrize("packed", [False, True])
def test_a_declared_value_is_no_fill(write_entry, tmp_path, packed):
    """A NetCDF file that states 0 as missing, though 0 °C is a value."""
    ds = weather()
    ds["t2m"].attrs["units"] = "degC"
    ds["t2m"].encoding = {"_FillValue": 0}
    if packed:
        ds["t2m"].encoding |= {"dtype": "i2", "scale_factor": 0.5, "add_offset": 0.0}
    path = Path(write_entry("{}", ds))
    said = path.read_text().replace("metadata: {}", "metadata: {variables: {t2m: {valid: [0]}}}")
    (tmp_path / "declared.yaml").write_text(said)
    first, second = (
        build_cube(open_source(str(tmp_path / name), "a"), data("t2m"))["t2m"]
        for name in ("catalog.yaml", "declared.yaml")
    )
    assert first.isnull().sum() == 1
    np.testing.assert_allclose(second, ds["t2m"] + 273.15, rtol=1e-6)


def test_a_store_that_xarray_wrote_stays_as_it_is(tmp_path):
    ds = weather()
    ds["t2m"][0, 0, 0] = np.nan
    ds.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    source = open_path(str(tmp_path / "a.zarr"))
    xr.testing.assert_equal(source.load(), ds)


@pytest.mark.parametrize("code", [9999.0, 0.0, -1e20])
def test_missing_values_of_grib_are_missing_whatever_their_code(tmp_path, code):
    """A bitmap says which they are; one cell, and a whole field."""
    eccodes = pytest.importorskip("eccodes", reason="needs climlstm[grib]")
    values = 280 + np.random.default_rng(0).standard_normal((4, 3, 4))
    values[1, 1, 1] = values[2] = np.nan
    said = {"Ni": 4, "Nj": 3, "bitsPerValue": 24, "bitmapPresent": 1, "missingValue": code}
    said |= {"latitudeOfFirstGridPointInDegrees": 60, "latitudeOfLastGridPointInDegrees": 40}
    said |= {"longitudeOfFirstGridPointInDegrees": 0, "longitudeOfLastGridPointInDegrees": 30}
    said |= {"iDirectionIncrementInDegrees": 10, "jDirectionIncrementInDegrees": 10}
    with (tmp_path / "a.grib2").open("wb") as file:
        for number, field in enumerate(values):
            message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
            more = {"dataDate": 20200101, "dataTime": 600 * number, "shortName": "2t"}
            for key, value in (said | more).items():
                eccodes.codes_set(message, key, value)
            eccodes.codes_set_values(message, np.nan_to_num(field.ravel(), nan=code))
            eccodes.codes_write(message, file)
            eccodes.codes_release(message)
    cube = build_cube(open_path(str(tmp_path / "a.grib2")), data("t2m"))
    np.testing.assert_allclose(cube["t2m"], values, rtol=1e-6)
