"""Checkpoints that are whole or not there: Orbax writes them, a manifest of checksums vouches for them.

The manifest (:mod:`core.manifests`) is written last, by renaming: without it the checkpoint never finished and is
passed over; what does not match it was damaged later, which is reported too.
"""

import asyncio
import base64
import concurrent.futures
import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from core import manifests
from core.checks import Count, checked
from core.errors import CheckpointError, ConfigError
from core.kinds import shown
from core.parallel import agreed, any_process

logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax narrates every step of a save at this logger

_FAILURES = (Exception, asyncio.CancelledError)
"""Orbax and TensorStore raise errors of many kinds, that of a full disk among them."""
_SAVE_SECONDS = 1200
"""How long the processes of a run wait for each other's parts of a checkpoint."""
_TEN_YEARS = 315_360_000
"""Orbax measures by a clock that may be set while it saves; a lone process waits for its own disk only."""


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

    @checked
    def __init__(self, folder: Path, keep: Count = 2):
        self.folder = folder
        self._keep = keep
        # Directories are made before a save goes on in the background: where one cannot be made, Orbax's threads would
        # wait for it and hold the process back.
        options = ocp.AsyncOptions(
            timeout_secs=_SAVE_SECONDS if jax.process_count() > 1 else _TEN_YEARS,
            create_directories_asynchronously=False,
        )
        self._orbax = ocp.StandardCheckpointer(async_options=options)
        self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future | None = None

    def save(self, step: int, state: PyTree, extra: Any = None, evaluation: dict[str, Any] | None = None) -> None:
        """Begins to save a state; returns once it is copied from the device, so that it may be donated.

        Raises:
          CheckpointError: where this save cannot begin or the one before it failed.
        """
        self.wait()
        path = self.path(step)
        described = {"step": step, "leaves": _describe(state), "extra": to_json(extra), "evaluation": evaluation}
        beside = json.dumps(described)
        agreed(lambda: self._make_room(path))
        try:
            self._orbax.save(path, _as_leaves(state), force=True)
        except _FAILURES as error:
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
        failure: BaseException | None = None
        try:
            pending.result()
        except _FAILURES as error:
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
            with contextlib.suppress(*_FAILURES):  # wait() has reported what matters
                self._orbax.close()

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return manifests.folder_of(self.folder, step)

    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, newest first; not yet verified."""
        return manifests.steps(self.folder)

    def require_own(self) -> None:
        """Refuses a folder that holds other things than checkpoints, in all processes of the run.

        Raises:
          CheckpointError: names what it is.
        """
        agreed(lambda: manifests.require_own(self.folder))

    def newest_good(self) -> Path | None:
        """The newest checkpoint that verifies, if any."""
        return next((self.path(step) for step in self.steps() if manifests.verified(self.path(step)) is not None), None)

    def restore(self, like: PyTree) -> Restored | None:
        """The newest good checkpoint, with the structure, types and shardings of ``like``; None if there is none.

        Raises:
          CheckpointError: where the checkpoint holds another kind of state.
        """
        for step in self.steps():
            manifest = manifests.verified(self.path(step))
            if manifest is None:
                continue
            self._require_same(manifest["leaves"], _describe(like), step)
            try:
                leaves = self._orbax.restore(self.path(step), _abstract(like))
            except _FAILURES as error:
                raise CheckpointError(
                    f"cannot restore {self.path(step)}: {_first_line(error)}; run again, or use another workdir"
                ) from error
            evaluation = manifest.get("evaluation")
            return Restored(step, _with_leaves(like, leaves), _from_json(manifest["extra"]), evaluation)
        return None

    def clean(self) -> None:
        """Removes what interrupted saves left behind."""
        if jax.process_index() == 0:
            manifests.clean(self.folder)

    def _make_room(self, path: Path) -> None:
        """Takes a damaged checkpoint away from the place of a new one."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            manifests.remove(path)
        except OSError as error:
            raise self._cannot_write(path, error) from error
        if path.exists():
            raise CheckpointError(f"{path} is no checkpoint of this run; move it elsewhere, or name another workdir")

    def _finish(self, path: Path, described: dict[str, Any]) -> None:
        self._orbax.wait_until_finished()
        if jax.process_index():
            return
        manifests.write(path, described)
        damaged = [step for step in self.steps() if step > described["step"]]  # the run went on from one before them
        for step in damaged + self.steps()[len(damaged) + self._keep :]:
            manifests.remove(self.path(step))

    def _require_same(self, saved: list, wanted: list, step: int) -> None:
        saved_by_name, wanted_by_name = ({leaf[0]: leaf[1:] for leaf in leaves} for leaves in (saved, wanted))
        for name in sorted(saved_by_name.keys() | wanted_by_name.keys()):
            if saved_by_name.get(name) != wanted_by_name.get(name):
                raise CheckpointError(
                    f"{self.path(step)} holds another kind of state: {name} is {_spell(saved_by_name.get(name))} there "
                    f"and {_spell(wanted_by_name.get(name))} in this run; use another workdir or delete this one"
                )

    def _cannot_write(self, path: Path, error: BaseException) -> CheckpointError:
        good = self.newest_good()
        reason = "the disk is full" if _is_full(error) else _first_line(error)
        last = f"the last good checkpoint is {good}" if good else "there is no earlier checkpoint"
        return CheckpointError(
            f"cannot write a checkpoint to {path}: {reason}; {last}; free space and run again, or name another workdir"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0][:300]


def to_json(extra: Any) -> dict[str, Any]:
    """The position of batches as a manifest keeps it.

    Raises:
      ConfigError: where it is neither JSON values nor bytes.
    """
    if isinstance(extra, bytes):
        return {"base64": base64.b64encode(extra).decode()}
    try:
        json.dumps(extra)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"get_state() of the batches gives {shown(extra)}, which is neither JSON values nor bytes ({error})"
        ) from error
    return {"json": extra}


def _from_json(packed: dict[str, Any]) -> Any:
    return base64.b64decode(packed["base64"]) if "base64" in packed else packed["json"]


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
