"""Catalogs: what they open, what they declare, and what they are refused for."""

import functools
import http.server
import logging
import os
import re
import subprocess
import sys
import textwrap
import threading
from importlib.util import find_spec
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from climlstm.data.sources.catalog import list_sources, open_source
from climlstm.errors import CatalogError, MissingExtraError

CATALOGS = Path(__file__).parents[1] / "catalogs"


def weather(name="t2m", hours=range(0, 24, 6)):
    shape = (len(hours), 2, 3)
    return xr.Dataset(
        {
            name: (
                ("time", "latitude", "longitude"),
                np.arange(np.prod(shape), dtype="f4").reshape(shape),
            )
        },
        coords={
            "time": pd.Timestamp("2000-01-01") + pd.to_timedelta(list(hours), unit="h"),
            "latitude": [10.0, 0.0],
            "longitude": [0.0, 1.0, 2.0],
        },
    )


@pytest.fixture
def write(tmp_path):
    """Writes a catalog of the given text and returns its path."""

    def write_catalog(text: str) -> str:
        path = tmp_path / "catalog.yaml"
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write_catalog


@pytest.fixture
def one(write, tmp_path):
    """A catalog with one NetCDF source 'a' and the given metadata (YAML flow)."""

    def catalog(metadata: str, ds: xr.Dataset | None = None) -> str:
        (weather() if ds is None else ds).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
        return write(
            f"""
            sources:
              a:
                driver: netcdf
                args: {{urlpath: "{{{{ CATALOG_DIR }}}}/a.nc"}}
                metadata: {metadata}
            """
        )

    return catalog


# What opens


@pytest.mark.parametrize(("version", "consolidated"), [(2, True), (2, False), (3, False)])
def test_zarr_of_both_versions(write, tmp_path, version, consolidated):
    stored = weather().chunk(time=2)
    stored.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=consolidated)
    path = write('sources: {a: {driver: zarr, args: {urlpath: "{{ CATALOG_DIR }}/a.zarr"}}}')
    opened = open_source(path, "a")
    assert opened["t2m"].chunks[0] == (2, 2)
    xr.testing.assert_equal(opened, stored)


@pytest.mark.parametrize("file_format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4"])
def test_netcdf_of_all_formats(one, tmp_path, file_format):
    path = one("{}")
    weather().to_netcdf(tmp_path / "a.nc", engine="netcdf4", format=file_format)
    opened = open_source(path, "a")
    assert dask.is_dask_collection(opened["t2m"])
    xr.testing.assert_equal(opened, weather())


def test_several_files_follow_each_other_in_time(write, tmp_path):
    for day in (1, 0):
        hours = range(24 * day, 24 * day + 24, 6)
        weather(hours=hours).to_netcdf(tmp_path / f"day{day}.nc", engine="netcdf4")
    path = write('sources: {a: {driver: netcdf, args: {urlpath: "{{ CATALOG_DIR }}/day*.nc"}}}')
    assert open_source(path, "a").indexes["time"].is_monotonic_increasing
    assert open_source(path, "a").sizes["time"] == 8


