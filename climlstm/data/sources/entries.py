"""Entries of a catalog file: YAML that is read and checked without running any of it.

Catalogs may come from anywhere. Foreign tags, drivers and plugins, floods of aliases and all
templates but plain ones are refused here, before Intake sees them.
"""

import importlib
import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from climlstm.config import Section
from climlstm.config.plain_yaml import MAX_BYTES, Flood, load_yaml
from climlstm.data.sources.declarations import Metadata
from climlstm.errors import CatalogError, ClimLSTMError, missing_extra, nearest
from climlstm.plugins.options import explain

DRIVERS = ("zarr", "netcdf", "grib", "merge", "esm")

DRIVER_CLASSES = {
    "intake_xarray.xzarr.ZarrSource": "zarr",
    "intake_xarray.netcdf.NetCDFSource": "netcdf",
    "intake_esm.esm_datastore": "esm",
    "intake_esm.core.esm_datastore": "esm",
}
"""Drivers by the names of their classes, as Intake writes them; nothing is imported for it."""

READ_BY_US = (
    "plane",
    "crs",
    "winds",
    "regrid",
    "axes",
    "time_units",
    "period",
    "select",
    "combine",
    "variables",
)
"""Keys of `metadata` that change how data are read."""

DESCRIPTIONS = ("licence", "attribution", "homepage", "grid", "span", "step", "size")
"""Keys of `metadata` for people; others may write numbers or lists there."""

NESTED = ("yaml_file_cat", "yaml_files_cat", "intake.catalog.local.YAMLFileCatalog")
"""Drivers of entries that are catalogs themselves."""

OF_INTAKE = ("direct_access", "cache")
"""Keys of entries that say nothing about data."""

HARMLESS_PLUGINS = {"intake", "intake_xarray"}
"""Modules that published catalogs name under `plugins`; our drivers stand for theirs."""


class Parameter(Section):
    """A value that whoever opens the source may choose, used as {{ name }} in `args`."""

    description: str = ""
    type: str = "str"
    """Type as Intake names it: str, int, float, bool, datetime, list, ..."""
    default: Any = None
    min: Any = None
    max: Any = None
    allowed: list[Any] | None = None


class Entry(Section):
    """A source as the catalog describes it."""

    description: str = ""
    driver: str
    """zarr, netcdf, grib; merge, for several other entries as one; esm, for a catalog of CMIP."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of Intake's driver: urlpath, storage_options, chunks, options of xarray's reader.
    For merge: `sources`, the names of the entries. For esm: `urlpath`, the JSON, and `select`,
    facets with their values."""
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    metadata: Metadata = Metadata()


def read_catalog(catalog: str) -> dict[str, Any]:
    """The `sources` of a catalog, checked for what could run code or fill the memory."""
    content = _parse_yaml(catalog, _read_text(catalog))
    if not isinstance(content, dict) or not isinstance(content.get("sources"), dict):
        hint = "this is an Intake 2 catalog, of which only version 1 is read; it needs"
        found = hint if isinstance(content, dict) and "entries" in content else "expected"
        raise CatalogError(
            f"The catalog '{catalog}' has no sources: {found} a section 'sources:' with named "
            "entries, each with 'driver' and 'args'."
        )
    if content.get("plugins") and not _is_harmless(content["plugins"]):
        raise CatalogError(
            f"The catalog '{catalog}' has a section 'plugins', which would import code. "
            "Remove the section; install the drivers as packages."
        )
    return {str(name): entry for name, entry in content["sources"].items()}


def _is_harmless(plugins: Any) -> bool:
    named = plugins.get("source") if isinstance(plugins, dict) else None
    return isinstance(named, list) and all(
        isinstance(each, dict) and set(each) == {"module"} and each["module"] in HARMLESS_PLUGINS
        for each in named
    )


def _read_text(catalog: str) -> str:
    try:
        if "://" not in catalog:
            path = Path(catalog).expanduser()
            if path.is_dir():
                raise CatalogError(
                    f"The catalog '{catalog}' is a folder; name the YAML file in it."
                )
            content = path.read_bytes()
        else:
            fsspec = importlib.import_module("fsspec")
            with fsspec.open(catalog, "rb") as file:
                content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise CatalogError(f"The catalog '{catalog}' is larger than {MAX_BYTES // 1000} kB.")
        return content.decode("utf-8")
    except FileNotFoundError:
        raise CatalogError(
            f"There is no catalog '{catalog}'. Check the path; in a run file it counts from the "
            "folder of that file."
        ) from None
    except UnicodeDecodeError as error:
        raise CatalogError(f"The catalog '{catalog}' is not a text file: {error}.") from error
    except ImportError as error:
        raise missing_extra(f"The catalog '{catalog}'", "cloud", error) from error
    except ClimLSTMError:
        raise
    except Exception as error:  # every kind of storage has its own
        raise CatalogError(
            f"The catalog '{catalog}' cannot be read: {type(error).__name__}: {error}."
        ) from error


