"""Advice is followed to its end: what a message says to add makes the source work, rightly."""

import re
import shlex
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from climlstm import runs
from climlstm.advice import catalog_line, command, declarations, one_line, variable_line
from climlstm.config.plain_yaml import TextDatesLoader, load_yaml
from climlstm.data.cube.cube import plan_cube
from climlstm.data.others import open_cube
from climlstm.data.sources.catalog import open_source
from climlstm.errors import CatalogError, DataError
from tests.small_audits import make_config, make_source

ROUNDS = 5


class Reader:
    """Somebody who does what messages say and knows their data, such as {"UNIT": "K"}."""

    def __init__(self, folder: Path, source: xr.Dataset, known: dict[str, str] | None = None):
        self.catalog = folder / "catalog.yaml"
        self.known = known or {}
        self.metadata: dict[str, Any] = {}
        source.to_netcdf(folder / "a.nc", engine="netcdf4")

    def follow(self, severity: str = "error", *, choice: int = 0, **data: Any) -> xr.Dataset:
        """The cube, when `climlstm check` is silent; until then each message gives a new line."""
        config = make_config(catalog=str(self.catalog), source="a", **data)
        for _ in range(ROUNDS):
            self._write()
            found = runs.check_run(config, elsewhere=True).findings
            left = [f for f in found if f.severity in ("error", severity)]
            said = [str(f) for f in left if declarations(str(f))]
            if not left:
                return open_cube(config.data)
            assert said, str(left[0])
            before = yaml.dump(self.metadata)
            lines = declarations(said[0])
            self._add(lines[min(choice, len(lines) - 1)])
            assert yaml.dump(self.metadata) != before, f"in a circle: {said[0]}"
        raise AssertionError(f"after {ROUNDS} lines: {said[0]}")

    def _write(self) -> None:
        args = {"urlpath": "{{ CATALOG_DIR }}/a.nc"}
        entry = {"driver": "netcdf", "args": args, "metadata": self.metadata}
        self.catalog.write_text(f"sources: {one_line({'a': entry})}", encoding="utf-8")

    def _add(self, line: dict[str, Any]) -> None:
        self.metadata = _merged(self.metadata, self._filled(line))

    def _filled(self, line: Any) -> Any:
        """A line with what its reader knows in place of words in capitals."""
        if isinstance(line, dict):
            return {self._filled(key): self._filled(value) for key, value in line.items()}
        if isinstance(line, list):
            return [self._filled(each) for each in line]
        return self.known.get(line, line) if isinstance(line, str) else line


def _merged(one: Any, two: Any) -> Any:
    if not (isinstance(one, dict) and isinstance(two, dict)):
        return two
    return one | {key: _merged(one.get(key), value) for key, value in two.items()}


def changed(name: str, change: Any, **attrs: Any) -> xr.Dataset:
    """The small source, one of its fields changed, and its attributes replaced."""
    source = make_source().compute()
    return source.assign({name: change(source[name]).astype("float32").assign_attrs(attrs)})


def with_member(labels: Any) -> xr.Dataset:
    source = make_source().compute()
    both = xr.concat([source, source + 1], "version").transpose("time", "version", ...)
    both = both.assign({name: both[name].assign_attrs(source[name].attrs) for name in source})
    return both if labels is None else both.assign_coords(version=labels)


def halves() -> xr.Dataset:
    """Each entry of a dimension has only a part of the times."""
    both = with_member([1, 2])
    first = both.time < both.time[200]
    return both.where((both.version == 1) == first)


def without(source: xr.Dataset, *names: str) -> xr.Dataset:
    return source.drop_vars(names)


TIMES = make_source().time.values
HOURS = (TIMES - TIMES[0]) / np.timedelta64(1, "h")

RAIN = np.random.default_rng(1).gamma(0.5, 1e-3, (TIMES.size, 8, 16))
DAILY = RAIN.reshape(-1, 4, 8, 16).cumsum(axis=1).reshape(RAIN.shape)
"""Sums since midnight, labelled at the end of each six hours; those of 00 UTC hold a whole day."""


def rain(values: np.ndarray, **attrs: Any) -> xr.Dataset:
    attrs = {"units": "m"} | attrs
    return make_source().assign(tp=(("time", "latitude", "longitude"), values, attrs))


