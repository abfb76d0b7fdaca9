"""Our C sources, compiled for this machine when they are first needed.

That takes half a second and needs gcc, so a library stays in the user's cache for processes to
come, under the digest of all that it follows from. Where it fails, a warning says what becomes
slower, and the caller does the same in another way.
"""

import ctypes
import hashlib
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
            return _kept(compiler, Path(sources) / name, Path(folder))
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


def _kept(compiler: str, source: Path, folder: Path) -> ctypes.CDLL:
    """The library from the user's cache, built into it if need be; built into `folder`, where the
    cache is not the user's own."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "climlstm", "compiled")
    kept = cache / f"{source.stem}-{_digest(compiler, source)}.so"
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = cache.stat().st_uid == os.getuid() and not cache.stat().st_mode & 0o022
        if own and not kept.exists():
            built = _build(compiler, source, folder)
            beside = cache / f".{kept.name}.{os.getpid()}"
            shutil.copyfile(built, beside)
            os.replace(beside, kept)
    except OSError as error:
        log.debug("'%s' keeps no compiled libraries: %s", cache, error)
        own = False
    return ctypes.CDLL(str(kept if own else _build(compiler, source, folder)))


def _digest(compiler: str, source: Path) -> str:
    """Digest of source, options, compiler and processor: a home may be shared by several hosts."""
    program = Path(shutil.which(compiler) or compiler).resolve()
    known = program.stat()
    processor = Path("/proc/cpuinfo")
    kind = {
        line
        for line in (processor.read_text() if processor.exists() else "").splitlines()
        if line.startswith(("model name", "flags", "Features", "CPU part"))
    }
    content = [source.read_text(), FLAGS, str(program), known.st_size, known.st_mtime_ns]
    content += [platform.platform(), sorted(kind)]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def _build(compiler: str, source: Path, folder: Path) -> Path:
    """The library, built into a folder.

    Raises OSError or SubprocessError where compiler, linker or loader refuse.

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
    return linked
