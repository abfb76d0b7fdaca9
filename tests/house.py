"""How big the house is, and whether it is in order: rooms, floors, circles, lengths, language.

    python -m tests.house

A room is a folder with Python files below climlstm/, or a module that lies beside these folders;
floors are the longest chain of rooms in which each imports the next. tests/test_house.py holds the
numbers below their bounds.
"""

import ast
import functools
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grimp
import networkx

ROOT = Path(__file__).parents[1]
PACKAGE = "climlstm"

FRAGMENT = re.compile(
    r"\s*(Of|As|What|While|Which|That|Until|So|To|Than|By|Like|And|But|Or|For (?!each|experts))\b"
)
"""How a docstring must not begin, since it then hangs on the name above it."""

MODEL_MAY_IMPORT = frozenset(
    {
        *("advice", "calendars", "compiled", "errors", "grid", "html", "model", "plugins"),
        *("steps", "version"),
    }
)
"""Rooms of ours that the networks know."""

MODEL_GUESTS = frozenset({"torch", "triton", "numpy", "safetensors", "pydantic"})
"""Packages of others that the networks know, beside the standard library."""


ONE_ROOM = {"climlstm.model.kernels": "climlstm.model"}
"""Folders that count as part of the room around them: kernels use the networks' padding."""


@dataclass(frozen=True)
class Place:
    """Something that is counted, and where it stands."""

    size: int
    what: str


def sources() -> list[Path]:
    """Our Python and C files, without tests."""
    folders = [ROOT / PACKAGE, *sorted((ROOT / "plugins").glob("*/climlstm_*"))]
    found = [path for folder in folders for path in folder.rglob("*")]
    return sorted(path for path in found if path.suffix in {".py", ".c", ".h"})


@functools.cache
def trees() -> Mapping[Path, ast.Module]:
    """Syntax trees of our Python files."""
    files = [path for path in sources() if path.suffix == ".py"]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}


def files() -> list[Place]:
    """Our files by their lines, longest first."""
    lengths = ((len(path.read_text(encoding="utf-8").splitlines()), path) for path in sources())
    return _ranked(Place(length, _name(path)) for length, path in lengths)


def functions() -> list[Place]:
    """Our functions by their lines, longest first."""
    return _ranked(
        Place(_lines(node), f"{_name(path)}:{node.lineno} {node.name}")
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def fragments() -> list[str]:
    """Docstrings, of attributes too, that begin with a `FRAGMENT`."""
    return [
        f"{_name(path)}:{line} {text.strip().splitlines()[0]}"
        for path, tree in trees().items()
        for line, text in _docstrings(tree)
        if FRAGMENT.match(text)
    ]


def twins() -> list[str]:
    """Names of classes that two modules define."""
    names = Counter(
        node.name
        for tree in trees().values()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    )
    return sorted(name for name, number in names.items() if number > 1)


@functools.cache
def modules() -> networkx.DiGraph:
    """Which of our modules imports which module, or package of somebody else."""
    graph = grimp.build_graph(
        PACKAGE, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    imports = networkx.DiGraph()
    for name in graph.modules:
        imports.add_node(name)
        imports.add_edges_from((name, of) for of in graph.find_modules_directly_imported_by(name))
    return imports


def room(module: str) -> str:
    """The room that a module of ours lies in."""
    parts = module.split(".")
    is_folder = (ROOT / module.replace(".", "/")).is_dir()
    name = module if is_folder or len(parts) <= 2 else ".".join(parts[:-1])
    return ONE_ROOM.get(name, name)


@functools.cache
def rooms() -> networkx.DiGraph:
    """Which room imports which."""
    between = networkx.DiGraph()
    for importer, imported in modules().edges:
        pair = [room(name) for name in (importer, imported) if name.split(".")[0] == PACKAGE]
        if len(set(pair)) == 2:
            between.add_edge(*pair)
    return between


def folders() -> list[str]:
    """Folders with Python files below climlstm/."""
    found = {path.parent for path in sources() if path.suffix == ".py"}
    return sorted(_name(path) for path in found if ROOT / PACKAGE in path.parents)


def floors() -> list[str]:
    """The longest chain of rooms, uppermost first; rooms of a circle count as one."""
    condensed = networkx.condensation(rooms())
    chain = networkx.dag_longest_path(condensed)
    return [" + ".join(sorted(condensed.nodes[node]["members"])) for node in chain]


def circles(graph: networkx.DiGraph) -> list[list[str]]:
    """Groups of modules, or rooms, that import one another."""
    return [sorted(c) for c in networkx.strongly_connected_components(graph) if len(c) > 1]


def strangers_to_the_model() -> list[str]:
    """Imports of climlstm/model that the networks should not need."""
    found = []
    for importer, imported in modules().edges:
        parts = imported.split(".")
        if not importer.startswith(f"{PACKAGE}.model"):
            continue
        known = MODEL_GUESTS | sys.stdlib_module_names
        if parts[1] not in MODEL_MAY_IMPORT if parts[0] == PACKAGE else parts[0] not in known:
            found.append(f"{importer} imports {imported}")
    return sorted(found)


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring, those below attributes included."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            value = getattr(statement, "value", None)
            text = value.value if isinstance(value, ast.Constant) else None
            if isinstance(statement, ast.Expr) and isinstance(text, str):
                yield statement.lineno, text


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def _ranked(places: Iterator[Place]) -> list[Place]:
    return sorted(places, key=lambda place: (-place.size, place.what))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def measures() -> dict[str, int]:
    """The numbers that tests/test_house.py bounds."""
    return {
        "rooms": len(folders()),
        "floors": len(floors()),
        "circles of modules": len(circles(modules())),
        "circles of rooms": len(circles(rooms())),
        "longest file": files()[0].size,
        "longest function": functions()[0].size,
        "lines": sum(place.size for place in files()),
        "fragments": len(fragments()),
        "classes of one name": len(twins()),
        "strangers to the model": len(strangers_to_the_model()),
    }


def main() -> None:
    for name, number in measures().items():
        print(f"{name:24s}{number:8,d}")
    print("\nfloors:", *floors(), sep="\n  ")
    for title, each in (
        ("circles", circles(modules()) + circles(rooms())),
        ("files above 350 lines", [p for p in files() if p.size > 350]),
        ("functions above 60 lines", [p for p in functions() if p.size > 60]),
        ("classes of one name", twins()),
        ("strangers to the model", strangers_to_the_model()),
        ("docstrings that begin with a fragment", fragments()),
    ):
        print(f"\n{title}: {len(each)}")
        for line in each:
            print(" ", f"{line.size:5d} {line.what}" if isinstance(line, Place) else line)


if __name__ == "__main__":
    main()
