"""Sources that catalogs open, and the catalogs that come with climlstm."""

import functools
import http.server
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import xarray as xr

from climlstm.data.sources.catalog import list_sources, open_source
from climlstm.data.sources.origin import as_dask, origin_of
from climlstm.errors import CatalogError
from tests.small_catalogs import weather

CATALOGS = Path(__file__).parents[1] / "catalogs"


@pytest.mark.parametrize(("version", "consolidated"), [(2, True), (2, False), (3, False)])
def test_zarr_of_both_versions(write_catalog, tmp_path, version, consolidated):
    stored = weather().chunk(time=2)
    stored.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=consolidated)
    path = write_catalog(
        'sources: {a: {driver: zarr, args: {urlpath: "{{ CATALOG_DIR }}/a.zarr"}}}'
    )
    opened = open_source(path, "a")
    assert origin_of(opened["t2m"]) is not None
    assert as_dask(opened)["t2m"].chunks[0] == (2, 2)
    xr.testing.assert_equal(opened, stored)


@pytest.mark.parametrize("file_format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4"])
def test_netcdf_of_all_formats(write_entry, tmp_path, file_format):
    path = write_entry("{}")
    weather().to_netcdf(tmp_path / "a.nc", engine="netcdf4", format=file_format)
    opened = open_source(path, "a")
    assert origin_of(opened["t2m"]) is not None  # nothing was read
    xr.testing.assert_equal(opened, weather())


def test_several_files_follow_each_other_in_time(write_catalog, tmp_path):
    for day in (1, 0):
        hours = range(24 * day, 24 * day + 24, 6)
        weather(hours=hours).to_netcdf(tmp_path / f"day{day}.nc", engine="netcdf4")
    path = write_catalog(
        'sources: {a: {driver: netcdf, args: {urlpath: "{{ CATALOG_DIR }}/day*.nc"}}}'
    )
    assert open_source(path, "a").indexes["time"].is_monotonic_increasing
    assert open_source(path, "a").sizes["time"] == 8


def test_parameters_with_and_without_a_default(write_catalog, tmp_path):
    for name in ("a", "b"):
        weather(name).to_netcdf(tmp_path / f"{name}.nc", engine="netcdf4")
    path = write_catalog(
        """
        sources:
          either:
            driver: netcdf
            args: {urlpath: "{{ CATALOG_DIR }}/{{ which }}.nc"}
            parameters:
              which: {description: one of two, type: str, default: a, allowed: [a, b]}
          asked:
            driver: netcdf
            args: {urlpath: "{{ CATALOG_DIR }}/{{ which }}.nc"}
            parameters:
              which: {description: one of two, type: str}
        """
    )
    assert list(open_source(path, "either")) == ["a"]
    assert list(open_source(path, "either", which="b")) == ["b"]
    assert [s.parameters for s in list_sources(path)] == [("which",), ("which*",)]
    with pytest.raises(CatalogError, match=r"needs the parameter 'which' \(one of two\)"):
        open_source(path, "asked")
    with pytest.raises(CatalogError, match=r"no parameter 'wich'. Did you mean 'which'"):
        open_source(path, "either", wich="b")
    with pytest.raises(CatalogError, match="not one of the allowed values"):
        open_source(path, "either", which="c")
    with pytest.raises(CatalogError, match="is a template"):
        open_source(path, "either", which="{{ CATALOG_DIR }}")


def test_environment_variables(write_catalog, tmp_path, monkeypatch):
    weather().to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    path = write_catalog(
        """
        sources:
          a:
            driver: netcdf
            args: {urlpath: "{{ env('CLIMLSTM_TEST_FOLDER', CATALOG_DIR + 'elsewhere') }}/a.nc"}
          b:
            driver: netcdf
            args: {urlpath: "{{ env(CLIMLSTM_TEST_FOLDER) }}/a.nc"}
        """
    )
    monkeypatch.delenv("CLIMLSTM_TEST_FOLDER", raising=False)
    with pytest.raises(CatalogError, match=r"nothing at '.*elsewhere/a.nc'"):
        open_source(path, "a")
    with pytest.raises(
        CatalogError, match="environment variable CLIMLSTM_TEST_FOLDER is asked for"
    ):
        open_source(path, "b")
    monkeypatch.setenv("CLIMLSTM_TEST_FOLDER", str(tmp_path))
    for name in ("a", "b"):
        xr.testing.assert_equal(open_source(path, name), weather())


def test_catalog_and_store_over_http(write_catalog, tmp_path):
    weather().to_zarr(tmp_path / "a.zarr", zarr_format=2)
    weather().to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    write_catalog(
        """
        sources:
          zarr: {driver: zarr, args: {urlpath: "{{ CATALOG_DIR }}/a.zarr"}}
          whole: {driver: netcdf, args: {urlpath: "{{ CATALOG_DIR }}/a.nc"}}
          cached:
            driver: netcdf
            args: {urlpath: "simplecache::{{ CATALOG_DIR }}/a.nc", open_local: true}
          gone: {driver: zarr, args: {urlpath: "{{ CATALOG_DIR }}/b.zarr"}}
        """
    )

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/catalog.yaml"
        for name in ("zarr", "cached"):
            xr.testing.assert_equal(open_source(url, name).load(), weather())
        with pytest.raises(CatalogError, match="as 'simplecache::http"):
            open_source(url, "whole")
        with pytest.raises(CatalogError, match=r"'gone'.* cannot be opened"):
            open_source(url, "gone")
        with pytest.raises(CatalogError, match="no catalog"):
            open_source(url.replace("catalog", "katalog"), "zarr")
        server.shutdown()


