"""Commands and lines of YAML that messages print, such that they can be pasted as they stand."""

import re
import shlex
from typing import Any

LARGE = 1e15
"""Whole numbers below are written without a point."""


def command(*words: object) -> str:
    """A command as a shell takes it: words with blanks, brackets or quotes are quoted."""
    return shlex.join(map(str, words))


def one_line(value: Any) -> str:
    """A value as YAML in one line, as a run file, a catalog or `--set KEY=VALUE` takes it.

    Texts that YAML would read as something else, such as the variable NO, stand in double quotes.
    """
    import yaml  # late, since messages without YAML are raised before it is needed

    class Dumper(yaml.SafeDumper):
        def choose_scalar_style(self) -> str:
            style = super().choose_scalar_style()
            return '"' if style == "'" else style

    def number(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
        whole = value.is_integer() and abs(value) < LARGE
        return dumper.represent_int(int(value)) if whole else dumper.represent_float(value)

    Dumper.add_representer(float, number)
    written = yaml.dump(
        value, None, Dumper, default_flow_style=True, sort_keys=False, width=10_000,
        allow_unicode=True,
    )  # fmt: skip
    return written.removesuffix("...\n").rstrip("\n")


IN_CATALOG = "in the catalog, under metadata: "


def catalog_line(**keys: Any) -> str:
    """Where a declaration of a source belongs, and its line: catalog_line(plane=["y", "x"])."""
    lines = ", ".join(f"'{key}: {one_line(value)}'" for key, value in keys.items())
    return IN_CATALOG + lines


def variable_line(variable: object, **keys: Any) -> str:
    """Where a declaration of a variable belongs, and its line: variable_line("t2m", units="K")."""
    return catalog_line(variables={str(variable): keys})


def declarations(message: str) -> list[dict[str, Any]]:
    """Lines of `catalog_line` in a message, read as YAML, in their order.

    A line ends at the first quote after which it is whole, since names may hold quotes.
    """
    import yaml

    lines = []
    for start in re.finditer(f"{IN_CATALOG}'", message):
        rest = message[start.end() :]
        for end in (quote.start() for quote in re.finditer("'", rest)):
            try:
                read = yaml.safe_load(rest[:end])
            except yaml.YAMLError:
                continue
            if isinstance(read, dict):
                lines.append(read)
                break
    return lines
