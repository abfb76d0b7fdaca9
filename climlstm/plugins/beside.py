"""Modules of the user's own that lie beside a run file, and that packages do not know."""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

from climlstm.plugins.registry import distribution_of

_folders: list[Path] = []


def look_beside(folder: Path, names: Iterable[str]) -> None:
    """Let modules in the folder of a run file be imported, where no other place has them.

    names: of modules and packages that the run file may mean; without any there nothing is done.
    """
    files = ((folder / f"{name}.py", folder / name / "__init__.py") for name in set(names))
    if not any(module.is_file() or package.is_file() for module, package in files):
        return
    if folder not in _folders:
        _folders.append(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def modules_beside() -> list[Path]:
    """Modules and packages that were imported from beside run files, to be sent to other hosts."""
    found = []
    for name, module in sorted(sys.modules.items()):
        place = Path(getattr(module, "__file__", None) or "/")
        place = place.parent if place.name == "__init__.py" else place
        own = place.parent in _folders and place.stem == name
        if own and place.suffix in ("", ".py") and not distribution_of(name)[0]:
            found.append(place)
    return found
