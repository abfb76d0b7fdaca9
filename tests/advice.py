"""Advice in our messages: where it stands in the code, and how a reader follows it."""

import ast
import re
from collections.abc import Iterator
from typing import Any

from climlstm.config.plain_yaml import load_yaml
from tests.house import trees

HELPERS = frozenset({"command", "catalog_line", "variable_line", "missing_extra"})
"""Functions that write what a reader is to paste."""

ADVICE = re.compile(
    r"'climlstm \w|pip install|ray start|dask (scheduler|worker)|ssh |python -m "  # commands
    r"|(?<![\w-])--[a-z][a-z-]+"  # their options
    r"|'[a-z_]+: [{\[a-z]|tune: \{"  # lines of YAML
    r"|\.[a-z]\w+\((\w*=|\))|[a-z]\w+=\{|[a-z]\w+=\w+\)|\w+\[\w+\['"  # Python
)


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
                yield around, f"'climlstm {called.id}"
            for child in ast.iter_child_nodes(node):
                yield from visit(child, around)

    yield from visit(tree, "")


def places() -> dict[str, list[str]]:
    """Functions that give advice, as 'room/module.py function', with the texts that do."""
    found: dict[str, list[str]] = {}
    for path, tree in trees().items():
        if any(part in {"templates", "testing", "cli"} for part in path.parts):
            continue
        for function, text in texts(tree):
            if " " in text and ADVICE.search(text) and not text.startswith(("<", ":root", "#")):
                found.setdefault(f"{path.parent.name}/{path.name} {function}", []).append(text)
    return found


def declarations(message: str) -> list[dict[str, Any]]:
    """Lines that a message says to add 'in the catalog, under metadata', read as YAML.

    A line ends at the first quote after which it is whole, since names may hold quotes.
    """
    lines = []
    for start in re.finditer(r"in the catalog, under metadata: '", message):
        rest = message[start.end() :]
        for end in (m.start() for m in re.finditer("'", rest)):
            try:
                lines.append(load_yaml(rest[:end]))
                break
            except Exception:
                continue
    return lines