def test_parameters_with_and_without_a_default(write, tmp_path):
    for name in ("a", "b"):
        weather(name).to_netcdf(tmp_path / f"{name}.nc", engine="netcdf4")
    path = write(
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


def test_environment_variables(write, tmp_path, monkeypatch):
    weather().to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    path = write(
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


def test_catalog_and_store_over_http(write, tmp_path):
    weather().to_zarr(tmp_path / "a.zarr", zarr_format=2)
    weather().to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    write(
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


# What a source may declare


def test_declared_names_units_and_levels(one):
    path = one("{variables: {t2m: {name: t, level: 850, units: degC, missing: [-999]}}}")
    opened = open_source(path, "a")
    assert list(opened) == ["t850"]
    assert opened["t850"].attrs == {"units": "degC", "missing": [-999]}


def test_declared_units_go_before_the_file_and_are_logged(one, caplog):
    ds = weather()
    ds["t2m"].attrs["units"] = "K"
    with caplog.at_level(logging.INFO):
        opened = open_source(one("{variables: {t2m: {units: degC}}}", ds), "a")
    assert opened["t2m"].attrs["units"] == "degC"
    assert "'t2m' is taken to be in 'degC', not 'K'" in caplog.text


@pytest.mark.parametrize("axes", ["", "axes: {time: hour}, "])
def test_declared_epoch(one, axes):
    ds = weather().assign_coords(time=[0, 6, 12, 18])
    ds = ds.rename(time="hour" if axes else "timestep")
    opened = open_source(one(f"{{{axes}time_units: hours since 2000-01-01}}", ds), "a")
    np.testing.assert_array_equal(opened["time"], weather()["time"])


def test_declared_choice_of_a_member(one):
    ds = xr.concat([weather(), weather() + 1], pd.Index([3, 7], name="number"))
    assert float(open_source(one("{select: {number: 7}}", ds), "a")["t2m"][0, 0, 0]) == 1
    with pytest.raises(CatalogError, match="asks for number: 1, but there are only 3, 7"):
        open_source(one("{select: {number: 1}}", ds), "a")


def test_declared_period_by_date_or_attribute(one):
    ds = weather(hours=range(0, 96, 6)).assign_attrs(valid_time_stop="2000-01-03")
    opened = open_source(one("{period: ['2000-01-02', valid_time_stop]}", ds), "a")
    assert [str(t)[:13] for t in opened["time"].values[[0, -1]]] == [
        "2000-01-02T00",
        "2000-01-03T18",
    ]


def test_entries_merged_into_one(write, tmp_path):
    """Two files that both call their variable `u`, at 2 and 10 m."""
    for height in (2, 10):
        weather("u").assign_coords(height=height).to_netcdf(
            tmp_path / f"{height}.nc", engine="netcdf4"
        )
    path = write(
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
    with pytest.raises(CatalogError, match="do not fit together"):
        open_source(path, "same")
    with pytest.raises(CatalogError, match="merges itself: loop -> loop"):
        open_source(path, "loop")
    with pytest.raises(CatalogError, match=r"no source 'lo'. Did you mean 'low'"):
        open_source(path, "lost")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{license: MIT}", "unknown key 'metadata.license'. Did you mean 'licence'"),
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
def test_declarations_that_do_not_fit_are_refused(one, metadata, message):
    with pytest.raises(CatalogError, match=re.escape(message)):
        open_source(one(metadata), "a")


# What is wrong with a catalog or an entry


def test_missing_catalog(tmp_path):
    with pytest.raises(CatalogError, match=r"There is no catalog '.*none.yaml'"):
        list_sources(str(tmp_path / "none.yaml"))
    with pytest.raises(CatalogError, match="is a folder"):
        list_sources(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: [", "is not valid YAML"),
        ("", "has no sources"),
        ("sources: [a]", "has no sources"),
        ("version: 2\nentries: {}", "this is an Intake 2 catalog"),
        ("sources: {a: {driver: zarr}, a: {driver: zarr}}", "the key 'a' stands there twice"),
        ("sources: {}\nplugins: {source: [{module: os}]}", "'plugins', which would import code"),
    ],
)
def test_broken_catalog(write, text, message):
    with pytest.raises(CatalogError, match=message):
        open_source(write(text), "a")


def test_catalog_that_is_no_text(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(CatalogError, match="is not a text file"):
        list_sources(str(tmp_path / "c.yaml"))


def test_unknown_entry_names_the_nearest():
    with pytest.raises(CatalogError, match=r"no source 'era5_64x23'. Did you mean 'era5_64x32'"):
        open_source(str(CATALOGS / "era5.yaml"), "era5_64x23")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("text", "expected keys such as 'driver'"),
        ("{args: {}}", "'driver' is missing"),
        ("{driver: zar, args: {}}", "driver 'zar'. Did you mean 'zarr'"),
        ("{driver: os.system, args: {}}", "climlstm opens: zarr, netcdf, grib, merge"),
        ("{driver: zarr, arg: {}}", "unknown key 'arg'. Did you mean 'args'"),
        ("{driver: zarr, args: {}}", "'args' or 'parameters' do not fit: TypeError"),
        ("{driver: zarr, args: {urlpath: '{{ nam }}'}}", "'nam' is no parameter"),
        (
            "{driver: zarr, args: {urlpath: /nowhere/at/all.zarr}}",
            "nothing at '/nowhere/at/all.zarr'",
        ),
        ("{driver: merge, args: {urlpath: x}}", "'merge' takes the names of entries"),
    ],
)
def test_broken_entry_is_refused_and_hides_no_other(write, entry, message):
    path = write(f"sources:\n  a: {entry}\n  b: {{driver: zarr, args: {{urlpath: x}}}}\n")
    with pytest.raises(CatalogError, match=re.escape(message)):
        open_source(path, "a")
    broken, whole = list_sources(path)
    assert whole.problem is None
    if message.startswith(("expected", "'driver'", "driver", "climlstm", "unknown", "'nam'")):
        assert message in broken.problem


def test_store_that_is_none(write, tmp_path):
    (tmp_path / "a.nc").write_text("not NetCDF")
    (tmp_path / "a.zarr").mkdir()
    path = write(
        """
        sources:
          a: {driver: netcdf, args: {urlpath: "{{ CATALOG_DIR }}/a.nc"}}
          b: {driver: zarr, args: {urlpath: "{{ CATALOG_DIR }}/a.zarr"}}
          c: {driver: zarr, args: {urlpath: "http://127.0.0.1:9/a.zarr"}}
        """
    )
    for name in ("a", "b", "c"):
        with pytest.raises(
            CatalogError, match=f"Source '{name}' of the catalog '.*' cannot be opened"
        ):
            open_source(path, name)


@pytest.mark.parametrize(
    ("module", "entry", "extra"),
    [
        ("cfgrib.xarray_plugin", "{driver: grib, args: {urlpath: a.grib}}", "grib"),
        ("gcsfs", "{driver: zarr, args: {urlpath: gs://bucket/a.zarr}}", "cloud"),
        ("s3fs", "{driver: zarr, args: {urlpath: s3://bucket/a.zarr}}", "cloud"),
    ],
)
def test_missing_library_names_the_extra(write, monkeypatch, module, entry, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=re.escape(f"pip install 'climlstm[{extra}]'")):
        open_source(write(f"sources: {{a: {entry}}}"), "a")


# What must not run


ATTACKS = {
    "constructor of Python": ("sources: !!python/object/apply:os.system ['touch FLAG']", "YAML"),
    "object of Python": (
        "sources: {a: !!python/object/new:subprocess.Popen [['touch', 'FLAG']]}",
        "not valid YAML",
    ),
    "shell in a template": (
        """sources: {a: {driver: zarr, args: {urlpath: "{{ shell('touch FLAG') }}"}}}""",
        "may be called in templates",
    ),
    "attributes in a template": (
        """sources: {a: {driver: zarr, args: {urlpath: "{{ self.__init__.__globals__
        .__builtins__.__import__('os').system('touch FLAG') }}"}}}""",
        "templates",
    ),
    "statement in a template": (
        """sources: {a: {driver: zarr, args: {storage_options: {x: ["{% for x in
        ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}"]}}}}""",
        "are understood in templates",
    ),
    "filter in a template": (
        """sources: {a: {driver: zarr, args: {urlpath: "{{ CATALOG_DIR|attr('__class__') }}"}}}""",
        "are understood in templates",
    ),
    "class of an entry": (
        "sources: {a: {cls: subprocess.Popen, args: [['touch', 'FLAG']], driver: zarr}}",
        "unknown key 'cls'",
    ),
    "class as a driver": (
        "sources: {a: {driver: subprocess.Popen, args: {args: ['touch', 'FLAG']}}}",
        "climlstm opens: zarr",
    ),
    "shell in a default": (
        """sources: {a: {driver: zarr, args: {urlpath: '{{ x }}'},
        parameters: {x: {type: str, default: "shell(touch FLAG)"}}}}""",
        "there is nothing at",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_catalogs_run_nothing(write, tmp_path, attack):
    text, message = ATTACKS[attack]
    flag = tmp_path / "flag"
    with pytest.raises(CatalogError, match=message):
        open_source(write(text.replace("FLAG", str(flag))), "a")
    assert not flag.exists()


def test_flood_of_aliases_is_refused(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(CatalogError, match="unfolds to more than"):
        list_sources(write("\n".join([*lines, "sources: {}"])))


def test_endless_and_deep_catalogs_are_refused(write):
    with pytest.raises(CatalogError, match="unfolds to more than"):
        list_sources(write("sources: &a {b: *a}"))
    with pytest.raises(CatalogError, match="nested too deeply"):
        list_sources(write("sources: " + "[" * 5000))


# Our own catalogs


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
    monkeypatch.setattr("climlstm.data.sources.catalog._reach", lambda *_: None)
    open_source(str(CATALOGS / "era5.yaml"), source.name)
    [(url, options)] = calls
    assert re.fullmatch(
        r"gs://(weatherbench2/datasets/era5|gcp-public-data-arco-era5/ar)/[\w.-]+", url
    )
    assert options["backend_kwargs"]["storage_options"] == {"token": "anon"}
    assert (options["engine"], options["chunks"], options["consolidated"]) == ("zarr", {}, True)


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


def test_grib_and_maps_live_in_one_process(real_data):
    """eccodes and pyproj bring two builds of PROJ; in the wrong order they crash the process."""
    if find_spec("cfgrib") is None or find_spec("cartopy") is None:
        pytest.skip("needs climlstm[grib,plot]")
    code = f"""
from climlstm.data.sources.catalog import open_source
open_source({str(CATALOGS / "examples/real.yaml")!r}, "era5_t2m_uk_2019_03").load()
import cartopy.crs
cartopy.crs.Robinson().transform_point(0, 50, cartopy.crs.PlateCarree())
"""
    environment = os.environ | {"CLIMLSTM_REAL_DATA": str(real_data)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert not list((real_data / "era5_t2m_uk_2019_03").glob("*.idx"))
