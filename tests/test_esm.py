"""ESM catalogs: rows chosen by facets become one source."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml

from climlstm.config import DataConfig
from climlstm.data.cube.cube import plan_cube
from climlstm.data.sources.catalog import open_source
from climlstm.data.sources.esm import find_assets
from climlstm.errors import CatalogError

FACETS = ["source_id", "experiment_id", "member_id", "table_id", "variable_id", "grid_label"]
LATITUDE, LONGITUDE = np.linspace(-80, 80, 9), np.arange(0.0, 360.0, 30.0)


def model_output(name, units, times, *, base=280.0, levels=None, height=None):
    """One variable as CMIP6 has it: south to north, with bounds, perhaps a height or levels."""
    shape = (len(times), *([len(levels)] if levels else []), LATITUDE.size, LONGITUDE.size)
    dims = ("time", *(["plev"] if levels else []), "lat", "lon")
    values = base + np.random.default_rng(0).normal(size=shape).astype("float32")
    bounds = np.stack([LATITUDE - 10, LATITUDE + 10], axis=1)
    fields = {
        name: (dims, values, {"units": units}),
        "lat_bnds": (("lat", "bnds"), bounds + np.random.default_rng(len(times)).normal()),
    }
    coords = {"time": times, "lat": ("lat", LATITUDE, {"bounds": "lat_bnds"}), "lon": LONGITUDE}
    if levels:
        coords["plev"] = ("plev", levels, {"units": "Pa"})
    if height:
        coords["height"] = height
    return xr.Dataset(fields, coords, attrs={"license": "CC BY 4.0", "tracking_id": "hdl:1"})


@pytest.fixture
def cmip(tmp_path):
    """A catalog of one model: two members, history and a scenario, five variables."""
    history = pd.date_range("2013-01-01", "2014-12-31")
    future = pd.date_range("2015-01-01", "2015-12-31")
    rows = []
    for member in ("r1i1p1f1", "r2i1p1f1"):
        for experiment, times in (("historical", history), ("ssp585", future)):
            for name, units, more in (
                ("tas", "K", {"height": 2.0}),
                ("uas", "m s-1", {"height": 10.0, "base": 5.0}),
                ("psl", "Pa", {"base": 1e5}),
                ("zg", "m", {"levels": [85000.0, 50000.0], "base": 5500.0}),
                ("pr", "kg m-2 s-1", {"base": 3e-5}),
            ):
                path = f"stores/{name}_{experiment}_{member}.nc"
                (tmp_path / "stores").mkdir(exist_ok=True)
                model_output(name, units, times, **more).to_netcdf(tmp_path / path)
                rows.append(["ESM-1", experiment, member, "day", name, "gn", f"./{path}", "v1"])
    table = pd.DataFrame(rows, columns=[*FACETS, "path", "version"])
    table.to_csv(tmp_path / "table.csv.gz", index=False)
    described = {
        "esmcat_version": "0.1.0",
        "attributes": [{"column_name": facet, "vocabulary": ""} for facet in FACETS],
        "assets": {"column_name": "path", "format": "netcdf"},
        "catalog_file": "table.csv.gz",
    }
    (tmp_path / "cmip.json").write_text(json.dumps(described))
    return tmp_path


def catalog(folder, select, **args):
    """A catalog whose one source selects from the ESM catalog beside it."""
    entry = {"driver": "esm", "args": {"urlpath": "{{ CATALOG_DIR }}/cmip.json", "select": select}}
    entry["args"] |= args
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"sources": {"model": entry}}))
    return str(folder / "catalog.yaml")


def test_the_stores_of_one_member_are_one_source_over_history_and_scenario(cmip):
    source = open_source(catalog(cmip, {"member_id": "r2i1p1f1"}), "model")
    assert {"tas", "uas", "psl", "zg", "pr"} <= set(source.data_vars)
    assert source.sizes["time"] == 3 * 365
    assert "left_out" not in source.attrs
    assert source.attrs["license"] == "CC BY 4.0"


def test_names_levels_and_units_of_cmip_make_channels(cmip):
    """zg in m becomes geopotential, plev in Pa a level; heights of 2 and 10 m do not clash."""
    data = DataConfig(
        catalog=catalog(cmip, {"member_id": "r1i1p1f1", "experiment_id": "historical"}),
        source="model",
        state=("t2m", "u10", "msl", "z500", "pr"),
        step="1d",
        periods={
            "train": ["2013-01-01", "2013-12-31"],
            "valid": ["2014-01-01", "2014-06-30"],
            "test": ["2014-07-01", "2014-12-31"],
        },
    )
    cube = plan_cube(open_source(data.catalog, data.source), data).cube
    means = {name: float(cube[name].isel(time=slice(0, 5)).mean()) for name in data.state}
    assert means["z500"] == pytest.approx(5500 * 9.80665, rel=1e-3)
    assert means["msl"] == pytest.approx(1e5, rel=1e-3)
    assert means["u10"] == pytest.approx(5, abs=0.3)
    assert cube.latitude.values[0] == 80


def test_the_newest_version_of_a_store_is_taken(cmip):
    table = pd.read_csv(cmip / "table.csv.gz", dtype=str)
    old = table[table["variable_id"] == "tas"].assign(version="v0", path="gone.nc")
    pd.concat([table, old]).to_csv(cmip / "table.csv.gz", index=False)
    select = {"member_id": "r1i1p1f1", "variable_id": "tas", "experiment_id": "historical"}
    [asset] = find_assets("here", str(cmip / "cmip.json"), select, {})
    assert asset.url.endswith("stores/tas_historical_r1i1p1f1.nc")


def test_several_members_are_refused_and_the_advice_chooses_one(cmip):
    with pytest.raises(CatalogError, match=r"several member_id.*'select: ({member_id: \w+})'") as e:
        open_source(catalog(cmip, {"source_id": "ESM-1"}), "model")
    advice = yaml.safe_load(str(e.value).partition("'select: ")[2].partition("'")[0])
    assert open_source(catalog(cmip, advice), "model").sizes["time"] == 1095


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"source": "ESM-1"}, "no column 'source'. Did you mean 'source_id'"),
        ({"source_id": "ESM1"}, "no row has source_id 'ESM1'.*Did you mean 'ESM-1'"),
        ({"member_id": "r1i1p1f1", "variable_id": ["tas", "tos"]}, "variable_id 'tos'.*'uas'"),
        ({}, "chooses stores by facets"),
    ],
)
def test_facets_that_choose_nothing_are_named(cmip, select, message):
    with pytest.raises(CatalogError, match=message):
        open_source(catalog(cmip, select), "model")


def test_what_is_no_esm_catalog_says_so(cmip):
    (cmip / "cmip.json").write_text('{"sources": {}}')
    with pytest.raises(CatalogError, match="no ESM catalog, which has 'assets'"):
        open_source(catalog(cmip, {"member_id": "r1i1p1f1"}), "model")
    (cmip / "cmip.json").unlink()
    with pytest.raises(CatalogError, match="there is no file"):
        open_source(catalog(cmip, {"member_id": "r1i1p1f1"}), "model")


def test_paths_of_a_table_cannot_be_templates(cmip):
    table = pd.read_csv(cmip / "table.csv.gz", dtype=str)
    table["path"] = "{{ env('HOME') ~ cycler.__init__ }}"
    table.to_csv(cmip / "table.csv.gz", index=False)
    with pytest.raises(CatalogError, match="template"):
        open_source(catalog(cmip, {"member_id": "r1i1p1f1"}), "model")


def test_published_catalogs_are_read(real_data):
    folder = real_data / "cmip6_esm_catalog"
    select = {"source_id": "GFDL-ESM4", "experiment_id": "historical", "member_id": "r2i1p1f1"}
    found = find_assets(
        "here",
        str(folder / "pangeo-gcp-subset.json"),
        select | {"variable_id": "tos", "grid_label": "gr"},
        {},
    )
    assert [asset.driver for asset in found] == ["zarr"]
    assert found[0].url.startswith("gs://cmip6/CMIP6/CMIP/NOAA-GFDL/GFDL-ESM4/historical/")
    select = {"source_id": "CNRM-CM6-1", "member_id": "r4i1p1f2", "table_id": "Amon"}
    place = str(folder / "cmip6-netcdf.json")
    assert [asset.label for asset in find_assets("here", place, select, {})] == ["prsn", "tasmax"]
