"""The C kernels: compiled on first use into a cache, registered with XLA for the CPU."""

import ctypes
import functools
import hashlib
import importlib.metadata
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax

from core.compilation import processor
from core.datasets import cache_dir

SOURCES = tuple(Path(__file__).with_name(name) for name in ("csr.c", "topk.c"))
HEADER = Path(__file__).with_name("kernel.h")
TARGETS = ("relic_spmm", "relic_sddmm", "relic_scatter", "relic_topk")
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread")

logger = logging.getLogger(__name__)


@functools.cache
def register() -> bool:
    """Makes the kernels known to XLA; False, with one warning, where they cannot be compiled."""
    try:
        library = ctypes.CDLL(str(build(cache_dir() / "kernels")))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        logger.warning("sparse products take XLA's slower path, the C kernel could not be built: %s", detail.strip())
        return False
    for target in TARGETS:
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, target)), platform="cpu")
    return True


def build(cache: Path) -> Path:
    """The compiled library for these sources, jaxlib, compiler and processor; built if it is not in the cache yet.

    Safe against concurrent builds: the file appears by renaming.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise FileNotFoundError("no C compiler (cc, gcc or clang) on the PATH; install one or set CC")
    key = hashlib.sha256()
    for source in (HEADER, *SOURCES):
        key.update(source.read_bytes())
    for part in (importlib.metadata.version("jaxlib"), compiler, processor(), *FLAGS):
        key.update(part.encode())
    library = cache / f"sparse-{key.hexdigest()[:16]}.so"
    if not library.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            fresh = Path(folder, library.name)
            command = [compiler, *FLAGS, f"-I{jax.ffi.include_dir()}", *map(str, SOURCES), "-o", str(fresh)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            fresh.replace(library)
    return library
