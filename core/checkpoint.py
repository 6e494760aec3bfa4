"""Checkpoints that are whole or not there: Orbax writes them, a manifest of checksums vouches for them.

A checkpoint is a folder ``step_00000100`` and a file ``step_00000100.json``. The file is written last, by renaming, and
holds the size and checksum of every file in the folder, and its own: without it the checkpoint never finished and is
passed over; what does not match it was damaged later, which is reported too.
"""

import base64
import concurrent.futures
import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from core.errors import CheckpointError
from core.parallel import any_process
from core.workdir import write_atomically

logger = logging.getLogger(__name__)
logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax narrates every step of a save at this logger


class Restored(NamedTuple):
    """A checkpoint read back."""

    step: int
    state: PyTree
    extra: Any
    """What was saved beside the state: JSON values or bytes."""
    evaluation: dict[str, Any] | None
    """What was measured of this state, if anything, as JSON values."""


class Checkpoints:
    """The checkpoints of one run, written in the background, the newest few kept."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = folder
        self._keep = keep
        self._orbax = ocp.StandardCheckpointer()
        self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future | None = None

    def save(self, step: int, state: PyTree, extra: Any = None, evaluation: dict[str, Any] | None = None) -> None:
        """Begins to save a state; returns once it is copied from the device, so that it may be donated.

        Raises:
          CheckpointError: where this save cannot begin or the one before it failed.
        """
        self.wait()
        path = self.path(step)
        described = {"step": step, "leaves": _describe(state), "extra": _to_json(extra), "evaluation": evaluation}
        beside = json.dumps(described)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                _manifest(path).unlink(missing_ok=True)
            self._orbax.save(path, _as_leaves(state), force=True)
        except (OSError, ValueError) as error:
            raise self._cannot_write(path, error) from error
        self._pending = self._worker.submit(self._finish, path, json.loads(beside))

    def wait(self) -> None:
        """Returns when everything begun is on disk, for all processes of the run.

        Raises:
          CheckpointError: where it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        failure: Exception | None = None
        try:
            pending.result()
        except (OSError, ValueError, RuntimeError) as error:
            failure = error
        failed = any_process(failure is not None)
        if failure:
            raise self._cannot_write(self.folder, failure) from failure
        if failed:
            raise CheckpointError(f"another process of the run cannot write to {self.folder}; its message says why")

    def close(self) -> None:
        """Waits, and frees the threads."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # wait() has reported what matters
                self._orbax.close()

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / f"step_{step:08d}"

    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, newest first; not yet verified."""
        found = (re.fullmatch(r"step_(\d{8})\.json", path.name) for path in self.folder.glob("step_*.json"))
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def newest_good(self) -> Path | None:
        """The newest checkpoint that verifies, if any."""
        return next((self.path(step) for step in self.steps() if self._verify(step) is not None), None)

    def restore(self, like: PyTree) -> Restored | None:
        """The newest good checkpoint, with the structure, types and shardings of ``like``; None if there is none.

        Raises:
          CheckpointError: where the checkpoint holds another kind of state.
        """
        for step in self.steps():
            manifest = self._verify(step)
            if manifest is None:
                continue
            self._require_same(manifest["leaves"], _describe(like), step)
            leaves = self._orbax.restore(self.path(step), _abstract(like))
            evaluation = manifest.get("evaluation")
            return Restored(step, _with_leaves(like, leaves), _from_json(manifest["extra"]), evaluation)
        return None

    def clean(self) -> None:
        """Removes what interrupted saves left behind."""
        if jax.process_index() or not self.folder.exists():
            return
        finished = {path for step in self.steps() for path in (self.path(step), _manifest(self.path(step)))}
        for path in set(self.folder.iterdir()) - finished:
            _remove(path)

    def _finish(self, path: Path, manifest: dict[str, Any]) -> None:
        self._orbax.wait_until_finished()
        if jax.process_index():
            return
        text = json.dumps({**manifest, "files": _checksums(path)})
        write_atomically(_manifest(path), f"{_digest(text.encode())}\n{text}")
        damaged = [step for step in self.steps() if step > manifest["step"]]  # the run went on from one before them
        for step in damaged + self.steps()[len(damaged) + self._keep :]:
            _remove(_manifest(self.path(step)))
            _remove(self.path(step))

    def _verify(self, step: int) -> dict[str, Any] | None:
        """The manifest of an undamaged checkpoint; None, with a warning, for a damaged one."""
        path = self.path(step)
        try:
            manifest = _read_manifest(path)
            found, expected = _checksums(path), manifest["files"]
        except (OSError, ValueError) as error:
            logger.warning("checkpoint %s cannot be read (%s); trying the one before it", path, error)
            return None
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        if wrong:
            logger.warning("checkpoint %s is damaged (%s); trying the one before it", path, ", ".join(wrong))
            return None
        return manifest

    def _require_same(self, saved: list, wanted: list, step: int) -> None:
        saved_by_name, wanted_by_name = ({leaf[0]: leaf[1:] for leaf in leaves} for leaves in (saved, wanted))
        for name in sorted(saved_by_name.keys() | wanted_by_name.keys()):
            if saved_by_name.get(name) != wanted_by_name.get(name):
                raise CheckpointError(
                    f"{self.path(step)} holds another kind of state: {name} is {_spell(saved_by_name.get(name))} there "
                    f"and {_spell(wanted_by_name.get(name))} in this run; use another workdir or delete this one"
                )

    def _cannot_write(self, path: Path, error: Exception) -> CheckpointError:
        good = self.newest_good()
        reason = "the disk is full" if _is_full(error) else (str(error).strip() or repr(error)).splitlines()[0]
        last = f"the last good checkpoint is {good}" if good else "there is no earlier checkpoint"
        return CheckpointError(
            f"cannot write a checkpoint to {path}: {reason}; {last}; free space and run again, or name another workdir"
        )


