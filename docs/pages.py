"""Pages of the site that follow from the code, so that neither goes without the other.

    python docs/pages.py

writes the references (run file, commands, Python, plugins) into docs/reference/, READMEs of other
folders beside them, and the notebooks into docs/tutorials/. docs/conf.py does so at each build.
"""

import inspect
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer.main
from pages_plugins import losses_page, scores_page
from pages_run_file import run_file_page
from pages_text import prose, table

import climlstm
from climlstm.cli import app
from climlstm.notebook.views import Accessor, FieldAccessor

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
    "05_nowcast": "nowcast",
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


if __name__ == "__main__":
    write_all()
