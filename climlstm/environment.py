"""Versions, hardware and the state of the code that a run has; and whether it has enough."""

import functools
import importlib
import importlib.util
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from climlstm.errors import ConfigError

LIBRARIES = ("climlstm", "torch", "numpy", "xarray", "dask", "zarr", "zarrs", "ray")

SECONDS_FOR_GIT = 5.0


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a result, where they are installed."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def recorded_environment() -> dict[str, Any]:
    """Plain JSON: `versions`, `system`, `hardware`, and `git` for climlstm and the working folder.

    Names of users and hosts, and variables of the environment, are left out.
    """
    return {
        "versions": versions(),
        "system": platform.platform(),
        "hardware": hardware(),
        "git": {
            name: state
            for name, folder in (("climlstm", Path(__file__).parent), ("here", Path.cwd()))
            if (state := git_state(str(folder))) is not None
        },
    }


def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, memory in GiB, and GPUs by name."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _gpus(),
    }


def usable_cores() -> int:
    """Processor cores that this process may use; all, where the system cannot tell (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_gpus(wanted: int, asked: str, otherwise: str) -> None:
    """Raises ConfigError unless PyTorch can use `wanted` GPUs of this machine.

    asked: what asks for them, as the beginning of a sentence: "cluster.gpu is true".
    otherwise: what to do to run without, as the beginning of a sentence.
    """
    import torch

    there = torch.cuda.device_count()
    if there >= wanted:
        return
    found = f"{there} of them" if there else "none"
    built = "" if torch.backends.cuda.is_built() else ", which was built without CUDA"
    raise ConfigError(
        f"{asked}, which takes {wanted} GPU{'s' * (wanted > 1)} on this machine, but PyTorch "
        f"{torch.__version__}{built}, finds {found}. {otherwise}, or use "
        f"{'fewer workers or ' * (wanted > 1)}a machine with GPUs."
    )


@functools.lru_cache(maxsize=8)
def git_state(folder: str) -> str | None:
    """Commit of the checkout that holds a folder, with '-dirty' after it where tracked files were
    changed; None outside of a checkout, or where git does not answer."""
    command = ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS_FOR_GIT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def import_pyproj() -> ModuleType:
    """The module pyproj; its libproj calls its own functions and no other library's.

    The wheels of eccodes load a second libproj, and findlibs opens it for all libraries that come
    later (RTLD_GLOBAL). A pyproj imported after that would call into the wrong one, and crash at
    import or at the end of the process (eccodes 2.50 with eckitlib 2.5, pyproj 3.7). Looking into
    its own library first (RTLD_DEEPBIND, on Linux) is right in either order.
    Raises ImportError where pyproj is not installed.
    """
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | getattr(os, "RTLD_DEEPBIND", 0))
    try:
        return importlib.import_module("pyproj")
    finally:
        sys.setdlopenflags(flags)


def import_pyproj_before_eccodes() -> None:
    """Import pyproj where eccodes is installed too, before xarray loads the plugins it finds.

    Whatever engine is named, xarray imports all of them when it opens its first dataset: cfgrib's
    with eccodes, and those of others (MetPy) with pyproj.
    """
    if importlib.util.find_spec("gribapi") and importlib.util.find_spec("pyproj"):
        import_pyproj()
