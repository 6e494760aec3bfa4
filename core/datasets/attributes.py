"""What is known about the products of the Amazon sequences: categories, brands, words of their titles."""

import collections
import gzip
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Int

from core.checks import Count, Natural, checked
from core.datasets import data_dir
from core.datasets.interactions import require_pointers, require_range
from core.datasets.raw import fields_of, one, read_npz, reading
from core.errors import DataError

FILES = {"amazon_beauty": "beauty.npz", "amazon_sports": "sports.npz"}
FIELDS = ("cat_indptr", "cat_ids", "brand_id")
_WORD = re.compile(r"[a-z][a-z]+")


class ItemAttributes(NamedTuple):
    """Attributes of items, which may have any number of them."""

    names: tuple[str, ...]
    """Kind and name, e.g. "category Nail Polish", "brand OPI", "word lacquer"."""
    present: Any
    """Items by attributes, a ``scipy.sparse.csr_matrix``, True where an item has one."""
    second_level: Int[np.ndarray, " items"]
    """The class of each item: its category of the second level, or the first where there is one only; -1 if none."""
    texts: tuple[str, ...]
    """A short text for each item."""


@checked
def load(name: str, explicit: Path | None = None, *, least: Count = 20) -> ItemAttributes:
    """The attributes of a data set that at least so many items have.

    Raises:
      DataError: where files are missing or damaged, or do not fit together.
    """
    if name not in FILES:
        raise DataError(f"there are no attributes of data set {name!r}; there are of {', '.join(FILES)}")
    path = one(name, FILES[name], explicit)
    if path is None:
        base = data_dir(explicit)
        where = base / name if base else "no data directory is set"
        raise DataError(f"{FILES[name]} with the attributes of {name} is missing ({where}); name it with --data-dir")
    arrays, where = read_npz(path, FIELDS), str(path)
    indptr, categories, brands = (arrays[field] for field in FIELDS)
    require_pointers(indptr, len(categories), f"{where}: field 'cat_indptr'")
    if len(indptr) != len(brands) + 1:
        raise DataError(f"{where}: field 'cat_indptr' is for {len(indptr) - 1} items, 'brand_id' for {len(brands)}")
    texts = _texts(path.with_name("item_text.txt.gz"), len(brands))
    known = _names(one(name, "attribute_names.json.gz", explicit))
    if known:
        require_range(categories, 1, max(known), f"{where}: field 'cat_ids'")
        require_range(brands, 0, max(known), f"{where}: field 'brand_id'")
    pairs = [(i, f"category {known.get(c, c)}") for i, c in zip(_owners(indptr), categories.tolist(), strict=True)]
    pairs += [(i, f"brand {known.get(b, b)}") for i, b in enumerate(brands.tolist()) if b]
    pairs += [(i, f"word {word}") for i, text in enumerate(texts) for word in set(_WORD.findall(text.lower()))]
    names, present = tabulated(pairs, len(brands), least)
    depth = np.diff(indptr)
    at = np.minimum(indptr[:-1] + (depth > 1), max(len(categories) - 1, 0))
    return ItemAttributes(names, present, np.where(depth > 0, categories[at], -1), texts)


@checked
def tabulated(pairs: list[tuple[int, str]], items: Natural, least: Count = 1) -> tuple[tuple[str, ...], Any]:
    """Names and the table of (item, attribute) pairs, of attributes which at least so many items have."""
    unique = sorted(set(pairs))
    counts = collections.Counter(name for _, name in unique)
    names = tuple(sorted(name for name, count in counts.items() if count >= least))
    number = {name: index for index, name in enumerate(names)}
    kept = [(item, number[name]) for item, name in unique if name in number]
    rows, columns = np.array(kept, int).reshape(-1, 2).T
    return names, scipy.sparse.csr_matrix((np.ones(len(rows), bool), (rows, columns)), (items, len(names)))


def _owners(indptr: np.ndarray) -> list[int]:
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)).tolist()


def _names(path: Path | None) -> dict[int, str]:
    """Names by number; none where there is no file, as for data sets whose categories were published without."""
    if path is None:
        return {}
    with reading(path, "a gzip file of JSON"):
        return {int(number): str(name) for number, name in fields_of(gzip.decompress(path.read_bytes())).items()}


def _texts(path: Path, items: int) -> tuple[str, ...]:
    with reading(path, "a gzip file of text"):
        lines = gzip.decompress(path.read_bytes()).decode().rstrip("\n").split("\n")
    if len(lines) != items:
        raise DataError(f"{path} has {len(lines)} lines for {items} items; get it again")
    return tuple(lines)
