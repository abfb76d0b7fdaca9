"""Catalogs: sources that somebody else made, by name; opened through Intake as lazy Datasets.

A catalog is YAML as Intake reads it: sources, each with driver, args, parameters and metadata
(entries.py). Under `metadata` it also declares what files leave out (declarations.py).
"""

import glob
import importlib
import logging
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
import yaml

from climlstm.config.secrets import redact
from climlstm.data.sources.declarations import Metadata, declare
from climlstm.data.sources.entries import Entry, check_parameters, parse_entry, read_catalog
from climlstm.data.sources.origin import follow, with_origins
from climlstm.errors import CatalogError, missing_extra, nearest
from climlstm.files import write_text

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

CLOUD_LIBRARIES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}


@dataclass(frozen=True)
class SourceInfo:
    """An entry of a catalog, as it describes its source."""

    name: str
    description: str
    driver: str
    parameters: tuple[str, ...]
    """Names of what can be chosen; those without a default end in '*'."""
    metadata: Metadata
    """Licence, attribution, grid, span, step, size and contents, where stated."""
    problem: str | None = None
    """The reason why the entry cannot be opened."""


def list_sources(catalog: str) -> list[SourceInfo]:
    """The sources of a catalog (path or URL), in its order. Their data are not touched.

    An entry that is wrong is listed with its problem, so that it hides no other.
    Raises CatalogError where the catalog itself cannot be read.
    """
    sources = []
    for name, content in read_catalog(catalog).items():
        try:
            entry = parse_entry(catalog, name, content)
        except CatalogError as error:
            driver = content.get("driver", "") if isinstance(content, dict) else ""
            sources.append(SourceInfo(name, "", str(driver), (), Metadata(), problem=str(error)))
            continue
        parameters = tuple(
            key if parameter.default is not None else f"{key}*"
            for key, parameter in entry.parameters.items()
        )
        sources.append(
            SourceInfo(name, entry.description, entry.driver, parameters, entry.metadata)
        )
    return sources


def open_source(catalog: str, name: str, **parameters: Any) -> xr.Dataset:
    """A source of a catalog (path or URL) as a lazy Dataset, with what the catalog declares of it.

    parameters: values for those of the entry.
    Raises CatalogError, saying what to do, for a catalog, entry, parameter, driver or store that
    is missing or broken, and MissingExtraError for a library that is not installed.
    """
    return _open(catalog, read_catalog(catalog), name, parameters, opened=())


def open_path(place: str) -> xr.Dataset:
    """A Zarr store, NetCDF or GRIB file (path, URL or pattern) as a lazy Dataset, as it is.

    Raises CatalogError where nothing is there or its ending is none that is known.
    """
    where = f"The source '{redact(place)}'"
    entry = Entry(driver=_driver_of(place, where), args={"urlpath": place})
    return _read(where, "", place, entry, {})


