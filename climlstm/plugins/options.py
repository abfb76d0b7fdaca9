"""Options of a plugin, as a run file gives them, against the plugin's own schema."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from climlstm.errors import PluginError, nearest


def validate(schema: Any, options: Mapping[str, Any], *, whose: str) -> dict[str, Any]:
    """The options with defaults filled in.

    schema: a dataclass or a pydantic model; its fields may be such ones in their turn.
    whose: named in errors.
    Raises PluginError with every wrong key, its place and the nearest right one.
    """
    if field_names(schema) is None:
        raise PluginError(
            f"The {whose} is neither a dataclass nor has one called 'Options', so its options "
            "cannot be validated. Make it a frozen dataclass."
        )
    unknown = [
        f"there is no option '{place}'.{nearest(key, known)} Known: {', '.join(known) or 'none'}."
        for place, key, known in _unknown_keys(schema, options)
    ]
    if unknown:
        raise PluginError(f"The {whose}: " + " ".join(unknown))
    try:
        checked = _adapter(schema, whose).validate_python(dict(options))
    except ValidationError as error:
        raise PluginError(
            f"The {whose}: " + " ".join(_explain(each) for each in error.errors())
        ) from error
    except PluginError:
        raise
    except Exception as error:  # of its __post_init__
        raise PluginError(
            f"The {whose} refuses the options {dict(options)}: {type(error).__name__}: {error}."
        ) from error
    return {key: getattr(checked, key) for key in field_names(schema) or ()}


def _adapter(schema: Any, whose: str) -> TypeAdapter[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(schema)
        adapter.rebuild(raise_errors=True)
        return adapter
    except Exception as error:  # pydantic knows many ways to dislike an annotation
        raise PluginError(
            f"The options of the {whose} cannot be validated: {type(error).__name__}: {error} "
            "Give each field of the dataclass a type that a YAML file can hold."
        ) from error


def options_of(thing: Any) -> dict[str, Any]:
    """The options with which an object was made in Python, as a run file would have them.

    Raises PluginError where it is neither a dataclass nor a pydantic model.
    """
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
        return [f.name for f in dataclasses.fields(schema) if f.init]
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return list(schema.model_fields)
    return None


def _unknown_keys(
    schema: Any, options: Mapping[str, Any], place: str = ""
) -> Iterator[tuple[str, str, list[str]]]:
    """Place, key and the keys known there; pydantic passes over those of inner dataclasses."""
    known = field_names(schema) or []
    try:
        types = typing.get_type_hints(schema)
    except Exception:  # the adapter says what is wrong with the annotations
        types = {}
    for key, value in options.items():
        if key not in known:
            yield place + str(key), str(key), known
            continue
        for inner in _schemas_in(types.get(key)):
            for where, part in _mappings_in(value, f"{place}{key}"):
                yield from _unknown_keys(inner, part, f"{where}.")


def _schemas_in(annotation: Any) -> list[Any]:
    """The dataclass or model of `Inner`, `Inner | None`, `tuple[Inner, ...]`; none if several."""
    if field_names(annotation) is not None:
        return [annotation]
    found = [each for part in typing.get_args(annotation) for each in _schemas_in(part)]
    return found if len(found) == 1 else []


def _mappings_in(value: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        yield place, value
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _mappings_in(each, f"{place}.{number}")


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("missing", "missing_argument"):
        return f"it needs the option '{where}'."
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    if not where:
        return f"{message}."
    return f"option '{where}' is {error['input']!r}: {message}."
