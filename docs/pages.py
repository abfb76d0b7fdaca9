"""Pages of the site that follow from the code, so that neither goes without the other.

    python docs/pages.py

writes the references (run file, commands, Python, plugins) into docs/reference/, READMEs of other
folders beside them, and the notebooks into docs/tutorials/. docs/conf.py does so at each build.
"""

import dataclasses
import functools
import inspect
import os
import re
import shutil
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main
import yaml
from pydantic import BaseModel

import climlstm
from climlstm import plugins
from climlstm.cli import app
from climlstm.config import Config
from climlstm.config.plain_yaml import TextDatesLoader, load_yaml
from climlstm.config.values import format_size
from climlstm.notebook.views import Accessor, FieldAccessor
from climlstm.plugins.discovery import SINGULAR, Kind, Plugin

DOCS = Path(__file__).parent
ROOT = DOCS.parent
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
REPOSITORY = URLS["Homepage"]

ADOPTED = {
    "catalogs/README.md": "catalogs",
    "cluster/README.md": "cluster",
    "cluster/SCALING.md": "scaling",
    "benchmarks/README.md": "benchmarks",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "CODE_OF_CONDUCT.md": "conduct",
    "SECURITY.md": "security",
} | {
    path.relative_to(ROOT).as_posix(): path.parent.name.replace("-", "_")
    for path in sorted((ROOT / "plugins").glob("*/README.md"))
}
"""Pages that live beside what they tell of, and their names in docs/reference/."""

NOTEBOOKS = {
    "01_forecast_maps": "forecast_maps",
    "02_plugin": "plugin",
    "03_cluster": "cluster",
}
"""Notebooks, and their names in docs/tutorials/."""


def write_all() -> None:
    """Write every page that is made; a file that would not change keeps its time."""
    for name, page in made_pages().items():
        path = DOCS / "reference" / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != page:
            path.write_text(page, encoding="utf-8")
    for notebook, name in NOTEBOOKS.items():
        shutil.copyfile(
            ROOT / "notebooks" / f"{notebook}.ipynb", DOCS / "tutorials" / f"{name}.ipynb"
        )


def made_pages() -> dict[str, str]:
    """All pages of docs/reference/ by name."""
    made: dict[str, Callable[[], str]] = {
        "run_file": run_file_page,
        "commands": commands_page,
        "python": python_page,
        "scores": scores_page,
        "losses_and_models": losses_page,
    }
    pages = {name: write() for name, write in made.items()}
    return pages | {name: adopted_page(path) for path, name in ADOPTED.items()}


def adopted_page(path: str) -> str:
    """A README of the repository, with its links turned to pages of the site or the repository."""
    home = (ROOT / path).parent

    def turned(match: re.Match[str]) -> str:
        target, _, anchor = match[1].partition("#")
        if not target or target.startswith(("http", "mailto:")):
            return match[0]
        place = Path(os.path.normpath(home / target)).relative_to(ROOT).as_posix()
        anchor = f"#{anchor}" if anchor else ""
        if place in ADOPTED:
            return f"]({ADOPTED[place]}.md{anchor})"
        if place.startswith("docs/") and place.endswith(".md"):
            return f"](../{place.removeprefix('docs/')}{anchor})"
        return f"]({REPOSITORY}/blob/main/{place}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", turned, (ROOT / path).read_text(encoding="utf-8"))


# --- The run file


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


# --- Commands


def commands_page() -> str:
    """Every command with its help, arguments and options."""
    parts = [
        "# Commands\n",
        "`climlstm COMMAND --help` says the same. Those of plugins, such as `storms`, come with "
        "their packages.\n",
    ]
    for name, command in each_command(typer.main.get_command(app)):
        parts.append(f"## climlstm {name}\n\n{prose(inspect.cleandoc(command.help or ''))}\n")
        rows = []
        for parameter in command.params:
            names = " ".join(f"`{each}`" for each in [*parameter.opts, *parameter.secondary_opts])
            if parameter.param_type_name == "argument":
                names = f"`{parameter.name.upper()}`"
            rows.append((names, getattr(parameter, "help", None) or ""))
        if rows:
            parts.append(table(("", ""), rows))
    return "\n".join(parts)


