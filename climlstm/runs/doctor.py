"""Facts about this machine, or each host of a cluster, and what is missing for climlstm."""

import importlib.util
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from climlstm import plugins
from climlstm.advice import command
from climlstm.compiled import load_c
from climlstm.data.run_data import user_cache
from climlstm.data.store.memory import free_memory
from climlstm.environment import hardware, recorded_environment, usable_cores
from climlstm.model.kernels.choice import gates_for
from climlstm.model.kernels.gates import PLAIN

EXTRAS = {
    "ray": ("ray",),
    "plot": ("cartopy", "matplotlib"),
    "grib": ("cfgrib", "eccodes"),
    "distributed": ("distributed",),
    "cloud": ("s3fs", "gcsfs", "obstore"),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow",),
    "regrid": ("xarray_regrid",),
    "notebook": ("ipywidgets", "jupyterlab"),
}
"""Modules of each extra of pyproject.toml."""

RAY_PORTS = {"head": 6379, "dashboard": 8265, "client": 10001}
"""Ports that Ray uses unless told otherwise."""

LITTLE = 2**30
"""Free bytes, of memory or of a disk, below which a run hardly goes on."""


def examine() -> dict[str, Any]:
    """Facts about this machine, plain JSON, and under `problems` what should be put right, each
    with the command that does it."""
    found = {
        **recorded_environment(),
        "free_memory": free_memory(),
        "memory": psutil.virtual_memory().total,
        "kernels": _kernels(),
        "compiler": os.environ.get("CC") or shutil.which("gcc"),
        "codecs": _version_of("zarrs"),
        "ray": {"version": _version_of("ray"), "ports": _answering()},
        "coastlines": _has("climlstm.plots.natural_earth"),
        "plugins": [str(p) for kind in plugins.SINGULAR for p in _foreign(kind)],
        "writable": {str(place): _may_write(place) for place in (Path.cwd(), user_cache())},
        "extras": {extra: _missing(modules) for extra, modules in EXTRAS.items()},
    }
    return found | {"host": socket.gethostname(), "problems": list(_problems(found))}


def examine_hosts(address: str) -> dict[str, dict[str, Any]]:
    """The facts of each host of a running Ray cluster, by its name and address.

    Raises ConfigError where no cluster answers.
    """
    from climlstm.on_ray.cluster import ask_hosts, connected

    with connected(address):
        return ask_hosts(examine)


def _kernels() -> dict[str, str]:
    """The gates that networks run with on each device, in float32, and why."""
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    chosen = {}
    for device in devices:
        field = torch.zeros(1, device=device)
        fused = gates_for(field, field, fused=True) is not PLAIN
        reason = "they gave the results of the plain ones" if fused else "see the warning above"
        chosen[device] = f"{'fused' if fused else 'plain'}: {reason}"
    passes = load_c("climlstm.data.store", "passes.c", otherwise="reading takes longer")
    chosen["reading"] = "compiled" if passes is not None else "plain: see the warning above"
    return chosen


def _problems(found: dict[str, Any]) -> Iterator[str]:
    missing = {extra: modules for extra, modules in found["extras"].items() if modules}
    for extra, modules in missing.items():
        install = command("pip", "install", f"climlstm[{extra}]")
        yield f"{', '.join(modules)} not installed: {install}"
    if found["compiler"] is None:
        yield "no C compiler: networks and reading take up to twice as long. Install gcc, or set CC"
    for place, writable in found["writable"].items():
        if not writable:
            yield f"no file can be written into {place}: get permission, or run elsewhere"
    if found["free_memory"] < LITTLE:
        yield f"only {found['free_memory'] / 2**20:.0f} MiB of memory are free"


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _missing(modules: tuple[str, ...]) -> list[str]:
    return [module for module in modules if not _has(module)]


def _foreign(kind: Any) -> list[plugins.Plugin]:
    """Installed plugins that did not come with climlstm."""
    return [p for p in plugins.discover(kind) if p.distribution != plugins.BUILT_IN]


def _may_write(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False


def _answering() -> dict[str, bool]:
    """Whether something listens on this machine at each of Ray's ports."""
    found = {}
    for name, port in RAY_PORTS.items():
        with socket.socket() as client:
            client.settimeout(0.5)
            found[f"{name} ({port})"] = client.connect_ex(("127.0.0.1", port)) == 0
    return found


def summary(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts as pairs of texts, for people."""
    gib = 2**30
    machine = hardware() if "hardware" not in found else found["hardware"]
    ports = [name for name, answers in found["ray"]["ports"].items() if answers]
    return [
        ("versions", ", ".join(f"{name} {text}" for name, text in found["versions"].items())),
        ("system", str(found["system"])),
        ("processor", f"{machine['processor']}, {machine.get('cores', usable_cores())} cores"),
        ("memory", f"{found['memory'] / gib:.1f} GiB, {found['free_memory'] / gib:.1f} free "
                   "within the limits of this process"),
        ("GPUs", ", ".join(machine["gpus"]) or "none"),
        ("kernels", "; ".join(f"{device} {text}" for device, text in found["kernels"].items())),
        ("compiler", str(found["compiler"] or "none")),
        ("Zarr codecs", f"zarrs {found['codecs']}" if found["codecs"] else "zarr-python's own"),
        ("Ray", f"{found['ray']['version'] or 'not installed'}; answering: "
                f"{', '.join(ports) or 'no port'}"),
        ("coastlines", "in the package" if found["coastlines"] else "missing"),
        ("plugins", f"{len(found['plugins'])} of other packages"),
        ("may write", ", ".join(p for p, may in found["writable"].items() if may) or "nowhere"),
    ]  # fmt: skip
