"""Looks at a training on its way, kept as files, so that a run which is killed and goes on has the earlier ones too."""

import os
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree

from core.errors import CheckpointError


class Looks:
    """Trees of arrays by step, a file each.

    They lie in the folder that :func:`core.fit.fit` is given, which no other run can use; a run that goes back to its
    last checkpoint writes what follows anew.
    """

    def __init__(self, folder: Path):
        self.folder = folder / "looks"

    def keep(self, step: int, tree: PyTree) -> None:
        """Writes a look, atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(step)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(fresh, "wb") as file:
                np.savez(file, *jax.tree.leaves(tree))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)

    def read(self, step: int, like: PyTree) -> PyTree:
        """The look at a step, as arrays in the structure of ``like``.

        Raises:
          CheckpointError: where there is none.
        """
        if not self._path(step).exists():
            raise CheckpointError(
                f"the training in {self.folder.parent} kept nothing of step {step}: delete that folder to train anew"
            )
        with np.load(self._path(step), allow_pickle=False) as file:
            structure = jax.tree.structure(like)
            return jax.tree.unflatten(structure, [file[f"arr_{i}"] for i in range(structure.num_leaves)])

    def _path(self, step: int) -> Path:
        return self.folder / f"{step}.npz"
