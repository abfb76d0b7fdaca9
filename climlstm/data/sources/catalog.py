"""Catalogs: sources that somebody else made, by name; opened through Intake as lazy Datasets.

A catalog is YAML as Intake reads it: sources, each with driver, args, parameters and metadata
(entries.py). Under `metadata` it also declares what files leave out (declarations.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
import yaml

from climlstm.config.secrets import redact
from climlstm.data.sources.declarations import Metadata, declare
from climlstm.data.sources.entries import Entry, check_parameters, parse_entry, read_catalog
from climlstm.data.sources.esm import find_assets
from climlstm.data.sources.files import bounded_in_time, describe, driver_of, open_files, quiet
from climlstm.data.sources.joining import join
from climlstm.data.sources.origin import follow
from climlstm.data.sources.regridding import regrid
from climlstm.errors import CatalogError, nearest
from climlstm.files import write_text


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

    >>> import climlstm
    >>> [source.name for source in climlstm.list_sources("catalog.yaml")]
    ['atmosphere']
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

    Values are read when they are used, each variable as a whole: cut out what you need first, or
    compute through Dask after `source.chunk(time=100)`.

    parameters: values for those of the entry.
    Raises CatalogError, saying what to do, for a catalog, entry, parameter, driver or store that
    is missing or broken, and MissingExtraError for a library that is not installed.

    >>> import climlstm
    >>> source = climlstm.open_source("catalog.yaml", "atmosphere")
    >>> dict(source.sizes)
    {'latitude': 32, 'longitude': 64, 'time': 400}
    """
    return _open(catalog, read_catalog(catalog), name, parameters, opened=())


def open_path(place: str) -> xr.Dataset:
    """A Zarr store, NetCDF or GRIB file (path, URL or pattern) as a lazy Dataset, as it is.

    Raises CatalogError where nothing is there or its ending is none that is known.
    """
    where = f"The source '{redact(place)}'"
    entry = Entry(driver=driver_of(place, where), args={"urlpath": place})
    return _read(where, "", place, entry, {})


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
    source = follow(source, lambda opened: declare(opened, entry.metadata, where))
    if entry.metadata.regrid is None:
        return source
    folder = Path() if "://" in catalog else Path(catalog).resolve().parent
    return regrid(source, entry.metadata.regrid, where, folder)


def _merge(
    catalog: str,
    contents: Mapping[str, Any],
    name: str,
    entry: Entry,
    parameters: Mapping[str, Any],
    *,
    opened: tuple[str, ...],
) -> xr.Dataset:
    """Several entries as one Dataset: along time, or side by side on one grid."""
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
        parts.append((part, _open(catalog, contents, part, passed, opened=(*opened, name))))
    return join(parts, where, declared={})


def _read(
    where: str, catalog: str, name: str, entry: Entry, parameters: Mapping[str, Any]
) -> xr.Dataset:
    """The files or store of an entry, through Intake's driver."""
    reader = _intake_reader(where, catalog, name, entry, parameters)
    if entry.driver == "esm":
        return _read_esm(where, catalog, name, entry, reader)
    variables = entry.metadata.variables
    valid = {key: said.valid for key, said in variables.items()}
    parts = open_files(where, entry.driver, reader, valid)
    declared = {key: said.units for key, said in variables.items() if said.units is not None}
    return join(parts, where, declared=declared)


def _read_esm(where: str, catalog: str, name: str, entry: Entry, esm: Any) -> xr.Dataset:
    """The stores of one member of an ESM catalog as one Dataset.

    esm: Intake's reader of the entry, with its arguments filled in.
    """
    options = dict(esm.kwargs)
    select, storage = options.pop("select", None), esm.data.storage_options or {}
    if not isinstance(select, dict) or not select:
        raise CatalogError(
            f"{where}: 'esm' chooses stores by facets, as 'args: {{urlpath: FILE.json, select: "
            "{source_id: MPI-ESM1-2-HR, member_id: r1i1p1f1, variable_id: [tas, psl]}}}}'."
        )
    url = esm.data.url
    parts = []
    for asset in find_assets(where, str(url[0] if isinstance(url, list) else url), select, storage):
        args = options | {"urlpath": asset.url, "storage_options": dict(storage)}
        one = parse_entry(catalog, name, {"driver": asset.driver, "args": args})
        parts.append((asset.label, _read(where, catalog, name, one, {})))
    variables = entry.metadata.variables
    declared = {key: said.units for key, said in variables.items() if said.units is not None}
    return join(parts, where, declared=declared)


def _intake_reader(
    where: str, catalog: str, name: str, entry: Entry, parameters: Mapping[str, Any]
) -> Any:
    """Intake's reader of the entry, with templates and parameters filled in; nothing is opened."""
    from intake.catalog.local import LocalCatalogEntry, UserParameter, get_dir

    driver = "zarr" if entry.driver == "zarr" else "netcdf"
    args = dict(entry.args)
    args |= args.pop("xarray_kwargs", None) or {}  # as intake-xarray's own drivers take them
    described = LocalCatalogEntry(
        name,
        entry.description,
        driver,
        args=bounded_in_time(args),
        parameters=[
            UserParameter(key, **parameter.model_dump())
            for key, parameter in entry.parameters.items()
        ],
        catalog_dir=get_dir(catalog if "://" in catalog else str(Path(catalog).resolve())),
        getenv=True,
        getshell=False,
    )
    try:
        with quiet():
            return described.get(**parameters).reader
    except ImportError as error:
        raise CatalogError(
            f"{where}: the driver '{entry.driver}' cannot be loaded: {error}. "
            "Install it with: pip install intake-xarray"
        ) from error
    except Exception as error:  # Intake raises whatever the driver's constructor does
        raise CatalogError(
            f"{where}: 'args' or 'parameters' do not fit: {describe(error)}."
        ) from error