SOURCES = {
    "no units": (changed("t2m", lambda v: v, units=""), {"UNIT": "K"}),
    "units of nothing": (changed("t2m", lambda v: v, units="bananas"), {}),
    "units that lie": (changed("msl", lambda v: v / 100, units="Pa"), {}),
    "another name": (make_source().rename(msl="NO"), {"NAME": "NO"}),
    "members by label": (with_member([3, 7]), {}),
    "members by name": (with_member(["a: b", "no"]), {}),
    "members by date": (with_member(pd.to_datetime(["2001-01-01", "2002-01-01"])), {}),
    "members by place": (with_member(None), {}),
    "an axis of another name": (make_source().rename(latitude="nx"), {"NAME": "nx"}),
    "times without epoch": (
        make_source().assign_coords(time=HOURS),
        {"hours since 1996-01-05": "hours since 2001-01-01"},
    ),
    "one value never written": (changed("t2m", lambda v: v.where(v.time != TIMES[7], 1e20)), {}),
}
"""Sources with something wrong that a line of the catalog mends, and what their reader knows."""


@pytest.mark.parametrize("kind", SOURCES)
def test_lines_of_the_catalog_lead_to_an_end(tmp_path, kind):
    source, known = SOURCES[kind]
    cube = Reader(tmp_path, source, known).follow()
    expected = make_source()
    for name in ("t2m", "msl"):
        found = cube[name].where(np.isfinite(cube[name]), expected[name])
        np.testing.assert_allclose(found, expected[name], rtol=1e-5)


def test_versions_of_which_each_has_a_part_are_combined(tmp_path):
    cube = Reader(tmp_path, halves()).follow(choice=1)
    assert int(cube["t2m"].isnull().sum()) == 0


def test_values_that_are_right_are_believed(tmp_path):
    hot = changed("t2m", lambda v: v + 80, units="K")
    cube = Reader(tmp_path, hot).follow("warning")
    np.testing.assert_allclose(cube["t2m"], make_source()["t2m"] + 80, rtol=1e-5)


def test_a_value_that_counts_as_missing_is_one(tmp_path):
    celsius = changed("t2m", lambda v: (v - 273.15).round(), units="degC")
    celsius["t2m"].encoding["_FillValue"] = 0.0
    cube = Reader(tmp_path, celsius).follow("warning")
    np.testing.assert_allclose(cube["t2m"], celsius["t2m"] + 273.15, rtol=1e-5)


def test_sums_since_midnight_are_taken_apart(tmp_path):
    times = pd.DatetimeIndex(TIMES + np.timedelta64(6, "h"))
    source = rain(DAILY).assign_coords(time=times)
    cube = Reader(tmp_path, source).follow(state=["t2m", "tp"])
    assert source.tp[3, 0, 0] > RAIN[3, 0, 0]
    np.testing.assert_allclose(cube["tp"][4:], RAIN[4:], atol=1e-7)


def test_sums_that_are_none_are_left_alone(tmp_path):
    source = rain(RAIN, cell_methods="time: sum (interval: 4 hours)")
    cube = Reader(tmp_path, source).follow(state=["t2m", "tp"])
    np.testing.assert_allclose(cube["tp"], RAIN, rtol=1e-6)


def test_a_plane_is_declared_as_said(tmp_path):
    bare = make_source().drop_vars(["latitude", "longitude"])
    cube = Reader(tmp_path, bare.rename(latitude="south north", longitude="x")).follow()
    assert cube.sizes["latitude"] == 8


@given(st.text(min_size=1), st.text(min_size=1) | st.floats(allow_nan=False), st.text())
def test_lines_say_what_they_are_made_of(name, value, dim):
    """Whatever a variable or its unit is called: NO, 10u, %, °, names with quotes and colons."""
    text = f"{name}. Declare it {variable_line(name, units=value)}; or {catalog_line(plane=[dim])}."
    lines = [{"variables": {name: {"units": value}}}, {"plane": [dim]}]
    assert declarations(text)[-2:] == lines


@given(st.lists(st.text(min_size=1), min_size=1))
def test_commands_are_what_a_shell_reads(words):
    assert shlex.split(command(*words)) == words


@given(st.text(min_size=1))
@example("\xa0")
@example("a\u2000")
def test_settings_say_what_they_are_made_of(source):
    assert load_yaml(one_line(source), TextDatesLoader) == source


