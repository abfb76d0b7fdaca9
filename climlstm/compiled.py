"""Our C sources, compiled for this machine when they are first needed.

That takes half a second and needs gcc; a library lives as long as the process. Where it fails, a
warning says what becomes slower, and the caller does the same in another way.
"""

import ctypes
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

log = logging.getLogger(__name__)

FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
"""Fast, but not -ffast-math: a NaN has to stay one."""

FLAGS_X86 = ("-mprefer-vector-width=512",)
"""Flags for machines with such vectors, of which gcc would use half."""


def load_c(package: str, name: str, *, otherwise: str) -> ctypes.CDLL | None:
    """The C source of that name in a package, compiled and loaded, or None with a warning.

    otherwise: what then is slower, and by how much, as the end of a sentence.
    """
    compiler = os.environ.get("CC") or shutil.which("gcc") or "gcc"
    try:
        with (
            tempfile.TemporaryDirectory(prefix="climlstm-") as folder,
            as_file(files(package)) as sources,
        ):
            return _build(compiler, Path(sources) / name, Path(folder))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        log.warning(
            "%s could not be compiled with '%s', so that %s. Install gcc, or name a compiler in "
            "CC. %s",
            name,
            compiler,
            otherwise,
            str(detail).strip(),
        )
        return None


def _build(compiler: str, source: Path, folder: Path) -> ctypes.CDLL:
    """Raises OSError or SubprocessError where compiler, linker or loader refuse.

    Linked without -fopenmp, the library finds the OpenMP that PyTorch has loaded, and so shares
    its threads instead of starting rivals.
    """
    compiled, linked = folder / "compiled.o", folder / "linked.so"
    wide = FLAGS_X86 if platform.machine() == "x86_64" else ()
    options = (*FLAGS, *wide, "-fPIC", "-fopenmp", "-c")
    for command in (
        (compiler, *options, str(source), "-o", str(compiled)),
        (compiler, "-shared", str(compiled), "-o", str(linked)),
    ):
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return ctypes.CDLL(str(linked))
