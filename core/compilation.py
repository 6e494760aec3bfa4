"""How programs are compiled where XLA's defaults serve them badly, and that no program is compiled twice."""

import contextlib
import functools
import hashlib
import logging
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from core.datasets import cache_dir

CACHE_BYTES = 2 * 2**30
"""Of compiled programs that are kept; a smoke run of a system needs 2 to 50 MB."""

logger = logging.getLogger(__name__)


def keep_compiled() -> Path | None:
    """Switches on JAX's persistent compilation cache: a program that was compiled once is read from disk thereafter.

    Programs are kept in the folder ``compiled`` of :func:`core.datasets.cache_dir`, apart for each type of processor,
    with ``RELIC_COMPILATION_CACHE=DIR`` in a folder of one's own, and not at all with ``RELIC_COMPILATION_CACHE=off``
    or where the folder cannot be written. Settings of JAX's own (``JAX_COMPILATION_CACHE_DIR``,
    ``JAX_ENABLE_COMPILATION_CACHE``) win. An entry that cannot be read or written costs a compilation and nothing else.

    Returns:
      The folder in use, None where programs are not kept.
    """
    config: Any = jax.config
    if not config.jax_enable_compilation_cache:
        return None
    if in_use := config.jax_compilation_cache_dir:
        return Path(in_use)
    choice = os.environ.get("RELIC_COMPILATION_CACHE", "")
    if choice.lower() in ("off", "0", "false", "no"):
        return None
    folder = (Path(choice) if choice else cache_dir() / "compiled") / processor()[:12]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        _trim(folder, CACHE_BYTES)
    except OSError as error:
        logger.warning("compiled programs are not kept: %s (RELIC_COMPILATION_CACHE=DIR names another folder)", error)
        return None
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # Most programs of an experiment take less than JAX's limit of a second; there are hundreds of them.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    return folder


def _trim(folder: Path, limit: int) -> None:
    """Deletes the programs that were used least recently until three quarters of the limit are left.

    JAX can bound a cache itself (``jax_compilation_cache_max_size``), but then reads the whole folder under a lock at
    every program that it writes.
    """
    entries = [(stat.st_atime, stat.st_size, path) for path, stat in _files(folder)]
    excess = sum(size for _, size, _ in entries) - limit
    if excess <= 0:
        return
    excess += limit // 4
    for _, size, path in sorted(entries):
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another process trims too
                if entry.is_file(follow_symlinks=False):
                    yield Path(entry.path), entry.stat()


@functools.cache
def processor() -> str:
    """A digest of what machine code depends on, so that machines which share a home directory do not share code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    kept = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    named = "".join(kept) or platform.processor() + platform.machine()
    return hashlib.sha256(named.encode()).hexdigest()


@contextlib.contextmanager
def quick_compilation() -> Iterator[None]:
    """Compiles with few optimisations inside the block, for programs that compile for longer than they run.

    It halves the processor time of short runs on the CPU (jax 0.10.2). ``JAX_DISABLE_MOST_OPTIMIZATIONS`` of the
    environment wins where it is set.
    """
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    if name.upper() not in os.environ:
        jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, before)


def jit_unrolled(fn: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """``jax.jit`` for code of many unrolled scalars that runs a few times only: on the CPU without fusion.

    Fusion on the CPU copies what several consumers share into each of them. The Hessian of a likelihood in closed form
    took 20 s to compile with it and 7 s without (jax 0.10.2), to run in hundredths of a second either way.

    Args:
      fn: what is compiled; not to be called inside another jit, which takes no options of its own.
      settings: as for ``jax.jit``.
    """

    @functools.cache
    def on(platform: str):
        options: Any = {"xla_disable_hlo_passes": "fusion"} if platform == "cpu" else None
        return jax.jit(fn, compiler_options=options, **settings)

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        return on(jax.default_backend())(*args, **kwargs)

    return call