def catalog(folder: Path, **entries: Any) -> str:
    path = folder / "catalog.yaml"
    path.write_text(f"sources: {one_line(entries)}", encoding="utf-8")
    return str(path)


def entry(name: str, driver: str = "netcdf", **args: Any) -> dict[str, Any]:
    return {"driver": driver, "args": {"urlpath": f"{{{{ CATALOG_DIR }}}}/{name}"} | args}


def refused(path: str) -> str:
    with pytest.raises(CatalogError) as error:
        open_source(path, "a")
    return str(error.value)


def test_files_that_are_not_what_their_names_say(tmp_path):
    source = make_source().isel(time=slice(4)).compute()
    source[["t2m"]].to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    source[["t2m"]].to_zarr(tmp_path / "a.zarr", zarr_format=2)
    for name, wrong in (("a.nc", "zarr"), ("a.nc", "grib"), ("a.zarr", "netcdf")):
        driver = re.search(r"'driver: (\w+)'", refused(catalog(tmp_path, a=entry(name, wrong))))[1]
        opened = open_source(catalog(tmp_path, a=entry(name, driver)), "a")
        xr.testing.assert_equal(opened.load(), source[["t2m"]])
    source[["msl"]].to_netcdf(tmp_path / "b.nc", engine="netcdf4")
    with zipfile.ZipFile(tmp_path / "both.nc", "w") as archive:
        for name in "ab":
            archive.write(tmp_path / f"{name}.nc", f"in {name}.nc")
    said = refused(catalog(tmp_path, a=entry("both.nc")))
    names = re.search(r"holds (.*?)\. Unpack it", said)[1].split(", ")
    zipfile.ZipFile(tmp_path / "both.nc").extractall(tmp_path)
    parts = {f"p{k}": entry(name) for k, name in enumerate(names)}
    merge = yaml.safe_load(re.search(r"'(driver: merge)'", said)[1])
    made = catalog(tmp_path, **parts, a=merge | {"args": {"sources": list(parts)}})
    xr.testing.assert_equal(open_source(made, "a").load(), source)


def test_entries_that_merge(tmp_path):
    for file, name in (("x", "t2m"), ("y", "msl")):
        make_source()[[name]].to_netcdf(tmp_path / f"{file}.nc", engine="netcdf4")
    parts = {"x": entry("x.nc"), "y": entry("y.nc")}
    said = refused(catalog(tmp_path, **parts, a={"driver": "merge", "args": {"urlpath": "x"}}))
    line = re.search(r"'(args: .*?)'", said)[1].replace("A, B", "x, y")
    made = catalog(tmp_path, **parts, a={"driver": "merge"} | yaml.safe_load(line))
    assert set(open_source(made, "a")) == {"t2m", "msl"}


def test_files_that_are_packed_differently(tmp_path):
    source = make_source()[["msl"]].compute()
    for number, scale in enumerate((1.0, 2.0)):
        part = source.isel(time=slice(4 * number, 4 * number + 4))
        packing = {"dtype": "i4", "scale_factor": scale, "add_offset": 0.0, "_FillValue": -1}
        part.to_netcdf(tmp_path / f"{number}.nc", engine="netcdf4", encoding={"msl": packing})
    said = refused(catalog(tmp_path, a=entry("?.nc", mask_and_scale=False)))
    option = re.search(r"leave '(\w+): false' out", said)[1]
    assert option == "mask_and_scale"
    opened = open_source(catalog(tmp_path, a=entry("?.nc")), "a")
    np.testing.assert_allclose(opened["msl"], source["msl"][:8], atol=1.01)


def test_seasons_are_averaged_first_as_advised():
    times = pd.date_range("2001-01-01", periods=48, freq="MS")
    source = make_source().isel(time=slice(48)).assign_coords(time=times)
    data = make_config(step="3 months").data
    with pytest.raises(DataError) as error:
        plan_cube(source, data)
    advised = re.search(r"(resample\(.*?\)\.mean\(\))", str(error.value))[1]
    seasons = eval(f"source.{advised}", {"source": source})
    seasons = seasons.map(lambda field: field.assign_attrs(source[field.name].attrs))
    assert plan_cube(seasons, data).cube.sizes["time"] == 17