def each_command(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Name and command of each leaf, `jobs list`."""
    if not hasattr(command, "list_commands"):
        yield name, command
        return
    for inner in command.list_commands(None):
        yield from each_command(command.get_command(None, inner), f"{name} {inner}".strip())


# --- Python


def python_page() -> str:
    """The names of `import climlstm`, and what datasets have."""
    parts = [
        "# Python\n",
        "Everything is imported when it is asked for: `import climlstm` loads neither torch nor "
        "xarray. The examples on this page are run by the tests.\n",
    ]
    for name in climlstm.__all__:
        if name != "__version__":
            parts.append(documented(f"climlstm.{name}", getattr(climlstm, name)))
    for title, accessor in (("Dataset", Accessor), ("DataArray", FieldAccessor)):
        parts.append(f"## {title}.climlstm\n\n{prose(inspect.getdoc(accessor) or '')}\n")
        for name, method in vars(accessor).items():
            if not name.startswith("_") and callable(method):
                parts.append(documented(f"{title}.climlstm.{name}", method))
    return "\n".join(parts)


def documented(name: str, thing: Any) -> str:
    """A function, class or method with its signature and docstring."""
    kind = "class" if isinstance(thing, type) else "function"
    if getattr(thing, "_is_protocol", False):
        signature = ""
    else:
        shape = inspect.signature(thing)
        kept = [p for p in shape.parameters.values() if p.name != "self"]
        signature = re.sub(r"\b(?:\w+\.)+(?=[A-Za-z])", "", str(shape.replace(parameters=kept)))
        signature = signature.replace("'", "").replace("NoneType", "None")
    text = prose(inspect.getdoc(thing) or "")
    return (
        f"## {name}\n\n`````{{py:{kind}}} {name}{signature}\n:no-contents-entry:\n\n{text}\n`````\n"
    )


# --- Plugins


def scores_page() -> str:
    """All evaluators with formula and source."""
    formulas = load_yaml((DOCS / "formulas.yaml").read_text(encoding="utf-8"))
    rows = []
    for name in offered("evaluators"):
        for metric in formulas[name]:
            rows.append(
                (
                    f"[`{name}`](#score-{name.replace('_', '-')})",
                    f"`{metric['metric']}`",
                    metric["better"],
                    metric["formula"],
                    metric["source"],
                )
            )
    parts = [
        "# Scores\n",
        (DOCS / "scores_head.txt").read_text(encoding="utf-8"),
        table(("evaluator", "metric", "better", "formula", "source"), rows),
        "",
    ]
    for name, plugin in offered("evaluators").items():
        parts.append(f"(score-{name.replace('_', '-')})=")
        parts.append(described(name, plugin))
    return "\n".join(parts)


def losses_page() -> str:
    """Losses, models, baselines and transforms with their options."""
    parts = [
        "# Losses, models, baselines and transforms\n",
        "`climlstm plugins list` shows what is installed, `climlstm plugins show NAME` one.\n",
    ]
    kinds: tuple[Kind, ...] = ("losses", "models", "baselines", "transforms")
    for kind in kinds:
        parts.append(f"## {kind.capitalize()}\n")
        parts += [described(name, plugin, "###") for name, plugin in offered(kind).items()]
    parts.append("## Variables\n")
    rows = [
        (f"`{name}`", loaded.long_name, f"`{loaded.units}`", plugin.distribution)
        for name, plugin in offered("variables").items()
        for loaded in [plugins.load_found(plugin)]
    ]
    parts.append(table(("name", "", "units", "package"), rows))
    return "\n".join(parts)


def offered(kind: Kind) -> dict[str, Plugin]:
    """Plugins of a kind that the packages of this repository offer, by name."""
    ours = {"climlstm", *(path.parent.name for path in (ROOT / "plugins").glob("*/pyproject.toml"))}
    return {p.name: p for p in plugins.discover(kind) if p.distribution in ours}


def described(name: str, plugin: Plugin, level: str = "##") -> str:
    """A plugin with its docstring and options."""
    loaded = plugins.load_found(plugin)
    text = f"{level} {SINGULAR[plugin.kind]} `{name}`\n\n"  # type: ignore[index]
    if plugin.distribution != "climlstm":
        text += f"*Of the package {plugin.distribution}.*\n\n"
    text += prose(inspect.getdoc(loaded) or "") + "\n"
    accepted = getattr(loaded, "Options", loaded)
    if dataclasses.is_dataclass(accepted):
        named = [
            (f"`{field.name}`", default_of_option(field)) for field in dataclasses.fields(accepted)
        ]
        if named:
            text += "\n" + table(("option", "default"), named)
    return text


def default_of_option(field: dataclasses.Field[Any]) -> str:
    """Default of an option as YAML has it."""
    value = field.default
    if value is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return "must be given"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, tuple):
        value = list(value)
    text = yaml.safe_dump(plain(value), default_flow_style=True, width=1000)
    return f"`{text.replace('...', '').strip()}`"


def plain(value: Any) -> Any:
    """A value with tuples as lists, as YAML has them."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, tuple | list) else value


# --- Text


def prose(docstring: str) -> str:
    """A docstring as Markdown: examples as code, lines `name: meaning` as a list."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", docstring.strip()):
        lines = paragraph.splitlines()
        if lines and lines[0].lstrip().startswith(">>>"):
            parts.append("```pycon\n" + textwrap.dedent(paragraph) + "\n```")
        elif lines and re.match(r"[a-z_]+(, [a-z_]+)*: ", lines[0]):
            ends = next(
                (n for n, line in enumerate(lines) if re.match("(Rais|Return|Yield)", line)), None
            )
            lines, rest = lines[:ends], lines[ends:] if ends else []
            items = [re.sub(r"^([a-z_]+(?:, [a-z_]+)*): ", r"- **\1**: ", line) for line in lines]
            parts.append("\n".join(i if i.startswith("- ") else f"  {i.strip()}" for i in items))
            parts += ["\n".join(rest)] if rest else []
        else:
            parts.append(paragraph)
    return "\n\n".join(parts)


def table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""

    def line(cells: tuple[str, ...]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        )

    return "\n".join([line(heading), line(("---",) * len(heading)), *map(line, rows), ""])


if __name__ == "__main__":
    write_all()
