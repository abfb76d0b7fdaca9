"""A ready project for a plugin, from the files in templates/: `climlstm plugins new`."""

import keyword
import re
import string
from importlib.resources import files
from pathlib import Path

from climlstm import plugins
from climlstm.errors import PluginError, nearest
from climlstm.files import write_whole, writing
from climlstm.plugins import SINGULAR, Kind


def new_project(kind: Kind, name: str, parent: Path) -> Path:
    """Write the project `climlstm-NAME` for a plugin of that name; the whole, or nothing.

    parent: folder in which the project's own folder is made.
    Raises PluginError for a name that cannot be used, and where the folder exists already.
    """
    _check_name(kind, name)
    folder = parent / f"climlstm-{name.replace('_', '-')}"
    if folder.exists():
        raise PluginError(
            f"{folder} exists already, and nothing in it is overwritten. "
            "Choose another name, or another folder with --in."
        )
    with writing(folder), write_whole(folder) as draft:
        for path, content in _project_files(kind, name).items():
            target = draft / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8")
    return folder


def kind_of(word: str) -> Kind:
    """The kind that a word such as `loss` or `losses` means. Raises PluginError for others."""
    for kind, singular in SINGULAR.items():
        if word in (kind, singular):
            return kind
    raise PluginError(
        f"There is no kind of plugin called '{word}'.{nearest(word, SINGULAR.values())} "
        f"Kinds: {', '.join(SINGULAR.values())}."
    )


def _check_name(kind: Kind, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise PluginError(
            f"'{name}' cannot be the name of a plugin. Use small letters, digits and '_', a "
            "letter first, and no keyword of Python."
        )
    taken = [plugin for plugin in plugins.discover(kind) if plugin.name == name]
    if taken:
        raise PluginError(f"The name is taken, by the {taken[0]}. Choose another.")


def _project_files(kind: Kind, name: str) -> dict[str, str]:
    """Path and content of each file of the project."""
    package = f"climlstm_{name}"
    words = {
        "name": name,
        "package": package,
        "project": f"climlstm-{name.replace('_', '-')}",
        "kind": kind,
        "singular": SINGULAR[kind],
        "object": name.upper() if kind == "variables" else name.title().replace("_", ""),
    }
    folder = files("climlstm.plugins") / "templates"

    def filled(template: str, **more: str) -> str:
        text = (folder / f"{template}.template").read_text(encoding="utf-8")
        return string.Template(text).substitute(words, **more)

    return {
        "pyproject.toml": filled("project/pyproject.toml"),
        "README.md": filled("project/README.md", use=filled(f"{kind}/run.yaml").rstrip()),
        ".gitignore": filled("project/gitignore"),
        f"{package}/__init__.py": filled(f"{kind}/plugin.py"),
        f"tests/test_{name}.py": filled(f"{kind}/test.py"),
    }
