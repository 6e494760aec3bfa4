"""MNIST under its TFDS name and with its TFDS features, from the raw IDX files and without TensorFlow."""

import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8

from core.checks import Count, checked
from core.datasets.interactions import require_range
from core.datasets.prepared import prepared, source
from core.datasets.raw import Source, find, reading
from core.errors import DataError

Split = Literal["train", "test"]

ORIGIN = "https://storage.googleapis.com/cvdf-datasets/mnist"
SOURCES: dict[Split, tuple[Source, Source]] = {
    "train": (
        Source(
            f"{ORIGIN}/train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        Source(
            f"{ORIGIN}/train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
        ),
    ),
    "test": (
        Source(
            f"{ORIGIN}/t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        Source(
            f"{ORIGIN}/t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
        ),
    ),
}
FOLDERS = ("mnist_t10k",)
"""Further folders of the data directory which may hold the files of a split."""
SIDE, CLASSES = 28, 10
_UNSIGNED_BYTE = 8
"""The code of uint8 in the third byte of an IDX file."""


class Digits(NamedTuple):
    """Images and what they show."""

    images: UInt8[np.ndarray, "examples 28 28 1"]
    labels: Int[np.ndarray, " examples"]


class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """One split of MNIST, as that is what the raw files come in."""

    name = "mnist"
    VERSION = tfds.core.Version("3.0.1")

    def __init__(self, *, split: Split, raw: list[Path], **options: Any):
        self._split, self._raw = split, raw
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Tensor(shape=(SIDE, SIDE, 1), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
        return tfds.core.DatasetInfo(
            builder=self,
            description="MNIST: 70,000 handwritten digits, 60,000 for training and 10,000 for test",
            homepage="https://www.tensorflow.org/datasets/catalog/mnist",
            license="CC BY-SA 3.0 (as commonly stated)",
            citation="LeCun, Cortes, Burges: The MNIST database of handwritten digits, 1998",
            features=tfds.features.FeaturesDict(
                {"image": image, "label": tfds.features.ClassLabel(num_classes=CLASSES)}
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager
        images, labels = parse(self._raw)
        records = enumerate(zip(images, labels.tolist(), strict=True))
        return {self._split: ((i, {"image": image, "label": label}) for i, (image, label) in records)}

    def _generate_examples(self) -> Iterator:
        raise NotImplementedError("records come with the split")


@checked
def data_source(split: Split, data_dir: Path | None = None) -> Any:
    """The examples of a split as ``{"image", "label"}``, for :class:`core.batches.GrainBatches`.

    Raises:
      DataError: for files that are nowhere to be had, damaged or not what they should be.
    """
    return source(prepared(lambda **options: Mnist(split=split, **options), locate(split, data_dir)), split)


@checked
def load(split: Split, data_dir: Path | None = None) -> Digits:
    """All of a split, in the order of the raw files.

    Raises:
      DataError: as :func:`data_source`.
    """
    return parse(locate(split, data_dir))


@checked
def locate(split: Split, data_dir: Path | None = None) -> list[Path]:
    """The files of images and labels; see :func:`core.datasets.raw.find`."""
    plain = [published.name.removesuffix(".gz") for published in SOURCES[split]]
    return find("mnist", plain, SOURCES[split], data_dir, folders=FOLDERS)


def parse(paths: list[Path]) -> Digits:
    """The validated contents of a file of images and a file of labels."""
    images, labels = read_idx(paths[0], dimensions=3), read_idx(paths[1], dimensions=1)
    if not len(images) or images.shape[1:] != (SIDE, SIDE):
        raise DataError(f"{paths[0]}: field 'images' has shape {images.shape}, not (n, {SIDE}, {SIDE}) with n > 0")
    if len(labels) != len(images):
        raise DataError(f"{paths[1]}: {len(labels)} labels for the {len(images)} images of {paths[0]}; get both again")
    require_range(labels, 0, CLASSES - 1, f"{paths[1]}: field 'labels'")
    return Digits(images[..., None], labels.astype(np.int32))


@checked
def read_idx(path: Path, dimensions: Count) -> UInt8[np.ndarray, "..."]:
    """An array of bytes from an IDX file, compressed or not.

    Raises:
      DataError: where the file is missing, damaged, or its header does not fit.
    """
    with reading(path, "an IDX file"):
        body = path.read_bytes()
        body = gzip.decompress(body) if path.suffix == ".gz" else body
    start = 4 * (1 + dimensions)
    if body[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)) or len(body) < start:
        raise DataError(
            f"{path}: the header {body[:4].hex()} is not that of {dimensions}-dimensional bytes; get it again"
        )
    shape = tuple(np.frombuffer(body, ">i4", dimensions, offset=4).tolist())
    if min(shape) < 0 or len(body) - start != math.prod(shape):
        raise DataError(
            f"{path}: {len(body) - start} bytes follow the header, which says {shape}: a cut file; get it again"
        )
    return np.frombuffer(body, np.uint8, offset=start).reshape(shape)
