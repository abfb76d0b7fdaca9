"""What a run ran on: versions, the state of the code, hardware; for the record."""

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

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


def environment() -> dict[str, Any]:
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
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _gpus(),
    }


@functools.lru_cache(maxsize=8)
def git_state(folder: str) -> str | None:
    """The commit of the checkout that a folder lies in, with '-dirty' after it where tracked files
    were changed; None where it lies in none, or git does not answer."""
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
