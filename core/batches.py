"""Batches that are functions of (seed, step): shuffled epochs on the device, or through Grain on the host."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol

import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree

from core.checks import Count, Natural, checked
from core.digest import of_arrays
from core.errors import ConfigError, DataError
from core.kinds import Range, shown
from core.learner import Stream, stream

_ROUNDS = 10
"""With 6, pairs of images are visibly uneven for 8 examples; from 8 on no test of 40,000 permutations tells."""
_LOOKED_AT = 256
"""Examples of a source that its digest looks at."""


@checked
def epoch_sampler(
    batch_size: Count, num_examples: Count | None = None
) -> Callable[[PyTree, Key[Array, ""], Int[Array, ""]], PyTree]:
    """A ``sample(data, key, step)`` for :func:`core.learner.with_sampler`: shuffled epochs of arrays on the device.

    Every epoch visits each example at most once, in an order of its own; the examples of the last partial batch of an
    epoch are left out of it. Nothing is carried from step to step and no permutation is stored.

    Args:
      batch_size: examples per batch.
      num_examples: draw from the first this many rows only, where the others are padding; from all if None.
    """

    def sample(data: PyTree, key: Key[Array, ""], step: Int[Array, ""]) -> PyTree:
        rows = common_length(data)
        size = rows if num_examples is None else num_examples
        if size > rows:
            raise ConfigError(f"{size} examples cannot be drawn from {rows}; lower num_examples")
        if batch_size > size:
            raise ConfigError(f"a batch of {batch_size} examples cannot be drawn from {size}; lower the batch size")
        epoch, index = jnp.divmod(step, size // batch_size)
        key = stream(key, Stream.EPOCHS, epoch)
        chosen = permuted(key, index * batch_size + jnp.arange(batch_size), size)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[chosen], data)

    return sample


def common_length(data: PyTree) -> int:
    """The common length of all leaves along axis 0."""
    sizes = {
        jax.tree_util.keystr(path, simple=True): np.shape(leaf)[:1]
        for path, leaf in jax.tree_util.tree_leaves_with_path(data)
    }
    if not sizes or len(set(sizes.values())) != 1 or () in sizes.values():
        raise DataError(f"all arrays must have one example per row, but their lengths are {sizes}")
    return next(iter(sizes.values()))[0]


@checked
def permuted(key: Key[Array, ""], index: Int[Array, " n"], size: Count) -> Int[Array, " n"]:
    """Where a random permutation of 0, ..., size - 1 sends each index, in constant memory.

    A Feistel network permutes the numbers of an even count of bits; walking its cycles from an index until it comes
    back below ``size`` permutes the numbers below ``size`` (Black and Rogaway, Ciphers with arbitrary finite domains,
    CT-RSA 2002).
    """
    half = max(1, -(-max(size - 1, 1).bit_length() // 2))
    mask = jnp.uint32((1 << half) - 1)
    round_keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def encrypt(value):
        left, right = value >> half, value & mask
        for k in range(_ROUNDS):
            left, right = right, left ^ (_mix(right ^ round_keys[k]) & mask)
        return (left << half) | right

    def walk(value):
        return jnp.where(value < size, value, encrypt(value))

    start = encrypt(index.astype(jnp.uint32))
    return jax.lax.while_loop(lambda value: jnp.any(value >= size), walk, start).astype(jnp.int32)


def _mix(value: Int[Array, "..."]) -> Int[Array, "..."]:
    """A bijective hash of 32 bits (the finaliser of MurmurHash3)."""
    value = (value ^ (value >> 16)) * jnp.uint32(0x85EBCA6B)
    value = (value ^ (value >> 13)) * jnp.uint32(0xC2B2AE35)
    return value ^ (value >> 16)


class RandomAccess(Protocol):
    """Examples by their place."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """One of them."""
        ...


class GrainBatches:
    """Shuffled, batched examples of a random-access source, through Grain; resumes at any batch exactly.

    Args:
      source: anything with ``len`` and indexing, e.g. ``tfds.data_source(...)["train"]``.
      batch_size: examples per batch of this process; incomplete batches are dropped.
      seed: of the shuffling; every epoch has an order of its own, the same in all processes.
      shard: this process's number and how many there are; JAX's own if None. All shards of an epoch are equally long,
        so that processes start each epoch at the same step and never hold the same example in one.
      threads: how many read ahead; the batches are the same for any number. 0 reads when a batch is asked for.

    Raises:
      ConfigError: where a number is out of range, or the source has no length or too few examples.
      DataError: (``next``) where an example is None, or does not fit into a batch with others.
    """

    @checked
    def __init__(
        self,
        source: RandomAccess,
        batch_size: Count,
        *,
        seed: Annotated[int, Range(0, 2**32 - 1)] = 0,
        shard: tuple[Natural, Count] | None = None,
        threads: Natural = 0,
    ):
        if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
            raise ConfigError(f"a source must have a length and indices, as a list has, not {shown(source)}")
        number, count = shard or (jax.process_index(), jax.process_count())
        if number >= count:
            raise ConfigError(f"shard {number} of {count}: shards are numbered from 0 to {count - 1}")
        size = len(source) // count
        if size < batch_size:
            raise ConfigError(f"a batch of {batch_size} examples cannot be drawn from {len(source)} in {count} shards")
        data = grain.MapDataset.source(_Examples(source)).seed(seed).shuffle()[number : size * count : count]
        data = data.batch(batch_size, drop_remainder=True).repeat(None)
        self._source, self._settings = source, {"seed": seed, "batch size": batch_size * count, "shards": count}
        self._iterator = iter(data.to_iter_dataset(grain.ReadOptions(num_threads=threads)))

    def __iter__(self) -> "GrainBatches":
        return self

    def __next__(self) -> PyTree:
        """The next batch: leaves stacked along a new axis 0."""
        try:
            return next(self._iterator)
        except (TypeError, ValueError, KeyError) as error:
            raise DataError(f"the examples do not fit into one batch: {error}; give all the same arrays") from error

    def identity(self) -> dict[str, Any]:
        """What batches these are, in JSON values: settings, and a digest of the examples.

        Of a source that is no array and has many examples, the digest is that of evenly spaced ones.
        """
        examples = len(self._source)
        chosen = np.unique(np.linspace(0, examples - 1, min(examples, _LOOKED_AT), dtype=int)).tolist()
        sample = self._source if isinstance(self._source, np.ndarray) else [self._source[i] for i in chosen]
        return {**self._settings, "examples": examples, "sha256": of_arrays(sample)}

    def get_state(self) -> dict[str, Any]:
        """The position, as JSON values."""
        return self._iterator.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position.

        Raises:
          ConfigError: where it is none of these batches.
        """
        try:
            self._iterator.set_state(state)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ConfigError(f"{shown(state)} is no position of these batches ({error!r})") from error


class _Examples(Sequence):
    """The examples of a source; Grain passes over those that are None, for ever where all are."""

    def __init__(self, source: RandomAccess):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        example = self._source[index]
        if example is None:
            raise DataError(f"example {index} is None; remove it from the source")
        return example
