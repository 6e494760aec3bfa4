"""A store of vectors on disk: activations written once, block by block, and read in any order.

ArrayRecord files of one vector per record beside a JSON file with shape and type. The source has a length and indices,
so :class:`core.batches.GrainBatches` shuffles, batches and resumes it.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from array_record.python import (
    array_record_data_source,
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
)
from jaxtyping import Float

from core.datasets.raw import read_json
from core.errors import ConfigError, DataError

NAME, META = "vectors.array_record", "vectors.json"


def write_vectors(folder: Path | str, blocks: Iterable[jax.Array | np.ndarray]) -> int:
    """Writes the rows of all blocks; the store appears whole or not at all. Returns their number.

    Raises:
      DataError: where rows differ in width or type, there are none, or the disk does not take them.
    """
    folder, count, like = Path(folder), 0, None
    fresh = folder / f"{NAME}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / META).unlink(missing_ok=True)
        writer = array_record_module.ArrayRecordWriter(str(fresh), "group_size:1")
        for block in blocks:
            rows = np.asarray(block)
            like = like or (rows.shape[1:], rows.dtype.name)
            if rows.ndim != 2 or not rows.shape[1] or not _is_number(rows.dtype):
                raise DataError(f"{folder}: a block of shape {rows.shape} and type {rows.dtype} is no list of vectors")
            if (rows.shape[1:], rows.dtype.name) != like:
                raise DataError(f"{folder}: a block of shape {rows.shape} and type {rows.dtype} among rows of {like}")
            for row in rows:
                writer.write(row.tobytes())
            count += len(rows)
        writer.close()
        if like is None or not count:
            raise DataError(f"{folder}: there are no vectors to write")
        fresh.replace(folder / NAME)
        (folder / META).write_text(json.dumps({"count": count, "width": like[0][0], "dtype": like[1]}))
    except (OSError, RuntimeError) as error:  # ArrayRecord raises the latter
        raise DataError(f"cannot write {folder}: {error}; free space or name another folder") from error
    return count


def _is_number(dtype: np.dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.number)


class NoSuchVectorError(ConfigError, IndexError):
    """An index beyond a store of vectors."""


class Vectors(Sequence):
    """The vectors of a store, each read when asked for.

    Raises:
      DataError: where the store is missing, unfinished or damaged.
    """

    def __init__(self, folder: Path | str):
        folder = self._folder = Path(folder)
        try:
            meta = read_json(folder / META, "write it again")
            self.shape, self.dtype = (int(meta["count"]), int(meta["width"])), jnp.dtype(meta["dtype"])
            if min(self.shape) < 1 or not _is_number(self.dtype):
                raise ValueError(f"vectors of type {self.dtype} and shape {self.shape}")
            self._source = array_record_data_source.ArrayRecordDataSource(str(folder / NAME))
            found = len(self._source)
        except DataError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
            raise DataError(f"{folder} is no whole store of vectors ({error}); write it again") from error
        if found != self.shape[0]:
            raise DataError(f"{folder} has {found} vectors, its {META} says {self.shape[0]}; write it again")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index) -> Float[np.ndarray, " d"]:
        if not -len(self) <= index < len(self):
            raise NoSuchVectorError(f"vector {index} of {self._folder}, which has {len(self)}")
        try:
            record = self._source[int(index) % len(self)]
        except (OSError, ValueError, RuntimeError, IndexError) as error:
            raise DataError(
                f"{self._folder}: vector {index} cannot be read ({error}); write the store again"
            ) from error
        if len(record) != self.shape[1] * self.dtype.itemsize:
            raise DataError(f"{self._folder}: vector {index} has {len(record)} bytes; write the store again")
        return np.frombuffer(record, self.dtype)
