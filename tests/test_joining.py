"""Several files or entries as one source."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from climlstm.data.cube.cube import build_cube
from climlstm.data.sources.catalog import open_source
from climlstm.data.sources.joining import join
from climlstm.errors import CatalogError, DataError
from tests.small_sources import data, source

LATITUDE, LONGITUDE = np.linspace(61.3, 51.55, 7), np.linspace(-3.7, 11.05, 9)
TIMES = pd.date_range("2000-01-01", periods=12, freq="6h")


def part(name="t2m", units="K", times=TIMES, seed=0):
    shape = (len(times), LATITUDE.size, LONGITUDE.size)
    values = np.random.default_rng(seed).normal(280, 5, shape).astype("f4")
    return source(
        name=name, units=units, times=times, latitude=LATITUDE, longitude=LONGITUDE, values=values
    )


def joined(*parts, declared=None):
    named = [(f"file {number}", each) for number, each in enumerate(parts)]
    return join(named, "the source", declared=declared or {})


WHOLE = part()
FIRST, SECOND = WHOLE.isel(time=slice(0, 5)), WHOLE.isel(time=slice(5, None))

CHANGES = {
    "single precision": lambda ds: ds.assign_coords(
        latitude=ds.latitude.astype("f4"), longitude=ds.longitude.astype("f4")
    ),
    "rounded": lambda ds: ds.assign_coords(latitude=ds.latitude.round(5) + 3e-6),
    "south first": lambda ds: ds.isel(latitude=slice(None, None, -1)),
    "westward": lambda ds: ds.isel(longitude=slice(None, None, -1)),
    "0 to 360": lambda ds: ds.assign_coords(longitude=ds.longitude % 360).sortby("longitude"),
    "other names": lambda ds: ds.rename(latitude="lat", longitude="lon", time="valid_time"),
    "other dimensions' order": lambda ds: ds.transpose("longitude", ...),
    "a scalar": lambda ds: ds.assign_coords(number=0, height=2.0),
    "bounds": lambda ds: ds.assign(lat_bnds=(("latitude", "bnds"), np.zeros((7, 2)))),
    "a label in time": lambda ds: ds.assign_coords(expver=("time", ["1"] * ds.sizes["time"])),
}


@given(changes=st.lists(st.sampled_from(list(CHANGES)), max_size=4, unique=True))
@settings(max_examples=40, deadline=None)
def test_parts_follow_each_other_whatever_their_conventions(changes):
    later = SECOND
    for change in sorted(changes, key=lambda name: name == "other names"):
        later = CHANGES[change](later)
    cube = build_cube(joined(FIRST, later), data("t2m"))
    np.testing.assert_array_equal(cube["t2m"], WHOLE["t2m"])


@given(changes=st.lists(st.sampled_from(list(CHANGES)), max_size=4, unique=True))
@settings(max_examples=40, deadline=None)
def test_parts_lie_side_by_side_whatever_their_conventions(changes):
    other = part("sp", "Pa", seed=1)
    changed = other
    for change in sorted(changes, key=lambda name: name == "other names"):
        changed = CHANGES[change](changed)
    cube = build_cube(joined(WHOLE, changed), data("t2m", "sp"))
    np.testing.assert_array_equal(cube["t2m"], WHOLE["t2m"])
    np.testing.assert_array_equal(cube["sp"], other["sp"])


def test_files_in_any_order_and_interleaved():
    morning, evening = WHOLE.isel(time=slice(0, None, 2)), WHOLE.isel(time=slice(1, None, 2))
    for parts in ((SECOND, FIRST), (morning, evening)):
        np.testing.assert_array_equal(build_cube(joined(*parts), data("t2m"))["t2m"], WHOLE["t2m"])


def test_units_are_converted_file_by_file():
    later = SECOND - np.float32(273.15)
    later["t2m"].attrs = {"units": "degC"}
    cube = build_cube(joined(FIRST, later), data("t2m"))
    np.testing.assert_allclose(cube["t2m"], WHOLE["t2m"], atol=1e-4)
    spelt = SECOND.copy()
    spelt["t2m"] = SECOND["t2m"].assign_attrs(units="Kelvin")
    np.testing.assert_array_equal(
        build_cube(joined(FIRST, spelt), data("t2m"))["t2m"], WHOLE["t2m"]
    )


TO_UNITS = {"K": (1, 0), "Kelvin": (1, 0), "degC": (1, -273.15), "degF": (1.8, -459.67)}


@given(
    cuts=st.sets(st.integers(1, 11), max_size=3),
    units=st.lists(st.sampled_from(list(TO_UNITS)), min_size=4, max_size=4),
    order=st.permutations(range(4)),
)
@settings(max_examples=25, deadline=None)
def test_any_division_into_files_of_any_units_is_the_series(cuts, units, order):
    edges = [0, *sorted(cuts), 12]
    parts = []
    for start, stop, unit in zip(edges[:-1], edges[1:], units, strict=False):
        scale, offset = TO_UNITS[unit]
        piece = WHOLE.isel(time=slice(start, stop))
        piece = piece.assign(t2m=piece["t2m"].astype("f8") * scale + offset)
        piece["t2m"].attrs = {"units": unit}
        parts.append(piece)
    ordered = [parts[n] for n in order if n < len(parts)]
    cube = build_cube(joined(*ordered), data("t2m"))
    np.testing.assert_allclose(cube["t2m"], WHOLE["t2m"], rtol=1e-5)
    assert (cube["time"] == WHOLE["time"]).all()


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"cell_methods": "time: mean"}, {"cell_methods": "area: mean time: point"}),
        ({"GRIB_stepType": "accum"}, {"GRIB_stepType": "instant"}),
    ],
)
def test_values_that_stand_for_other_things_in_time_are_no_series(first, then):
    one, two = FIRST.copy(), SECOND.copy()
    one["t2m"], two["t2m"] = one["t2m"].assign_attrs(first), two["t2m"].assign_attrs(then)
    with pytest.raises(CatalogError, match="'t2m': its values stand for other things in time"):
        joined(one, two)
    same = SECOND.assign(t2m=SECOND["t2m"].assign_attrs(first))
    assert joined(one, same).sizes["time"] == 12
    assert joined(one, SECOND).sizes["time"] == 12  # says nothing


def test_parts_in_several_calendars_are_no_series():
    later = SECOND.convert_calendar("noleap", use_cftime=True)
    with pytest.raises(CatalogError, match="its times are in several calendars"):
        joined(FIRST, later)


@pytest.mark.parametrize(
    ("units", "declared", "message"),
    [
        ("Pa", {}, "is in 'K' in file 0, but in 'Pa' in file 1"),
        (None, {}, "is in 'K' in file 0, but in 'None' in file 1"),
        ("degC", {"t2m": "K"}, "the declared units 'K' cannot hold for both"),
    ],
)
def test_units_that_cannot_be_one_are_refused(units, declared, message):
    later = SECOND.copy()
    later["t2m"] = SECOND["t2m"].assign_attrs(units=units)
    if units is None:
        del later["t2m"].attrs["units"]
    with pytest.raises(CatalogError, match=message):
        joined(FIRST, later, declared=declared)
    beside = joined(*(p.assign(sp=part("sp", "Pa", p.time)["sp"]) for p in (FIRST, later)),
                    declared=declared)  # fmt: skip
    assert build_cube(beside, data("sp"))["sp"].shape == WHOLE["t2m"].shape
    with pytest.raises(DataError, match=message):
        build_cube(beside, data("t2m"))


def test_another_grid_is_refused_by_how_much_it_is_off():
    shifted = part("sp", "Pa").assign_coords(latitude=LATITUDE + 0.1)
    both = joined(WHOLE, shifted)
    assert build_cube(both, data("t2m"))["t2m"].notnull().all()
    with pytest.raises(DataError, match=r"'sp' is in its.*'latitude' differs by up to 0\.1"):
        build_cube(both, data("t2m", "sp"))
    with pytest.raises(CatalogError, match=r"differs by up to 0\.1"):
        joined(FIRST, SECOND.assign_coords(latitude=LATITUDE + 0.1))


def test_times_that_overlap_are_told():
    with pytest.raises(CatalogError, match="both have 2 times, from 2000-01-01T18:00"):
        joined(FIRST, WHOLE.isel(time=slice(3, None)))
    with pytest.raises(CatalogError, match="is in file 0 and in file 1, at the same times"):
        joined(WHOLE, WHOLE)


def test_what_nobody_asked_for_stops_nothing():
    """Bounds, scalars and static fields that differ; the latter are refused when asked for."""
    parts = []
    for number, each in enumerate((FIRST, SECOND)):
        noise = 1e-12 * number
        each = each.assign(
            lat_bnds=(("latitude", "bnds"), np.zeros((7, 2)) + noise),
            land_mask=(("latitude", "longitude"), np.full((7, 9), 0.5 + noise), {"units": "1"}),
            orography=(("latitude", "longitude"), np.ones((7, 9)), {"units": "m"}),
        ).assign_coords(height=2.0 - noise)
        each["latitude"].attrs["bounds"] = "lat_bnds"
        parts.append(each)
    both = joined(*parts)
    cube = build_cube(both, data("t2m", static=("orography",)))
    np.testing.assert_array_equal(cube["t2m"], WHOLE["t2m"])
    with pytest.raises(DataError, match="'land_mask' is in its files, but it differs"):
        build_cube(both, data("t2m", static=("land_mask",)))


def test_a_static_field_with_one_time_goes_with_any_times():
    mask = part("land_mask", "1", TIMES[:1] - pd.Timedelta("9000D"))
    mask["land_mask"] = abs(mask["land_mask"] - 280) / 100
    for parts in ((WHOLE, mask), (mask, WHOLE)):
        cube = build_cube(joined(*parts), data("t2m", static=("land_mask",)))
        np.testing.assert_array_equal(cube["land_mask"], mask["land_mask"][0])
        np.testing.assert_array_equal(cube["t2m"], WHOLE["t2m"])


def test_times_of_one_part_that_differ_by_rounding():
    late = part("sp", "Pa", TIMES + pd.Timedelta("3s"))
    assert build_cube(joined(WHOLE, late), data("t2m", "sp"))["sp"].shape == WHOLE["t2m"].shape
    hours = part("sp", "Pa", TIMES + pd.Timedelta("1h"))
    with pytest.raises(DataError, match="its times differ by up to 0 days 01:00:00"):
        build_cube(joined(WHOLE, hours), data("t2m", "sp"))


def test_levels_in_files_of_their_own():
    whole = source(name="z", units="m2 s-2", levels=[1000.0, 850.0, 500.0])
    parts = [whole.isel(level=[n]) for n in (2, 0, 1)]
    cube = build_cube(joined(*parts), data("z850", "z500"))
    np.testing.assert_array_equal(cube["z500"], whole["z"].sel(level=500))
    np.testing.assert_array_equal(cube["z850"], whole["z"].sel(level=850))


def test_one_file_for_each_variable_and_year(write_catalog, tmp_path):
    pressure = part("sp", "Pa", seed=1)
    for name, whole in (("t2m", WHOLE), ("sp", pressure)):
        for year, times in ((0, slice(0, 5)), (1, slice(5, None))):
            file = tmp_path / f"{name} [{year}].nc"
            whole.isel(time=times).to_netcdf(file, engine="netcdf4")
    path = write_catalog(
        'sources: {a: {driver: netcdf, args: {urlpath: "{{ CATALOG_DIR }}/* [[]?[]].nc"}}, '
        'b: {driver: netcdf, args: {urlpath: "{{ CATALOG_DIR }}/t2m [0].nc"}}}'
    )
    cube = build_cube(open_source(path, "a"), data("t2m", "sp"))
    np.testing.assert_array_equal(cube["t2m"], WHOLE["t2m"])
    np.testing.assert_array_equal(cube["sp"], pressure["sp"])
    assert open_source(path, "b").sizes["time"] == 5


def test_fill_values_of_all_parts_count():
    """Attributes that are not decoded: the first file's fill value is not the second's."""
    parts = []
    for each, fill in ((FIRST, -999.0), (SECOND, -9999.0)):
        each = each.copy(deep=True)
        each["t2m"].values[0, 0, 0] = fill
        each["t2m"].attrs["fill_value"] = fill
        parts.append(each)
    assert int(build_cube(joined(*parts), data("t2m"))["t2m"].isnull().sum()) == 2


@pytest.mark.parametrize("dim", ["expver", "version"])
@pytest.mark.parametrize("labels", [[1, 5], ["0005", "0001"]])
def test_versions_complete_each_other(write_entry, dim, labels):
    """ERA5 and ERA5T in one file; the final one goes first where both have values."""
    final, preliminary = WHOLE["t2m"].copy(), WHOLE["t2m"].copy()
    final[8:] = np.nan
    preliminary[:7] = np.nan
    preliminary[7] += 1
    order = np.argsort(labels)
    entries = np.array([final, preliminary])[np.argsort(order)]
    ds = xr.Dataset(
        {"t2m": ((dim, "time", "latitude", "longitude"), entries, {"units": "K"})}, WHOLE.coords
    ).assign_coords({dim: labels})
    if dim == "version":
        with pytest.raises(DataError, match=r"'select: .*or, if each.*'combine: \[version\]'"):
            build_cube(ds, data("t2m"))
    said = "{}" if dim == "expver" else f"{{combine: [{dim}]}}"
    cube = build_cube(open_source(write_entry(said, ds), "a"), data("t2m"))
    np.testing.assert_array_equal(cube["t2m"], WHOLE["t2m"])
