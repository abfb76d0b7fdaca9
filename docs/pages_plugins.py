"""Pages of scores, losses, models and other plugins, for docs/pages.py."""

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pages_text import prose, table

from climlstm import plugins
from climlstm.config.plain_yaml import load_yaml
from climlstm.plugins.discovery import SINGULAR, Kind, Plugin

DOCS = Path(__file__).parent
ROOT = DOCS.parent


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
