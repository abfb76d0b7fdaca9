"""Catalogs and entries that are wrong, or that would run code."""

import re
import sys
from pathlib import Path

import pytest

from climlstm.data.sources.catalog import list_sources, open_source
from climlstm.errors import CatalogError, MissingExtraError

CATALOGS = Path(__file__).parents[1] / "catalogs"


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
def test_broken_catalog(write_catalog, text, message):
    with pytest.raises(CatalogError, match=message):
        open_source(write_catalog(text), "a")


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
def test_broken_entry_is_refused_and_hides_no_other(write_catalog, entry, message):
    path = write_catalog(f"sources:\n  a: {entry}\n  b: {{driver: zarr, args: {{urlpath: x}}}}\n")
    with pytest.raises(CatalogError, match=re.escape(message)):
        open_source(path, "a")
    broken, whole = list_sources(path)
    assert whole.problem is None
    if message.startswith(("expected", "'driver'", "driver", "climlstm", "unknown", "'nam'")):
        assert message in broken.problem


def test_store_that_is_none(write_catalog, tmp_path):
    (tmp_path / "a.nc").write_text("not NetCDF")
    (tmp_path / "a.zarr").mkdir()
    path = write_catalog(
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
def test_missing_library_names_the_extra(write_catalog, monkeypatch, module, entry, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=re.escape(f"pip install 'climlstm[{extra}]'")):
        open_source(write_catalog(f"sources: {{a: {entry}}}"), "a")


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
def test_catalogs_run_nothing(write_catalog, tmp_path, attack):
    text, message = ATTACKS[attack]
    flag = tmp_path / "flag"
    with pytest.raises(CatalogError, match=message):
        open_source(write_catalog(text.replace("FLAG", str(flag))), "a")
    assert not flag.exists()


def test_flood_of_aliases_is_refused(write_catalog):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(CatalogError, match="unfolds to more than"):
        list_sources(write_catalog("\n".join([*lines, "sources: {}"])))


def test_endless_and_deep_catalogs_are_refused(write_catalog):
    with pytest.raises(CatalogError, match="unfolds to more than"):
        list_sources(write_catalog("sources: &a {b: *a}"))
    with pytest.raises(CatalogError, match="nested too deeply"):
        list_sources(write_catalog("sources: " + "[" * 5000))
