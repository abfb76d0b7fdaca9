"""The page of the run file, key by key, for docs/pages.py."""

import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pages_text import prose
from pydantic import BaseModel

from climlstm.config import Config
from climlstm.config.plain_yaml import TextDatesLoader, load_yaml
from climlstm.config.values import format_size

DOCS = Path(__file__).parent


@functools.cache
def examples() -> list[dict[str, Any]]:
    """An example for every key, nested as a run file is; what does not go together, apart."""
    text = (DOCS / "examples.yaml").read_text(encoding="utf-8")
    return [load_yaml(part, TextDatesLoader) for part in text.split("\n---\n")]


def each_key(model: type[BaseModel] = Config, place: str = "") -> Iterator[tuple[str, Any]]:
    """Each key of a run file, `data.step`, with its pydantic field, sections included."""
    for name, field in model.model_fields.items():
        key = f"{place}.{field.alias or name}".lstrip(".")
        yield key, field
        inner = section_of(field.annotation)
        if inner is not None:
            yield from each_key(
                inner,
                key
                if inner is field.annotation
                else f"{key}.NAME"
                if "dict" in str(field.annotation)
                else key,
            )


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation holds, alone or by name; None for a plugin's choice."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        named = annotation.__name__ in ("PluginChoice", "TransformChoice", "SearchRange")
        return None if named else annotation
    parts = [section_of(part) for part in getattr(annotation, "__args__", ())]
    return next((part for part in parts if part is not None), None)


def example_of(key: str) -> Any:
    """The example's value at a key; NAME stands for whatever name is there."""
    for document in examples():
        value: Any = document
        for part in key.split("."):
            value = value[0] if isinstance(value, list) and value else value
            if not isinstance(value, dict) or (part != "NAME" and part not in value):
                break
            value = next(iter(value.values())) if part == "NAME" else value[part]
        else:
            return value
    raise LookupError(f"docs/examples.yaml has no example of '{key}'")


def run_file_page() -> str:
    """Every key with its meaning, what it takes, its default and an example."""
    parts = [
        "# The run file, key by key\n",
        "A run file is YAML. Unknown keys are refused, with the nearest known one. "
        "Any key can be changed on the command line: `--set training.epochs=2`. Editors complete "
        "keys and show this text: `climlstm schema --out run.schema.json`, and a first line "
        "`# yaml-language-server: $schema=run.schema.json` in the run file. "
        "This page is made from `climlstm/config/sections.py`.\n",
    ]
    for key, field in each_key():
        inner = section_of(field.annotation)
        if key.count(".") == 0 and inner is not None:
            parts.append(f"## {key}\n\n{prose(inspect.getdoc(inner) or '')}\n")
            continue
        level = "##" if "." not in key else "###"
        says = SAID.get(key) or field.description or (inspect.getdoc(inner) if inner else "") or ""
        takes = f"*{words_of(field)}*"
        parts.append(f"{level} `{key}`\n\n{prose(says)}\n\n{takes}\n")
        if inner is None:
            parts.append(f"```yaml\n{flow(key, example_of(key))}\n```\n")
    return "\n".join(parts)


SAID = {
    "data.periods.train": "Span that the network learns from; so do statistics and climatology.",
    "data.periods.valid": "Span on which the best checkpoint is chosen.",
    "data.periods.test": "Span that forecasts start in and are scored on.",
    "training.level_weight.name": "The weight at pressure p: p / 1000 hPa, or its square.",
    "data.periods": "Spans of time, ends included; they must not share a step.",
    "model.options": "Options of the network: see [models](losses_and_models.md#models).",
    "evaluation.evaluators": "Plugins of the group climlstm.evaluators: see [scores](scores.md).",
    "cluster.gpu": "Whether each worker has a GPU of its own.",
}
"""What keys mean whose names say it, but which a reference should say too."""


def flow(key: str, value: Any) -> str:
    """A key with its sections and value as a line of YAML, or several where it is long."""
    content: Any = value
    for part in reversed(key.split(".")):
        content = {"ANY" if part == "NAME" else part: content}
    [given, *_] = examples()
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=True, width=1000).strip()
    for section in ("prescribed", "channels"):
        name = next(iter(given["data"][section]))
        text = text.replace(f"{section}: {{ANY:", f"{section}: {{{name}:")
    return re.sub(r"'(\d{4}-\d\d-\d\d)'", r"\1", text[1:-1])


def words_of(field: Any) -> str:
    """What a key takes, and its default, in words."""
    annotation = str(field.annotation)
    choices = re.findall(r"Literal\[([^]]*)\]", annotation)
    kinds = {
        "StepLength|Step": "duration or calendar months",
        "timedelta": "duration",
        "datetime": "two dates",
        "PluginChoice|TransformChoice": "name, or name and options",
        "_parse_size": "size with its unit",
        r"dict\[str, .*Any\]": "names and values",
    }
    told = f"{annotation} {field.metadata} {field.annotation!r}"
    said = next((word for kind, word in kinds.items() if re.search(kind, told)), None)
    if choices:
        said = "one of " + ", ".join(
            f"`{c.strip()}`" for c in choices[0].replace("'", "").split(",")
        )
    if said is None:
        plain = {"str": "text", "bool": "true or false", "int": "whole number", "float": "number"}
        found = [word for kind, word in plain.items() if re.search(rf"\b{kind}\b", annotation)]
        said = " or ".join(found) or "section"
    if annotation.startswith("tuple") and "datetime" not in annotation:
        said = f"list of: {said}"
    if annotation.startswith("dict") and "Any" not in annotation:
        said = f"by name: {said}"
    return f"{said}; {default_of(field)}"


def default_of(field: Any) -> str:
    """Whether a key must be given, or what holds without it."""
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = getattr(value, "name", None) or "as below"
    if isinstance(value, tuple | list):
        value = [getattr(each, "name", each) for each in value]
    if value is None or value == {} or value == []:
        return "may be left out"
    if "_parse_size" in str(field.metadata):
        value = format_size(value)
    if isinstance(value, bool):
        value = str(value).lower()
    return f"default `{value}`"
