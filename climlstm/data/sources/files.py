"""Files and stores of a catalog entry, each opened as a lazy Dataset by an engine that is named.

Without a name xarray tries every installed engine; importing eccodes that way crashes a process
that has another build of PROJ (cartopy's).
"""

import glob
import importlib
import logging
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xarray as xr

from climlstm.config.secrets import redact
from climlstm.data.sources.fills import not_missing, without_fills
from climlstm.data.sources.origin import follow, with_origins
from climlstm.data.sources.wrf import as_cf
from climlstm.environment import import_pyproj
from climlstm.errors import CatalogError, missing_extra

REQUEST_LIMITS = {
    "retries": {"total_max_attempts": 1},
    "connect_timeout": 10,
    "read_timeout": 30,
}
"""Limits of botocore in seconds: connection attempts, and pauses between bytes."""

ENDINGS = {
    "zarr": (".zarr", ".zarr.zip"),
    "netcdf": (".nc", ".nc4", ".cdf", ".netcdf", ".h5"),
    "grib": (".grib", ".grb", ".grib2", ".grb2"),
}
"""Endings of files and stores by the driver that reads them."""

STORE_FILES = ("zarr.json", ".zgroup", ".zmetadata")
"""Files that a Zarr store has at its top."""

CLOUD_LIBRARIES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}


COMBINING = (
    "combine",
    "concat_dim",
    "compat",
    "data_vars",
    "coords",
    "join",
    "combine_attrs",
    "parallel",
)
"""Options of `open_mfdataset` that published catalogs have; files are joined by joining.py. Their
`chunks` are not used either: variables are opened without Dask, see origin.py."""


def open_files(
    where: str, driver: str, reader: Any, valid: Mapping[str, tuple[float, ...]]
) -> list[tuple[str, xr.Dataset]]:
    """Each file of an entry by its name, as a lazy Dataset under CF.

    reader: Intake's, of which the locations and options are used.
    valid: values of variables that their files state as missing, though they are values.
    Raises CatalogError for a file that is not there or cannot be read, and says what it is.
    """
    given = reader.data.url
    urls = [_local(str(url)) for url in (given if isinstance(given, list | tuple) else [given])]
    options = _options(where, driver, reader.kwargs, urls)
    _check_locations(where, urls)
    storage = reader.data.storage_options or {}
    with quiet():
        try:
            _reach(urls, storage)
            urls = [file for url in urls for file in _expand(url, storage)]
        except Exception as error:
            raise _cannot_be_opened(where, driver, urls[0], error) from error
        names = [Path(url).name if len(urls) > 1 else redact(url) for url in urls]
        return [
            (name, _open_file(where, driver, reader, url, options, valid))
            for name, url in zip(names, urls, strict=True)
        ]


def _local(url: str) -> str:
    """A path as this machine has it; URLs stay as they are."""
    url = url.removeprefix("file://")
    return url if "://" in url else os.path.expanduser(url)


def _expand(url: str, options: Mapping[str, Any]) -> list[str]:
    """The files that a pattern names, in order; the path or URL itself where it is none."""
    if "://" in url:
        chain, _, last = url.rpartition("::")
        if "*" not in last and (not glob.has_magic(last) or last.startswith("http")):
            return [url]
        filesystem, path = importlib.import_module("fsspec").url_to_fs(last, **options)
        found = [filesystem.unstrip_protocol(file) for file in sorted(filesystem.glob(path))]
        return [f"{chain}::{file}" if chain else file for file in found]
    return [url] if Path(url).exists() else sorted(glob.glob(url, recursive=True))


