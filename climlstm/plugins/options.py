"""Options of a plugin, as a run file gives them, checked against the plugin's own schema.

pydantic is imported when something is checked, so that `climlstm --help` does without it.
"""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from climlstm.errors import PluginError, nearest

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError


def validate(schema: Any, options: Mapping[str, Any], *, whose: str) -> dict[str, Any]:
    """The options with defaults filled in.

    schema: a dataclass or a pydantic model, whose fields may be dataclasses or models too.
    whose: the plugin, named in errors.
    Raises PluginError with every wrong key, its place and the nearest right one.
    """
    from pydantic import ValidationError

    names = field_names(schema)
    if names is None:
        raise PluginError(
            f"The {whose} is neither a dataclass nor has one called 'Options', so its options "
            "cannot be validated. Make it a frozen dataclass."
        )
    adapter = _adapter(schema, whose)
    try:
        checked = adapter.validate_python(dict(options), extra="forbid")
    except ValidationError as error:
        raise PluginError(f"The {whose}: {explain(error, schema, noun='option')}.") from error
    except PluginError:
        raise
    except Exception as error:  # raised by the plugin's __post_init__
        raise PluginError(
            f"The {whose} refuses the options {dict(options)}: {type(error).__name__}: {error}."
        ) from error
    return {name: getattr(checked, name) for name in names}


def _adapter(schema: Any, whose: str) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    try:
        adapter: TypeAdapter[Any] = TypeAdapter(schema)
        adapter.rebuild(raise_errors=True)
        return adapter
    except Exception as error:  # pydantic raises many types for annotations that it cannot use
        raise PluginError(
            f"The options of the {whose} cannot be validated: {type(error).__name__}: {error} "
            "Give each field of the dataclass a type that a YAML file can hold."
        ) from error


def explain(error: "ValidationError", schema: Any, *, noun: str) -> str:
    """Message about all that pydantic found wrong: each key, its value, what was expected.

    schema: the dataclass or model that was checked; wrong keys are compared with its fields.
    noun: the word for a key, such as 'option'.
    """
    return "; ".join(_explain(finding, schema, noun) for finding in error.errors())


def _explain(finding: Any, schema: Any, noun: str) -> str:
    key = ".".join(str(part) for part in finding["loc"])
    if finding["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _keys_at(schema, finding["loc"][:-1])
        listed = f" Known: {', '.join(known)}" if known else ""
        return f"unknown {noun} '{key}'.{nearest(str(finding['loc'][-1]), known)}{listed}"
    if finding["type"] in ("missing", "missing_argument"):
        return f"the {noun} '{key}' is missing"
    message = str(finding["msg"]).removeprefix("Value error, ").rstrip(".")
    return f"{noun} '{key}' is {finding['input']!r}: {message}" if key else message


def _keys_at(schema: Any, location: Iterable[Any]) -> list[str]:
    """Keys known at a location, such as ('bands', 1); none where several schemas are possible."""
    for part in location:
        if part in (field_names(schema) or ()):  # else an index, or the key of a mapping
            found = _schemas_in(typing.get_type_hints(schema)[part])
            if len(found) != 1:
                return []
            [schema] = found
    return field_names(schema) or []


def _schemas_in(annotation: Any) -> list[Any]:
    """The dataclasses and models in `Inner`, `Inner | None`, `tuple[Inner, ...]`."""
    if field_names(annotation) is not None:
        return [annotation]
    return [schema for part in typing.get_args(annotation) for schema in _schemas_in(part)]


def options_of(thing: Any) -> dict[str, Any]:
    """The options with which an object was made in Python, as a run file would have them.

    Raises PluginError where it is neither a dataclass nor a pydantic model.
    """
    from pydantic import TypeAdapter

    if field_names(type(thing)) is None:
        raise PluginError(
            f"A {type(thing).__name__} cannot be passed, since it does not say which options it "
            "was made with. Make it a frozen dataclass."
        )
    written: dict[str, Any] = TypeAdapter(type(thing)).dump_python(thing, mode="json")
    return written


def field_names(schema: Any) -> list[str] | None:
    """Names of the options that a dataclass or pydantic model has; None for anything else."""
    if dataclasses.is_dataclass(schema):
        return [field.name for field in dataclasses.fields(schema) if field.init]
    fields = getattr(schema, "model_fields", None) if isinstance(schema, type) else None
    return None if fields is None else list(fields)