def _manifest(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _to_json(extra: Any) -> dict[str, Any]:
    return {"base64": base64.b64encode(extra).decode()} if isinstance(extra, bytes) else {"json": extra}


def _from_json(packed: dict[str, Any]) -> Any:
    return base64.b64decode(packed["base64"]) if "base64" in packed else packed["json"]


def _read_manifest(path: Path) -> dict[str, Any]:
    digest, _, text = _manifest(path).read_bytes().partition(b"\n")
    if digest.decode() != _digest(text):
        raise ValueError("its manifest is damaged")
    return json.loads(text)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _checksums(folder: Path) -> dict[str, list]:
    """Size and digest of every file below a folder."""
    sums = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, hashlib.blake2b).hexdigest()
        sums[str(path.relative_to(folder))] = [path.stat().st_size, digest]
    if not sums:
        raise FileNotFoundError(f"no files in {folder}")
    return sums


def is_key(leaf: Any) -> bool:
    """Whether a leaf holds typed random keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _map_leaves(fn: Callable[[Any], Any], state: PyTree) -> dict[str, Any]:
    """Leaves under numbered names: structure is the program's, the file holds arrays; keys as their raw data."""
    leaves = (jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in jax.tree.leaves(state))
    return {f"leaf_{i:05d}": fn(leaf) for i, leaf in enumerate(leaves)}


def _as_leaves(state: PyTree) -> dict[str, Any]:
    return _map_leaves(lambda leaf: leaf if isinstance(leaf, jax.Array) else np.asarray(leaf), state)


def _abstract(state: PyTree) -> dict[str, Any]:
    return _map_leaves(
        lambda leaf: (
            jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
            if isinstance(leaf, jax.Array)
            else np.asarray(leaf)
        ),
        state,
    )


def _with_leaves(like: PyTree, leaves: dict[str, Any]) -> PyTree:
    flat, structure = jax.tree.flatten(like)
    restored = [
        jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(old)) if is_key(old) else leaf
        for old, (_, leaf) in zip(flat, sorted(leaves.items()), strict=True)
    ]
    return structure.unflatten(restored)


def _describe(state: PyTree) -> list[list]:
    """Path, shape and type of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [[jax.tree_util.keystr(path), list(np.shape(leaf)), str(leaf.dtype)] for path, leaf in leaves]


def _spell(leaf: list | None) -> str:
    return "absent" if leaf is None else f"{leaf[1]}{leaf[0]}"


def _is_full(error: BaseException) -> bool:
    text = f"{error} {error.__cause__ or ''}"
    return "No space left" in text or "File too large" in text or "RESOURCE_EXHAUSTED" in text