def _open_file(
    where: str,
    driver: str,
    reader: Any,
    url: str,
    options: Mapping[str, Any],
    valid: Mapping[str, tuple[float, ...]],
) -> xr.Dataset:
    is_zarr = options["engine"] == "zarr"
    if is_zarr and url.lower().endswith(".zip") and "://" not in url and zipfile.is_zipfile(url):
        names = sorted(zipfile.ZipFile(url).namelist(), key=lambda name: name.count("/"))
        stores = [n.rpartition("/")[0] for n in names if n.rpartition("/")[2] in STORE_FILES]
        url = f"zip://{stores[0] if stores else ''}::{url}"
    reader.data.url = url if "://" in url else [url]
    if "://" not in url:
        reader.data.storage_options = {}  # zarr refuses them for a path, and nothing needs them

    def read(**more: Any) -> xr.Dataset:
        try:
            opened: xr.Dataset = reader(**options, **more).read()
            return opened
        except ImportError as error:
            raise missing_extra(where, "cloud", error) from error
        except Exception as error:  # Intake, xarray, engine and storage each have their own
            raise _cannot_be_opened(where, driver, url, error) from error

    source = read()
    values = not_missing(source, valid)
    if values:
        masked = options.get("mask_and_scale", True)
        if masked is not False:
            unmasked = dict.fromkeys(values, False)
            options = {key: value for key, value in options.items() if key != "mask_and_scale"}
            source = read(mask_and_scale=(masked if isinstance(masked, dict) else {}) | unmasked)
        source = without_fills(source, values)
    storage, group = reader.data.storage_options, options.get("group")
    source = with_origins(source, url, options=storage or None, group=group, is_zarr=is_zarr)
    return follow(source, as_cf)


def _cannot_be_opened(where: str, driver: str, url: str, error: Exception) -> CatalogError:
    hint = " Is it reachable from here, with these storage_options?" if "://" in url else ""
    if "months since" in str(error) or "years since" in str(error):
        return CatalogError(
            f"{where} cannot be opened: the times of '{redact(url)}' count months or years, which "
            "are no fixed length of time. Write them as days or hours since a date."
        )
    found = _kind_of_file(url, driver, damaged=not isinstance(error, ValueError))
    what = f"'{redact(url)}' is {found}" if found else f"{describe(error)} ({redact(url)})."
    return CatalogError(f"{where} cannot be opened: {what}{hint}")


def _kind_of_file(url: str, driver: str, *, damaged: bool) -> str | None:
    """A local file that is not what its entry says, with the remedy; None if it cannot be told.

    damaged: whether a file of the driver's own kind may be at fault as a whole.
    """
    path = Path(url)
    if driver != "zarr" and _is_zarr(path):
        return "a Zarr store. Set 'driver: zarr'."
    if not path.is_file():
        return None
    start = path.read_bytes()[:512] if path.stat().st_size < 512 else path.open("rb").read(512)
    if not start:
        return "an empty file. Fetch it again."
    if zipfile.is_zipfile(path) and driver != "zarr":
        names = ", ".join(zipfile.ZipFile(path).namelist()[:6])
        return (
            f"a zip archive that holds {names}. Unpack it, and make an entry for each of its "
            "files and one with 'driver: merge' for all."
        )
    if start.lstrip()[:1] in (b"<", b"{"):
        return (
            "text, such as a web page or an error message of a server "
            f"({start[:60].decode('utf-8', 'replace')!r}). Fetch it again."
        )
    for magic, kind in ((b"GRIB", "grib"), (b"CDF", "netcdf"), (b"\x89HDF", "netcdf")):
        if start.startswith(magic) and driver != kind:
            return f"a {kind} file. Set 'driver: {kind}'."
        if start.startswith(magic) and damaged:
            size = path.stat().st_size
            return f"a {kind} file that is damaged or cut short ({size:,} bytes). Fetch it again."
    if start.startswith((b"\x1f\x8b", b"BZh")):
        return "compressed. Unpack it first, for example with gunzip."
    return None


def _options(
    where: str, driver: str, given: Mapping[str, Any], urls: Sequence[str]
) -> dict[str, Any]:
    """Options for xarray: those of the entry, and defaults of its driver."""
    engines = {"zarr": "zarr", "netcdf": "netcdf4", "grib": "cfgrib"}
    engine = str(given.get("engine") or engines[driver])
    options = dict(given) | {"engine": engine, "chunks": None, "cache": False}
    if engine == "cfgrib":
        options["engine"] = _cfgrib_engine(where)
        options["backend_kwargs"] = {"indexpath": ""} | options.get("backend_kwargs", {})
    else:
        options.setdefault("decode_timedelta", False)
    if engine == "netcdf4" and any("://" in url and "::" not in url for url in urls):
        url = redact(urls[0])
        raise CatalogError(
            f"{where}: NetCDF cannot be read from '{url}' piece by piece. Write the urlpath as "
            f"'simplecache::{url}', which downloads it first, and set 'open_local: true'."
        )
    return {key: value for key, value in options.items() if key not in COMBINING}


