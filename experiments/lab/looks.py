"""Arrays kept at several steps of a training, as files: a run that was stopped and resumed has the earlier ones too."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import PyTree

from core.errors import CheckpointError
from core.workdir import replacing


class Looks:
    """Trees of arrays by step, a file each.

    They lie in the folder that :func:`core.fit.fit` is given, which no other run can use. A run that resumes at its
    last checkpoint writes those of later steps again.
    """

    def __init__(self, folder: Path):
        self.folder = folder / "looks"

    def keep(self, step: int, tree: PyTree) -> None:
        """Writes the arrays of a step, in every process of the run."""
        with replacing(self._path(step)) as file:
            np.savez(file, *jax.tree.leaves(tree))

    def read(self, step: int, like: PyTree) -> PyTree:
        """The arrays of a step in the structure of ``like``.

        Raises:
          CheckpointError: where there is none.
        """
        if not self._path(step).exists():
            raise CheckpointError(
                f"the training in {self.folder.parent} has no arrays of step {step}: delete that folder to train anew"
            )
        with np.load(self._path(step), allow_pickle=False) as file:
            structure = jax.tree.structure(like)
            return jax.tree.unflatten(structure, [file[f"arr_{i}"] for i in range(structure.num_leaves)])

    def _path(self, step: int) -> Path:
        return self.folder / f"{step}.npz"
