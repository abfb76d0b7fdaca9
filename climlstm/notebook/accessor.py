"""`dataset.climlstm` from `import climlstm` on, although neither package loads the other for it.

`climlstm --help` takes 0.35 s of CPU and importing xarray 0.54 s more, so where xarray is not
loaded yet, the accessor is registered right after it. `views.py` has what the accessor does.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def register() -> None:
    """Give datasets the accessor: now, or as soon as xarray is imported."""
    if "xarray" in sys.modules:
        _register(sys.modules["xarray"])
    else:
        sys.meta_path.insert(0, _Waiting())


def _register(xarray: ModuleType) -> None:
    importlib.import_module("climlstm.environment").import_pyproj_before_eccodes()
    if "climlstm" not in vars(xarray.Dataset):
        xarray.register_dataset_accessor("climlstm")(_accessor)
        xarray.register_dataarray_accessor("climlstm")(_field_accessor)


def _accessor(dataset: Any) -> Any:
    """The accessor of a dataset, made when `dataset.climlstm` is first asked for."""
    return importlib.import_module("climlstm.notebook.views").Accessor(dataset)


def _field_accessor(field: Any) -> Any:
    """The accessor of one variable."""
    return importlib.import_module("climlstm.notebook.views").FieldAccessor(field)


class _Waiting(MetaPathFinder):
    """Finds xarray as Python does, once, and registers the accessor after it is loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "xarray":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(Loader):
    """Another loader, and the accessor after it."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        _register(module)