def driver_of(place: str, where: str) -> str:
    bare = place.split("?")[0].rstrip("/").lower()
    for driver, endings in ENDINGS.items():
        if bare.endswith(endings):
            return driver
    if _is_zarr(Path(place)):
        return "zarr"
    known = ", ".join(ending for endings in ENDINGS.values() for ending in endings)
    raise CatalogError(
        f"{where} has no ending that says how to read it ({known}). Rename it, or name it in a "
        "catalog with its driver."
    )


def _is_zarr(place: Path) -> bool:
    return any((place / name).exists() for name in STORE_FILES)


def bounded_in_time(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with which a request to S3 fails soon, unless the entry says otherwise.

    s3fs tries each five times, and remote.py its chunks again; five tries of botocore's within
    each of those make a store that is down look as if it were slow, for many minutes.
    """
    urls = args.get("urlpath", "")
    first = urls[0] if isinstance(urls, list) and urls else urls
    if not str(first).startswith(("s3://", "s3a://")):
        return dict(args)
    options = dict(args.get("storage_options") or {})
    options.setdefault("config_kwargs", REQUEST_LIMITS)
    return dict(args) | {"storage_options": options}


def _cfgrib_engine(where: str) -> Any:
    """cfgrib's engine as a class, so that xarray imports no other one."""
    with suppress(ImportError):
        import_pyproj()
    try:
        return importlib.import_module("cfgrib.xarray_plugin").CfGribBackend
    except (ImportError, RuntimeError) as error:  # RuntimeError: no eccodes library
        cause = error if isinstance(error, ImportError) else ImportError(str(error), name="eccodes")
        raise missing_extra(f"{where} is GRIB and", "grib", cause) from error


def _check_locations(where: str, urls: Sequence[str]) -> None:
    """Whether local files are there, and the libraries for remote ones."""
    for url in urls:
        protocol = url.split("::")[-1].split("://")[0] if "://" in url else ""
        if protocol in CLOUD_LIBRARIES:
            try:
                importlib.import_module(CLOUD_LIBRARIES[protocol])
            except ImportError as error:
                raise missing_extra(f"{where} ({protocol}://)", "cloud", error) from error
        elif not protocol and not glob.glob(url) and not Path(url).exists():
            raise CatalogError(
                f"{where}: there is nothing at '{Path(url).resolve()}'. Check the urlpath, the "
                "parameters and the environment variables that it is made of."
                + " Write * for what Intake's patterns put in braces."
                * ("{" in url)
            )


def _reach(urls: Sequence[str], storage_options: Mapping[str, Any]) -> None:
    """One request to each cloud store, so that failing to reach it is one error and not many."""
    fsspec = importlib.import_module("fsspec")
    for url in urls:
        if url.split("://")[0] in CLOUD_LIBRARIES:
            filesystem, path = fsspec.url_to_fs(url, **storage_options)
            with suppress(
                FileNotFoundError, PermissionError
            ):  # listing may be forbidden, not reading
                filesystem.info(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings that nobody can act on, and the traceback that gcsfs logs besides its error.

    Intake warns at each text that it runs no shell command in it; xarray, of Zarr stores without
    consolidated metadata, as most of version 3 are.
    """
    gcsfs = logging.getLogger("gcsfs")
    level = gcsfs.level
    gcsfs.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Shell command not executed")
            warnings.filterwarnings("ignore", message="Failed to open Zarr store with consolidated")
            yield
    finally:
        gcsfs.setLevel(level)


def describe(error: BaseException) -> str:
    text = str(error).strip().rstrip(".") or "no further message"
    return f"{type(error).__name__}: {redact(text[:600])}"
