"""JSON schema of the run file, for editors: keys, their meaning, and the options of plugins."""

from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from climlstm import plugins
from climlstm.config.sections import Config
from climlstm.errors import PluginError
from climlstm.plugins import Kind

PLACES: tuple[tuple[str, Kind], ...] = (
    ("ModelConfig", "models"),
    ("PluginChoice", "losses"),
    ("PluginChoice", "evaluators"),
    ("PluginChoice", "baselines"),
)
"""Definitions in the schema that have a name and options, and the kinds of plugins they choose."""


class _ForEditors(GenerateJsonSchema):
    """Values that are written as text, such as durations and sizes, may be; the rest is loose."""

    def function_before_schema(self, schema: Any) -> Any:
        inner = super().function_before_schema(schema)
        if "properties" in inner or "$ref" in inner:  # a section
            return inner
        return {"anyOf": [inner, {"type": "string"}]}

    def timedelta_schema(self, schema: Any) -> Any:
        return {"type": "string"}

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Any:
        return {}


def run_file_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12), with the options of all installed plugins.

    A plugin that cannot be imported is left out.
    """
    schema = Config.model_json_schema(schema_generator=_ForEditors)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Run file of climlstm"
    for place, kind in PLACES:
        definition = schema["$defs"][place]
        definition.setdefault("allOf", []).extend(_options_by_name(kind))
    choice = schema["$defs"].pop("PluginChoice")
    schema["$defs"]["PluginChoice"] = {"anyOf": [choice, {"type": "string"}]}
    return schema


def _options_by_name(kind: Kind) -> Iterator[dict[str, Any]]:
    """For each plugin of a kind: if its name is chosen, its options are allowed."""
    for plugin in plugins.discover(kind):
        try:
            loaded = plugins.load_found(plugin)
            accepted = getattr(loaded, "Options", loaded)
            options = TypeAdapter(accepted).json_schema(
                schema_generator=_ForEditors, ref_template="#/properties/options/$defs/{model}"
            )
        except (PluginError, TypeError, ValueError, AttributeError):
            continue
        options.pop("$defs", None)
        chosen = {"properties": {"name": {"const": plugin.name}}, "required": ["name"]}
        allowed = {"properties": {"options": {**options, "additionalProperties": False}}}
        yield {"if": chosen, "then": allowed}
