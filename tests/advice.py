"""Advice in our messages: where it stands in the code, and how a reader follows it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from climlstm.config.plain_yaml import load_yaml
from tests.house import trees

HELPERS = frozenset({"command", "catalog_line", "variable_line", "missing_extra"})
"""Functions that write what a reader is to paste."""

THINGS = {
    "command": re.compile(
        r"'climlstm (\w+(?: list)?)|(ray start|dask scheduler|dask worker|ssh -L)"
    ),
    "option": re.compile(r"(?<![\w-])(--[a-z][a-z-]+)"),
    "key": re.compile(
        r"(?<![\w.])((?:data|model|training|forecast|cluster|evaluation)\.(?!json)[a-z]\w+)(?![\w(])"
    ),
    "line": re.compile(r"(?<!\w)'([a-z_]+): [{\[a-z]|(tune|patch): [{1]"),
    "install": re.compile(r"pip install '?([\w\[\]{}-]+)|install (climlstm\[\w+\])"),
    "python": re.compile(r"\.([a-z]\w+)\(|\b([a-z]\w+)=[{\[0-9TF]|\b(cases_of)\("),
}
"""What messages can tell a reader to write, by the texts that do."""


def texts(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each text of a module that is no docstring, with the function around it; {} for values."""

    def visit(node: ast.AST, around: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            around = f"{around}.{node.name}".lstrip(".")
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield around, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
            yield around, "".join(map(str, parts))
            for value in node.values:
                if isinstance(value, ast.FormattedValue):
                    yield from visit(value.value, around)
        else:
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name) and called.id in HELPERS:
                yield around, _written_by(node)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, around)

    yield from visit(tree, "")


def things() -> dict[str, set[str]]:
    """Everything that a message tells a reader to write, as 'option --resume', and where."""
    found: dict[str, set[str]] = {}
    for path, tree in trees().items():
        if {"templates", "testing", "cli", "demo.py"} & set(path.parts):
            continue
        for function, text in texts(tree):
            if text.startswith(("<", ":root", "#")) or " " not in text:
                continue
            text = re.sub(r"\+\w+=\S+", "", text)  # PROJ's, which are no keyword arguments
            text = text.replace("pip install --upgrade", "pip install")
            for kind, pattern in THINGS.items():
                for match in pattern.finditer(text):
                    thing = next(group for group in match.groups() if group)
                    found.setdefault(f"{kind} {thing}", set()).add(f"{path.name} {function}")
    return found


def _written_by(call: ast.Call) -> str:
    """What a helper's call writes, as far as the code says it."""
    name = call.func.id
    said = [each.value if isinstance(each, ast.Constant) else "{}" for each in call.args]
    if name == "command":
        return f"'{' '.join(map(str, said))}"
    if name == "missing_extra":
        return f"pip install climlstm[{said[1]}]"
    keys = [str(keyword.arg) for keyword in call.keywords]
    return " ".join(f"'{key}: {{" for key in keys)


def followed() -> tuple[dict[str, str], dict[str, str]]:
    """The test of each thing that messages say to write, and those without one with the reason."""
    tests = load_yaml((Path(__file__).parent / "followed.yaml").read_text(encoding="utf-8"))
    without = tests.pop("not followed")
    return {thing: test for test, several in tests.items() for thing in several}, without