@pytest.mark.parametrize("name", ["era5.yaml", "demo.yaml", "examples/real.yaml"])
def test_our_catalogs_are_sound_and_plain_intake(name):
    import intake

    listed = {source.name: source for source in list_sources(str(CATALOGS / name))}
    assert not [source.problem for source in listed.values() if source.problem]
    assert all(source.description for source in listed.values())
    assert list(intake.open_catalog(str(CATALOGS / name))) == list(listed)


def test_public_stores_state_licence_grid_and_span():
    for source in list_sources(str(CATALOGS / "era5.yaml")):
        said = source.metadata
        stated = (said.licence, said.attribution, said.grid, said.span, said.step)
        assert all(stated), source.name


@pytest.mark.parametrize("source", list_sources(str(CATALOGS / "era5.yaml")), ids=lambda s: s.name)
def test_public_stores_are_asked_for_anonymously(source, monkeypatch):
    """They cannot be reached from everywhere; what would be opened, and how, can be seen."""
    calls = []

    def pretend(url, **options):
        calls.append((url, options))
        return weather().assign_attrs(valid_time_start="1940-01-01", valid_time_stop="2024-12-31")

    monkeypatch.setattr(xr, "open_dataset", pretend)
    monkeypatch.setattr("climlstm.data.sources.files._reach", lambda *_: None)
    open_source(str(CATALOGS / "era5.yaml"), source.name)
    [(url, options)] = calls
    assert re.fullmatch(
        r"gs://(weatherbench2/datasets/era5|gcp-public-data-arco-era5/ar)/[\w.-]+", url
    )
    assert options["backend_kwargs"]["storage_options"] == {"token": "anon"}
    assert (options["engine"], options["chunks"], options["consolidated"]) == ("zarr", None, True)


def test_cloud_out_of_reach_says_so(monkeypatch):
    def no_network(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("fsspec.url_to_fs", no_network)
    with pytest.raises(CatalogError, match=r"cannot be opened: OSError.*Is it reachable from here"):
        open_source(str(CATALOGS / "era5.yaml"), "era5_240x121")


def test_demo_catalog_opens_local_data(tmp_path, monkeypatch):
    weather().to_zarr(tmp_path / "atmosphere.zarr", consolidated=False)
    weather().to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    monkeypatch.setenv("CLIMLSTM_DEMO", str(tmp_path))
    demo = str(CATALOGS / "demo.yaml")
    xr.testing.assert_equal(open_source(demo, "atmosphere"), weather())
    xr.testing.assert_equal(
        open_source(demo, "local_netcdf", path=str(tmp_path / "a.nc")), weather()
    )


def test_listing_needs_neither_intake_nor_data():
    code = (
        "import sys; from climlstm.data.sources.catalog import list_sources; "
        f"assert len(list_sources({str(CATALOGS / 'era5.yaml')!r})) == 4; "
        "assert not {'intake', 'gcsfs', 'eccodes', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


PUBLISHED = """
plugins: {source: [{module: intake_xarray}]}
name: theirs
sources:
  a:
    driver: netcdf
    description: null
    direct_access: allow
    cache: []
    args: {urlpath: "%s"}
    metadata: {grid: {nx: 4}, step: 6, tags: [era5], url: "https://example.org"}
"""


@pytest.mark.parametrize(
    "urlpath",
    ["{{ CATALOG_DIR }}/a [1].nc", "{{ CATALOG_DIR }}/a ?1?.nc", "file://FOLDER/a [1].nc",
     "~/a [1].nc"],
)  # fmt: skip
def test_published_catalogs_and_their_ways_to_name_files(tmp_path, monkeypatch, urlpath):
    monkeypatch.setenv("HOME", str(tmp_path))
    weather().to_netcdf(tmp_path / "a [1].nc", engine="netcdf4")
    (tmp_path / "c.yaml").write_text(PUBLISHED % urlpath.replace("FOLDER", str(tmp_path)))
    [listed] = list_sources(str(tmp_path / "c.yaml"))
    assert listed.problem is None
    xr.testing.assert_equal(open_source(str(tmp_path / "c.yaml"), "a").load(), weather())


def test_intakes_own_patterns_are_told(write_catalog):
    path = write_catalog('sources: {a: {driver: netcdf, args: {urlpath: "/nowhere/{year}.nc"}}}')
    with pytest.raises(CatalogError, match=r"there is nothing at .* Write \* for what"):
        open_source(path, "a")


@pytest.mark.parametrize("inside", ["", "store.zarr", "deep/store.zarr"])
def test_a_zarr_store_is_found_in_its_zip(write_catalog, tmp_path, inside):
    weather().to_zarr(tmp_path / "packed" / inside)
    shutil.make_archive(str(tmp_path / "mine"), "zip", tmp_path / "packed")
    path = write_catalog(
        'sources: {a: {driver: zarr, args: {urlpath: "{{ CATALOG_DIR }}/mine.zip"}}}'
    )
    xr.testing.assert_equal(open_source(path, "a").load(), weather())
