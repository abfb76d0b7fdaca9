"""What a catalog declares of a source."""

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.data.cube.cube import build_cube
from climlstm.data.sources.catalog import open_source
from climlstm.errors import CatalogError, DataError
from tests.small_catalogs import weather
from tests.small_sources import data

CATALOGS = Path(__file__).parents[1] / "catalogs"


def test_declared_names_units_and_levels(write_entry):
    path = write_entry("{variables: {t2m: {name: t, level: 850, units: degC, missing: [-999]}}}")
    opened = open_source(path, "a")
    assert list(opened) == ["t850"]
    assert opened["t850"].attrs == {"units": "degC", "missing": [-999]}


def test_declared_units_go_before_the_file_and_are_logged(write_entry, caplog):
    ds = weather()
    ds["t2m"].attrs["units"] = "K"
    with caplog.at_level(logging.INFO):
        opened = open_source(write_entry("{variables: {t2m: {units: degC}}}", ds), "a")
    assert opened["t2m"].attrs["units"] == "degC"
    assert "'t2m' is taken to be in 'degC', not 'K'" in caplog.text


@pytest.mark.parametrize("axes", ["", "axes: {time: hour}, "])
def test_declared_epoch(write_entry, axes):
    ds = weather().assign_coords(time=[0, 6, 12, 18])
    ds = ds.rename(time="hour" if axes else "timestep")
    opened = open_source(write_entry(f"{{{axes}time_units: hours since 2000-01-01}}", ds), "a")
    np.testing.assert_array_equal(opened["time"], weather()["time"])


def test_declared_choice_of_a_member(write_entry):
    ds = xr.concat([weather(), weather() + 1], pd.Index([3, 7], name="number"))
    assert float(open_source(write_entry("{select: {number: 7}}", ds), "a")["t2m"][0, 0, 0]) == 1
    with pytest.raises(CatalogError, match="asks for number: 1, but there are only 3, 7"):
        open_source(write_entry("{select: {number: 1}}", ds), "a")


def test_declared_period_by_date_or_attribute(write_entry):
    ds = weather(hours=range(0, 96, 6)).assign_attrs(valid_time_stop="2000-01-03")
    opened = open_source(write_entry("{period: ['2000-01-02', valid_time_stop]}", ds), "a")
    assert [str(t)[:13] for t in opened["time"].values[[0, -1]]] == [
        "2000-01-02T00",
        "2000-01-03T18",
    ]


def test_entries_merged_into_one(write_catalog, tmp_path):
    """Two files that both call their variable `u`, at 2 and 10 m."""
    for height in (2, 10):
        weather("u").assign_coords(height=height).to_netcdf(
            tmp_path / f"{height}.nc", engine="netcdf4"
        )
    path = write_catalog(
        """
        sources:
          both: {driver: merge, args: {sources: [low, high]}, metadata: {select: {latitude: 0.0}}}
          low:
            driver: netcdf
            args: {urlpath: "{{ CATALOG_DIR }}/2.nc"}
            metadata: {variables: {u: {name: u2}}}
          high:
            driver: netcdf
            args: {urlpath: "{{ CATALOG_DIR }}/10.nc"}
            metadata: {variables: {u: {name: u10}}}
          same: {driver: merge, args: {sources: [low, both]}}
          loop: {driver: merge, args: {sources: [loop]}}
          lost: {driver: merge, args: {sources: [lo]}}
        """
    )
    both = open_source(path, "both")
    assert set(both) == {"u2", "u10"}
    assert "latitude" not in both.dims
    assert "u2 is" not in open_source(path, "both").attrs
    same = open_source(path, "same")
    assert set(same) == {"u10"}
    assert same.attrs["left_out"] == ["u2: it is in low and in both, at the same times"]
    with pytest.raises(CatalogError, match="merges itself: loop -> loop"):
        open_source(path, "loop")
    with pytest.raises(CatalogError, match=r"no source 'lo'. Did you mean 'low'"):
        open_source(path, "lost")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{plain: [a, b]}", "unknown key 'metadata.plain'. Did you mean 'plane'"),
        ("{variables: {t2m: {unit: K}}}", "'metadata.variables.t2m.unit'. Did you mean 'units'"),
        ("{variables: {t2n: {units: K}}}", "'t2n', which it does not have. Did you mean 't2m'"),
        ("{variables: {t2m: {name: time}}}", "the name 'time' twice"),
        (
            "{axes: {time: tiem}}",
            "'tiem' its time, but it has no such dimension. Did you mean 'time'",
        ),
        ("{axes: {latitude: longitude}}", "it has another 'latitude' already"),
        ("{axes: {tiem: time}}", "'metadata.axes.tiem"),
        ("{time_units: hours}", "expected a unit and an epoch"),
        ("{time_units: hours since 2000-01-01}", "are dates already"),
        ("{select: {numbr: 1}}", "'numbr', which is no dimension"),
        ("{period: [soon, later]}", "expected two dates, or names of attributes"),
        ("{period: ['1990-01-01', '1990-12-31']}", "no times within its 'period'"),
    ],
)
def test_declarations_that_do_not_fit_are_refused(write_entry, metadata, message):
    with pytest.raises(CatalogError, match=re.escape(message)):
        open_source(write_entry(metadata), "a")


def test_an_axis_without_values_is_refused(write_entry):
    ds = weather().drop_vars(["time", "latitude"])
    for axis, said in (("time", "its times are not known"), ("latitude", "declare 'plane:")):
        with pytest.raises(CatalogError, match=said):
            open_source(write_entry(f"{{axes: {{{axis}: {axis}}}}}", ds), "a")


def test_advice_for_a_variable_that_is_not_recognised_works(write_entry):
    """The line in the message makes the channel, in the units that the file states."""
    ds = weather("temp").assign(temp=lambda d: d["temp"].assign_attrs(units="degC"))
    path = Path(write_entry("{}", ds))
    with pytest.raises(DataError) as error:
        build_cube(open_source(str(path), "a"), data("t2m"))
    line = re.search(r"'(variables: .*?)'", str(error.value))[1].replace("NAME", "temp")
    path.write_text(path.read_text().replace("metadata: {}", f"metadata: {{{line}}}"))
    cube = build_cube(open_source(str(path), "a"), data("t2m"))
    np.testing.assert_allclose(cube["t2m"], ds["temp"] + 273.15, rtol=1e-6)
