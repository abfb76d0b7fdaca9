"""Catalogs and entries that are wrong, or that would run code."""

import gzip
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import xarray as xr

from climlstm.data.sources.catalog import list_sources, open_path, open_source
from climlstm.errors import CatalogError, MissingExtraError
from tests.small_catalogs import weather

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


# Catalogs that somebody else made


def test_published_catalogs_open_without_their_plugins(write_catalog, tmp_path):
    weather().to_zarr(tmp_path / "a.zarr", zarr_format=2)
    weather().to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    path = write_catalog(
        """
        plugins: {source: [{module: intake_xarray}]}
        sources:
          tagged:
            driver: zarr
            metadata: {title: A title, tags: [air], license: CC-BY, plots: {map: {kind: mesh}}}
            args: {urlpath: "{{ CATALOG_DIR }}/a.zarr", consolidated: true}
          by_class:
            driver: intake_xarray.xzarr.ZarrSource
            args: {urlpath: "{{ CATALOG_DIR }}/a.zarr"}
          netcdf_by_class:
            driver: intake_xarray.netcdf.NetCDFSource
            args:
              urlpath: "{{ CATALOG_DIR }}/a.nc"
              chunks: {}
              xarray_kwargs: {decode_timedelta: false}
          nested:
            driver: yaml_file_cat
            args: {path: "{{ CATALOG_DIR }}/more.yaml"}
          near_miss:
            driver: zarr
            metadata: {axis: {latitude: lat}}
            args: {urlpath: "{{ CATALOG_DIR }}/a.zarr"}
        """
    )
    for name in ("tagged", "by_class", "netcdf_by_class"):
        xr.testing.assert_equal(open_source(path, name).load(), weather())
    assert list_sources(path)[0].metadata.licence == "CC-BY"
    problems = {info.name: info.problem for info in list_sources(path)}
    assert f"a catalog of its own: {tmp_path}/more.yaml. Name that file" in problems["nested"]
    assert "unknown key 'metadata.axis'. Did you mean 'axes'" in problems["near_miss"]


# Files that are not what their names say


def _zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("instant.nc", b"x" * 600)
        archive.writestr("accum.nc", b"x" * 600)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_zip, "a zip archive that holds instant.nc, accum.nc. Unpack it.*driver: merge"),
        (lambda path: path.write_text("<html>Please log in</html>"), "text, such as a web page"),
        (lambda path: path.write_bytes(path.read_bytes()[:4000]), "damaged or cut short"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(b"GRIB" + b"x" * 600), "driver: grib"),
        (lambda path: path.write_bytes(gzip.compress(path.read_bytes())), "compressed. Unpack"),
    ],
)
@pytest.mark.parametrize("pattern", ["b.nc", "*.nc"])
def test_a_file_that_is_not_what_its_name_says(write_catalog, tmp_path, make, said, pattern):
    for name in "ab":
        weather().to_netcdf(tmp_path / f"{name}.nc", engine="netcdf4")
    make(tmp_path / "b.nc")
    path = write_catalog(
        f'sources: {{a: {{driver: netcdf, args: {{urlpath: "{{{{ CATALOG_DIR }}}}/{pattern}"}}}}}}'
    )
    with pytest.raises(CatalogError, match=f"b.nc' is .*{said}"):
        open_source(path, "a")


def test_times_in_months_are_refused_in_one_sentence(write_entry):
    ds = weather().assign_coords(time=("time", [0, 1, 2, 3], {"units": "months since 2000-01-01"}))
    with pytest.raises(CatalogError, match="count months or years, which are no fixed length"):
        open_source(write_entry("{}", ds), "a")


def test_a_zarr_store_in_a_zip_by_its_path(tmp_path):
    weather().to_zarr(tmp_path / "a.zarr", zarr_format=2)
    shutil.make_archive(str(tmp_path / "a [1].zarr"), "zip", tmp_path / "a.zarr")
    xr.testing.assert_equal(open_path(str(tmp_path / "a [1].zarr.zip")).load(), weather())
