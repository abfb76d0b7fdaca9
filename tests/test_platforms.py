"""Systems without what only Linux has: everything imports there, and cores are still counted."""

import os
import subprocess
import sys

import psutil

from climlstm.environment import recorded_environment, usable_cores

ELSEWHERE = """
import io, os, pkgutil, importlib
for name in ("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "sendfile", "eventfd"):
    if hasattr(os, name):
        delattr(os, name)  # macOS has none of them, or another one of that name
open_file = io.open

def without_proc(path, *options, **more):
    if str(path).startswith(("/proc/", "/sys/")):
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return open_file(path, *options, **more)

import climlstm
import climlstm.cli
for module in pkgutil.walk_packages(climlstm.__path__, "climlstm."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except climlstm.errors.MissingExtraError as error:
            print(error)

io.open = without_proc
from climlstm.data.store.memory import free_memory
from climlstm.environment import recorded_environment, usable_cores
assert usable_cores() == os.cpu_count()
assert recorded_environment()["hardware"]["cores"] == os.cpu_count()
assert free_memory() > 0
print("fine")
"""


def test_everything_imports_and_counts_on_a_system_that_is_not_linux():
    ran = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, timeout=200, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "fine"


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    if hasattr(os, "sched_getaffinity"):
        assert usable_cores() == len(psutil.Process().cpu_affinity())
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == os.cpu_count()
    assert recorded_environment()["hardware"]["cores"] == os.cpu_count()