def _parse_yaml(catalog: str, text: str) -> Any:
    try:
        return load_yaml(text)
    except Flood as error:
        raise CatalogError(f"The catalog '{catalog}' is refused: {error}.") from error
    except yaml.YAMLError as error:
        raise CatalogError(f"The catalog '{catalog}' is not valid YAML: {error}") from error


def parse_entry(catalog: str, name: str, content: Any) -> Entry:
    where = f"Source '{name}' of the catalog '{catalog}'"
    if not isinstance(content, dict):
        raise CatalogError(f"{where} is {content!r}; expected keys such as 'driver' and 'args'.")
    content = {k: v for k, v in content.items() if v is not None and k not in OF_INTAKE}
    driver = content.get("driver")
    if isinstance(driver, str):
        content["driver"] = DRIVER_CLASSES.get(driver, driver)
    if driver in NESTED:
        args = content.get("args")
        path = str(args.get("path") if isinstance(args, dict) else None)
        folder = catalog.rpartition("/")[0] or "."
        path = re.sub(r"\{\{\s*CATALOG_DIR\s*\}\}", folder.replace("\\", "/"), path)
        raise CatalogError(
            f"{where} is a catalog of its own: {path}. Name that file as the catalog instead."
        )
    if isinstance(content.get("metadata"), dict):
        content["metadata"] = _known_metadata(content["metadata"])
    try:
        entry = Entry.model_validate(content)
    except ValidationError as error:
        raise CatalogError(f"{where}: {explain(error, Entry, noun='key')}") from error
    if entry.driver not in DRIVERS:
        raise CatalogError(
            f"{where} has the driver '{entry.driver}'.{nearest(entry.driver, DRIVERS)} "
            f"climlstm opens: {', '.join(DRIVERS)}."
        )
    _check_templates(where, entry.args, set(entry.parameters))
    return entry


def _known_metadata(metadata: Mapping[Any, Any]) -> dict[Any, Any]:
    """Metadata without keys that other programs put there.

    A key that nearly is one that changes how data are read stays, to be refused with a hint.
    """
    ours = Metadata.model_fields
    if isinstance(metadata.get("license"), str):
        metadata = {"licence": metadata["license"], **metadata}
    return {
        key: str(value) if key in DESCRIPTIONS else value
        for key, value in metadata.items()
        if key in ours or get_close_matches(str(key), READ_BY_US, n=1, cutoff=0.75)
    }


def _check_templates(where: str, value: Any, parameters: set[str]) -> None:
    """Refuse all templates but {{ name }}, {{ env("NAME", "default") }} and joins of those.

    Intake renders them with all of jinja2, from which any Python can be reached.
    """
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _check_templates(where, part, parameters)
    elif isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value):
        for problem in _template_problems(value, parameters):
            raise CatalogError(f"{where}: in '{value}', {problem}")


def _template_problems(text: str, parameters: set[str]) -> Iterator[str]:
    import jinja2
    from jinja2 import nodes

    try:
        tree = jinja2.Environment().parse(text)
    except jinja2.TemplateSyntaxError as error:
        yield f"the template cannot be read: {error}."
        return
    plain = (nodes.Output, nodes.TemplateData, nodes.Const, nodes.Add, nodes.Concat, nodes.Name)
    environment = set()
    for node in tree.find_all(nodes.Node):
        if isinstance(node, nodes.Call):
            is_env = isinstance(node.node, nodes.Name) and node.node.name == "env"
            if not is_env or node.kwargs or len(node.args) not in (1, 2):
                yield "only env('NAME') and env('NAME', 'default') may be called in templates."
                continue
            environment |= {id(node.node), id(node.args[0])}
            yield from _environment_problems(node)
        elif not isinstance(node, plain):
            yield (
                "only {{ PARAMETER }}, {{ CATALOG_DIR }} and {{ env('NAME', 'default') }} are "
                "understood in templates."
            )
    for node in tree.find_all(nodes.Name):
        if id(node) not in environment and node.name not in parameters | {"CATALOG_DIR"}:
            yield (
                f"'{node.name}' is no parameter of the source.{nearest(node.name, parameters)} "
                "Describe it under 'parameters'."
            )


def _environment_problems(call: Any) -> Iterator[str]:
    name = getattr(call.args[0], "name", None) or getattr(call.args[0], "value", None)
    if not isinstance(name, str):
        yield "env() needs the name of an environment variable."
    elif len(call.args) == 1 and not os.environ.get(name):
        yield f"the environment variable {name} is asked for, but not set. Set it and try again."


def check_parameters(where: str, entry: Entry, given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if key not in entry.parameters:
            raise CatalogError(
                f"{where} has no parameter '{key}'.{nearest(key, entry.parameters)} "
                f"It has: {', '.join(entry.parameters) or 'none'}."
            )
        if isinstance(value, str) and ("{{" in value or "{%" in value):
            raise CatalogError(f"{where}: the parameter '{key}' is a template: '{value}'.")
    for key, parameter in entry.parameters.items():
        if parameter.default is None and key not in given:
            raise CatalogError(
                f"{where} needs the parameter '{key}' ({parameter.description or parameter.type}), "
                "which has no default. Give a value for it."
            )
