"""ESM catalogs, such as those of CMIP6: a JSON and a table with a row for each store or file.

The form is that of intake-esm (esm-catalog-spec): facets such as source_id and member_id are
columns, and one column has the paths. Which rows make one source is chosen by facets.
"""

import importlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from climlstm.errors import CatalogError, nearest

FORMATS = {"netcdf": "netcdf", "zarr": "zarr", "zarr2": "zarr", "zarr3": "zarr"}
"""Formats of assets, by the driver that opens them."""

MAX_BYTES = 512 * 2**20
"""Largest size of a table; Pangeo's of all CMIP6 stores has 130 MB."""

WITHIN_ONE = ("variable_id", "time_range", "version", "experiment_id", "activity_id", "table_id")
"""Facets in which the parts of one source may differ: other variables, later years."""

SHOWN = 12
"""Values of a facet that a message lists."""


@dataclass(frozen=True)
class Asset:
    """A store or file of one variable."""

    label: str
    """Facets that tell it from the others: 'tas historical'."""
    url: str
    driver: str


def find_assets(
    where: str, place: str, select: Mapping[str, Any], storage: Mapping[str, Any]
) -> list[Asset]:
    """The assets of one member of one model, in the order of the table.

    where: the entry, for messages. place: path or URL of the JSON.
    select: facets, each with a value or a list of them.
    storage: options of fsspec for a JSON and table that are not local.
    Raises CatalogError where nothing fits, or rows of several models or members do.
    """
    described = _read_json(where, place, storage)
    assets = dict(described["assets"])
    column = str(assets.get("column_name"))
    table = _read_table(where, place, described, storage)
    if column not in table:
        raise CatalogError(
            f"{where}: '{place}' is no ESM catalog: it names no column of paths "
            "(assets.column_name) that its table has."
        )
    rows = _select(where, table, select)
    rows = _newest(rows, column)
    _require_one_member(where, rows, column, described)
    named = assets.get("format_column_name")
    drivers = rows[named] if named in rows else [str(assets.get("format"))] * len(rows)
    facets = [f for f in _facets(described, rows, column) if rows[f].nunique() > 1]
    found = []
    for (_, row), form in zip(rows.iterrows(), drivers, strict=True):
        if form not in FORMATS:
            raise CatalogError(
                f"{where}: assets of the format '{form}' are not opened; known: "
                f"{', '.join(FORMATS)}. Choose others by 'select'."
            )
        label = " ".join(str(row[f]) for f in facets) or str(row[column])
        found.append(Asset(label, _located(row[column], place), FORMATS[form]))
    return found


def _select(where: str, table: pd.DataFrame, select: Mapping[str, Any]) -> pd.DataFrame:
    """Rows that have one of the values asked for in each facet."""
    rows = table
    for facet, wanted in select.items():
        if facet not in table:
            raise CatalogError(
                f"{where}: the table has no column '{facet}'.{nearest(facet, table.columns)} "
                f"It has: {', '.join(table.columns)}."
            )
        values = [str(value) for value in (wanted if isinstance(wanted, list) else [wanted])]
        chosen = rows[rows[facet].isin(values)]
        missing = [value for value in values if not (rows[facet] == value).any()]
        if missing:
            there = sorted(rows[facet].unique())
            raise CatalogError(
                f"{where}: no row has {facet} '{missing[0]}' beside the facets before it."
                f"{nearest(missing[0], there)} There are: {_some(there)}."
            )
        rows = chosen
    return rows


def _newest(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The last version of each asset."""
    if "version" not in rows:
        return rows
    others = [c for c in rows if c not in ("version", column)]
    order = rows.assign(_order=rows["version"].str.lstrip("v")).sort_values("_order", kind="stable")
    kept = order.drop_duplicates(others, keep="last").index
    return rows.loc[rows.index.isin(kept)]


def _require_one_member(
    where: str, rows: pd.DataFrame, column: str, described: Mapping[str, Any]
) -> None:
    """Raises CatalogError where a facet that tells models or members apart has several values."""
    for facet in _facets(described, rows, column):
        values = sorted(rows[facet].unique())
        if facet not in WITHIN_ONE and len(values) > 1:
            raise CatalogError(
                f"{where}: the rows chosen are of several {facet}: {_some(values)}. Choose one, "
                f"as 'select: {{{facet}: {values[0]}}}' under args."
            )


def _facets(described: Mapping[str, Any], rows: pd.DataFrame, column: str) -> list[str]:
    """Columns that the catalog describes as facets."""
    named = [str(each.get("column_name")) for each in described.get("attributes", ())]
    return [name for name in rows if name != column and (name in named or name in WITHIN_ONE)]


def _read_json(where: str, place: str, storage: Mapping[str, Any]) -> dict[str, Any]:
    try:
        content = json.loads(_read(where, place, storage))
    except ValueError as error:
        raise CatalogError(f"{where}: '{place}' is not valid JSON: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("assets"), dict):
        raise CatalogError(
            f"{where}: '{place}' is no ESM catalog, which has 'assets' and 'attributes'."
        )
    return content


def _read_table(
    where: str, place: str, described: Mapping[str, Any], storage: Mapping[str, Any]
) -> pd.DataFrame:
    """The rows, all as text; '' where a facet is empty."""
    if isinstance(described.get("catalog_dict"), list):
        return pd.DataFrame(described["catalog_dict"]).fillna("").astype(str)
    file = str(described.get("catalog_file") or "")
    if not file:
        raise CatalogError(f"{where}: '{place}' names no table (catalog_file).")
    url = _located(file, place)
    content = io.BytesIO(_read(where, url, storage))
    try:
        packed = "gzip" if url.endswith(".gz") else None
        return pd.read_csv(content, dtype=str, compression=packed, keep_default_na=False)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise CatalogError(f"{where}: the table '{url}' cannot be read: {error}.") from error


def _located(file: str, place: str) -> str:
    """A path of a catalog, counted from its folder unless it is absolute or a URL.

    Where nothing is there, it is taken as it stands, from the folder of this process.
    """
    if "://" in file or file.startswith("/"):
        return file
    beside = f"{place.rpartition('/')[0] or '.'}/{file.removeprefix('./')}"
    return beside if "://" in place or Path(beside).exists() else file


def _read(where: str, place: str, storage: Mapping[str, Any]) -> bytes:
    try:
        if "://" not in place:
            with Path(place).expanduser().open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        else:
            fsspec = importlib.import_module("fsspec")
            with fsspec.open(place, "rb", **storage) as file:
                content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise CatalogError(f"{where}: there is no file '{place}'. Check the path.") from None
    except Exception as error:  # every kind of storage has its own
        raise CatalogError(
            f"{where}: '{place}' cannot be read: {type(error).__name__}: {error}."
        ) from error
    if len(content) > MAX_BYTES:
        raise CatalogError(f"{where}: '{place}' is larger than {MAX_BYTES // 10**6} MB.")
    return content


def _some(values: Sequence[str]) -> str:
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(repr(value) for value in values[:SHOWN]) + more
