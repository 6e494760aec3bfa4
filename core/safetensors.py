"""Folders of a safetensors file and a ``cfg.json``: how sparse dictionaries and other small models are exchanged."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core.datasets import observed
from core.datasets.raw import read_json
from core.errors import ConfigError, DataError


def save_folder(folder: Path | str, tensors: Mapping[str, np.ndarray], cfg: Mapping[str, Any], file: str) -> Path:
    """Writes ``folder/<file>`` and ``folder/cfg.json``, each whole or not at all.

    Raises:
      DataError: where they cannot be written.
    """
    folder, library = Path(folder), _library()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            library.save_file({n: np.ascontiguousarray(a) for n, a in tensors.items()}, str(Path(fresh) / file))
            (Path(fresh) / "cfg.json").write_text(json.dumps(dict(cfg), indent=1) + "\n")
            for name in (file, "cfg.json"):
                (Path(fresh) / name).replace(folder / name)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error}; free space or name another folder") from error
    return folder


def load_folder(folder: Path | str, file: str | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and ``cfg.json`` of a folder.

    Args:
      folder: the folder.
      file: the safetensors file in it; the only one if None.

    Raises:
      DataError: where a file is missing or damaged.
    """
    folder, library = Path(folder), _library()
    names = [file] if file else sorted(path.name for path in folder.glob("*.safetensors"))
    if len(names) != 1:
        raise DataError(f"{folder} has {len(names)} safetensors files ({', '.join(names) or 'none'}); name one of them")
    for name in (names[0], "cfg.json"):
        observed.note(folder / name)
    try:
        tensors = library.load_file(str(folder / names[0]))
    except Exception as error:  # the library raises an exception of its own, derived from Exception only
        raise DataError(f"cannot read {folder / names[0]}: {error}; get it again") from error
    return tensors, read_json(folder / "cfg.json")


def _library() -> Any:
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ConfigError("safetensors files need an optional package: pip install 'relic[lm]'") from error
    return safetensors.numpy