def _driver_of(place: str, where: str) -> str:
    bare = place.split("?")[0].rstrip("/").lower()
    for driver, endings in ENDINGS.items():
        if bare.endswith(endings):
            return driver
    if any((Path(place) / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata")):
        return "zarr"
    known = ", ".join(ending for endings in ENDINGS.values() for ending in endings)
    raise CatalogError(
        f"{where} has no ending that says how to read it ({known}). Rename it, or name it in a "
        "catalog with its driver."
    )


def write_entry(catalog: Path, name: str, store: Path, *, like: tuple[str, str]) -> None:
    """A catalog with one entry, a Zarr store in the same folder; one that is there stays as it is.

    like: catalog and source that the store was made from; its licence and attribution go over.
    """
    if catalog.exists():
        return
    origin, source = like
    known = parse_entry(origin, source, read_catalog(origin)[source]).metadata
    said = {key: getattr(known, key) for key in ("licence", "attribution", "homepage")}
    entry: dict[str, Any] = {
        "description": f"'{source}' of {origin}, prepared for training",
        "driver": "zarr",
        "args": {"urlpath": "{{ CATALOG_DIR }}/" + store.name},
    }
    if any(said.values()):
        entry["metadata"] = {key: text for key, text in said.items() if text}
    write_text(catalog, yaml.safe_dump({"sources": {name: entry}}, sort_keys=False))


def _open(
    catalog: str,
    contents: Mapping[str, Any],
    name: str,
    parameters: Mapping[str, Any],
    *,
    opened: tuple[str, ...],
) -> xr.Dataset:
    if name not in contents:
        raise CatalogError(
            f"The catalog '{catalog}' has no source '{name}'.{nearest(name, contents)} "
            f"It has: {', '.join(contents) or 'none'}."
        )
    entry = parse_entry(catalog, name, contents[name])
    where = f"Source '{name}' of the catalog '{catalog}'"
    check_parameters(where, entry, parameters)
    if entry.driver == "merge":
        source = _merge(catalog, contents, name, entry, parameters, opened=opened)
    else:
        source = _read(where, catalog, name, entry, parameters)
    return follow(source, lambda opened: declare(opened, entry.metadata, where))


def _merge(
    catalog: str,
    contents: Mapping[str, Any],
    name: str,
    entry: Entry,
    parameters: Mapping[str, Any],
    *,
    opened: tuple[str, ...],
) -> xr.Dataset:
    """Several entries as one Dataset; their times, latitudes and longitudes must agree."""
    where = f"Source '{name}' of the catalog '{catalog}'"
    names = entry.args.get("sources")
    if set(entry.args) != {"sources"} or not isinstance(names, list) or not names:
        raise CatalogError(
            f"{where}: 'merge' takes the names of entries, as 'args: {{sources: [A, B]}}'."
        )
    if name in opened:
        raise CatalogError(f"{where} merges itself: {' -> '.join((*opened, name))}.")
    parts = []
    for part in map(str, names):
        known = contents[part].get("parameters") if isinstance(contents.get(part), dict) else None
        passed = {key: value for key, value in parameters.items() if key in (known or {})}
        parts.append(_open(catalog, contents, part, passed, opened=(*opened, name)))
    try:
        return xr.merge(
            _without_clashing_scalars(parts),
            join="exact",
            compat="equals",
            combine_attrs="drop_conflicts",
        )
    except (xr.MergeError, ValueError) as error:
        raise CatalogError(
            f"{where}: {', '.join(map(str, names))} do not fit together: {error}. Variables of one "
            "name need names of their own ('variables' under metadata); times and grid must agree."
        ) from error


def _without_clashing_scalars(parts: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Without scalar coordinates that differ (heights of 2 and 10 m): they describe one part."""
    scalars: dict[Hashable, list[Any]] = {}
    for part in parts:
        for key, coordinate in part.coords.items():
            if coordinate.ndim == 0:
                scalars.setdefault(key, []).append(coordinate.values[()])
    clashing = {key for key, values in scalars.items() if any(v != values[0] for v in values)}
    return [part.drop_vars(clashing & set(part.coords)) for part in parts]


def _read(
    where: str, catalog: str, name: str, entry: Entry, parameters: Mapping[str, Any]
) -> xr.Dataset:
    """The files or store of an entry, through Intake's driver, with xarray's engine named.

    Without a name xarray tries every installed engine; importing eccodes that way crashes a
    process that has another build of PROJ (cartopy's).
    """
    reader = _intake_reader(where, catalog, name, entry, parameters)
    several = isinstance(reader.data.url, list | tuple)
    urls = [str(url) for url in (reader.data.url if several else [reader.data.url])]
    options = _options(where, entry.driver, reader.kwargs, urls)
    _check_locations(where, urls)
    try:
        with _quiet():
            _reach(urls, reader.data.storage_options or {})
            source: xr.Dataset = reader(**options).read()
    except ImportError as error:
        raise missing_extra(where, "cloud", error) from error
    except Exception as error:  # Intake, xarray, the engine and the storage each have their own
        hint = " Is it reachable from here, with these storage_options?" if "://" in urls[0] else ""
        raise CatalogError(
            f"{where} cannot be opened: {_cause(error)} ({redact(urls[0])}).{hint}"
        ) from error
    if options["engine"] != "zarr" or len(urls) > 1 or "*" in urls[0]:
        return source
    storage, group = reader.data.storage_options, options.get("group")
    return with_origins(source, urls[0], options=storage or None, group=group)


def _options(
    where: str, driver: str, given: Mapping[str, Any], urls: Sequence[str]
) -> dict[str, Any]:
    """Options for xarray: those of the entry, and defaults of its driver."""
    engines = {"zarr": "zarr", "netcdf": "netcdf4", "grib": "cfgrib"}
    engine = str(given.get("engine") or engines[driver])
    options = {"chunks": {}} | dict(given) | {"engine": engine}
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
    if len(urls) > 1 or "*" in urls[0]:
        parts = {"data_vars": "minimal", "coords": "minimal", "compat": "equals", "join": "exact"}
        options = {"combine": "by_coords"} | parts | options
    return options


def _intake_reader(
    where: str, catalog: str, name: str, entry: Entry, parameters: Mapping[str, Any]
) -> Any:
    """Intake's reader of the entry, with templates and parameters filled in; nothing is opened."""
    from intake.catalog.local import LocalCatalogEntry, UserParameter, get_dir

    driver = "zarr" if entry.driver == "zarr" else "netcdf"
    described = LocalCatalogEntry(
        name,
        entry.description,
        driver,
        args=_bounded_in_time(entry.args),
        parameters=[
            UserParameter(key, **parameter.model_dump())
            for key, parameter in entry.parameters.items()
        ],
        catalog_dir=get_dir(catalog if "://" in catalog else str(Path(catalog).resolve())),
        getenv=True,
        getshell=False,
    )
    try:
        with _quiet():
            return described.get(**parameters).reader
    except ImportError as error:
        raise CatalogError(
            f"{where}: the driver '{entry.driver}' cannot be loaded: {error}. "
            "Install it with: pip install intake-xarray"
        ) from error
    except Exception as error:  # Intake raises whatever the driver's constructor does
        raise CatalogError(
            f"{where}: 'args' or 'parameters' do not fit: {_cause(error)}."
        ) from error


def _bounded_in_time(args: Mapping[str, Any]) -> dict[str, Any]:
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
    """cfgrib's engine as a class, so that xarray imports no other one.

    pyproj goes first, where it is installed: its build of PROJ and that of eccodes crash in one
    process if they are loaded the other way round (eccodes 2.50, pyproj 3.7).
    """
    try:
        importlib.import_module("pyproj")
    except ImportError:
        logging.getLogger(__name__).debug("pyproj is not installed, so it cannot clash")
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
        elif not protocol and "{" not in url and not glob.glob(url) and not Path(url).exists():
            raise CatalogError(
                f"{where}: there is nothing at '{Path(url).resolve()}'. Check the urlpath, the "
                "parameters and the environment variables that it is made of."
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
def _quiet() -> Iterator[None]:
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


def _cause(error: BaseException) -> str:
    text = str(error).strip().rstrip(".") or "no further message"
    return f"{type(error).__name__}: {redact(text[:600])}"
