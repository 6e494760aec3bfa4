"""The files of a folder of checkpoints: what they are called, the manifests that vouch for them, and their removal.

A checkpoint is a folder ``step_00000100`` and a file ``step_00000100.json``, the manifest, which holds the size and
checksum of every file in the folder, and its own. Nothing is removed but what these names and manifests show to be a
checkpoint of ours, and no link is followed.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.checks import Natural, checked
from core.errors import CheckpointError
from core.workdir import write_atomically

logger = logging.getLogger(__name__)

_STEP = re.compile(r"step_(\d{8,})")
_UNFINISHED = re.compile(r"\.step_\d{8,}\.json\.[0-9a-f]+|step_\d{8,}\.orbax-checkpoint-tmp.*|\.step_\d{8,}\.removed")
"""A manifest being written, a folder that Orbax writes, and one being removed."""
_ORBAX = re.compile(r"_\w+|manifest\.ocdbt|commit_success\.txt|array_metadatas|d|ocdbt\.process_\d+")
"""What Orbax puts into the folder of a checkpoint."""
_FIRST_LEAF = b"leaf_00000"
"""What our states begin with in Orbax's own list of contents."""


@checked
def folder_of(folder: Path, step: Natural) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step_{step:08d}"


def manifest_of(path: Path) -> Path:
    """The manifest beside a checkpoint."""
    return path.with_name(path.name + ".json")


def steps(folder: Path) -> list[int]:
    """Steps with a manifest, newest first; not yet verified."""
    found = (_step_of(path.stem) for path in folder.glob("step_*.json"))
    return sorted((step for step in found if step is not None), reverse=True)


def _step_of(name: str) -> int | None:
    match = _STEP.fullmatch(name)
    return int(match[1]) if match and folder_of(Path(), int(match[1])).name == name else None


def write(path: Path, described: Mapping[str, Any]) -> None:
    """Ends a save: from now on the folder is a checkpoint.

    Raises:
      OSError: where it cannot be written.
    """
    text = json.dumps({**described, "files": checksums(path)})
    write_atomically(manifest_of(path), f"{_digest(text.encode())}\n{text}")


def read(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint.

    Raises:
      OSError: where it cannot be read.
      ValueError: where it is damaged, or that of another step.
    """
    digest, _, text = manifest_of(path).read_bytes().partition(b"\n")
    if digest != _digest(text).encode():
        raise ValueError("its manifest is damaged")
    manifest = json.loads(text)
    fields = {"step": int, "leaves": list, "extra": dict, "files": dict}
    if not isinstance(manifest, dict) or any(not isinstance(manifest.get(name), kind) for name, kind in fields.items()):
        raise ValueError("its manifest is none of ours")
    if manifest["step"] != _step_of(path.name):
        raise ValueError(f"it is the checkpoint of step {manifest['step']} under another name")
    return manifest


def verified(path: Path) -> dict[str, Any] | None:
    """The manifest of an undamaged checkpoint; None, with a warning, for a damaged one."""
    try:
        manifest = read(path)
        found, expected = checksums(path), manifest["files"]
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("checkpoint %s cannot be read (%s); trying the one before it", path, error)
        return None
    wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if wrong:
        logger.warning("checkpoint %s is damaged (%s); trying the one before it", path, ", ".join(wrong))
        return None
    return manifest


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def checksums(folder: Path) -> dict[str, list]:
    """Size and digest of every file below a folder; links are no files.

    Raises:
      OSError: where one cannot be read or there are none.
    """
    sums = {}
    for name in _files(folder):
        with open(folder / name, "rb") as file:
            digest = hashlib.file_digest(file, hashlib.blake2b).hexdigest()
        sums[name] = [(folder / name).stat().st_size, digest]
    if not sums:
        raise FileNotFoundError(f"no files in {folder}")
    return sums


def _files(folder: Path) -> list[str]:
    if folder.is_symlink():
        return []
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    )


def require_own(folder: Path) -> None:
    """Refuses a folder of checkpoints that is a link, or holds what no run has put there.

    Hidden files that are none of ours (of a desktop, or of a network file system) are left alone.

    Raises:
      CheckpointError: names what it is.
    """
    if folder.is_symlink():
        raise CheckpointError(f"{folder} is a link, and no checkpoints are kept behind one; name the folder itself")
    if not folder.exists():
        return
    foreign = [name for path in sorted(folder.iterdir()) for name in _foreign(path)]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise CheckpointError(
            f"{folder} holds what no run has put there: {', '.join(foreign[:3])}{more}; checkpoints come and go in "
            "this folder: move that elsewhere, or name another workdir"
        )


def _foreign(path: Path) -> list[str]:
    """What of an entry is none of ours, by its name in the folder of checkpoints."""
    if _UNFINISHED.fullmatch(path.name) and not path.is_symlink():
        return []
    if path.suffix == ".json" and _step_of(path.stem) is not None and path.is_file() and not path.is_symlink():
        return [] if _is_manifest(path) else [path.name]
    if _step_of(path.name) is not None and path.is_dir() and not path.is_symlink():
        return [f"{path.name}/{name}" for name in _others_in(path)] if _is_checkpoint(path) else [path.name]
    return [] if path.name.startswith(".") else [path.name]


def _is_manifest(path: Path) -> bool:
    """Whether a file begins as our manifests do, or is the damaged one of a folder beside it."""
    try:
        read(path.with_suffix(""))
    except (OSError, ValueError, RecursionError):
        return _is_damaged_manifest(path) and path.with_suffix("").is_dir()
    return True


def _is_damaged_manifest(path: Path) -> bool:
    """Ours begin with a checksum, so that as a whole they are not JSON."""
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return True
    return False


def _is_checkpoint(path: Path) -> bool:
    """Whether Orbax wrote a folder with a state of ours: by its manifest, or by what is in it."""
    if manifest_of(path).is_file() and _is_manifest(manifest_of(path)):
        return True
    try:
        return _FIRST_LEAF in (path / "_METADATA").read_bytes()
    except OSError:
        return False


def _others_in(path: Path) -> list[str]:
    """Names in the folder of a checkpoint that its manifest does not list; without one, that Orbax does not use."""
    try:
        listed = read(path)["files"]
    except (OSError, ValueError, RecursionError):
        return sorted(entry.name for entry in path.iterdir() if not _ORBAX.fullmatch(entry.name))
    return [name for name in _files(path) if name not in listed]


def clean(folder: Path) -> None:
    """Removes what interrupted saves and removals left behind, of a folder that is ours."""
    finished = {folder_of(folder, step).name for step in steps(folder)}
    for path in list(folder.iterdir()) if folder.exists() else ():
        if _UNFINISHED.fullmatch(path.name):
            _discard(path)
        elif _step_of(path.name) is not None and path.name not in finished:
            remove(path)


def remove(path: Path) -> None:
    """Removes a checkpoint; files in its folder that are none of it stay, with a warning."""
    if path.is_symlink() or (path.is_dir() and not _is_checkpoint(path)):
        logger.warning("%s is no checkpoint of this run and is left as it is", path)
        return
    others = _others_in(path) if path.is_dir() else []
    if others:
        logger.warning("%s holds other files (%s), which are left there", path, ", ".join(others))
        _remove_listed(path)
    manifest_of(path).unlink(missing_ok=True)
    if path.is_dir() and not others:
        aside = path.with_name(f".{path.name}.removed")  # at one blow, so that what a kill leaves is known as ours
        _discard(aside)
        path.rename(aside)
        _discard(aside)


def _remove_listed(path: Path) -> None:
    try:
        listed = read(path)["files"]
    except (OSError, ValueError, RecursionError):
        return
    for name in set(listed) & set(_files(path)):
        (path / name).unlink()
    for below, _, _ in os.walk(path, topdown=False):
        if not os.listdir(below):
            os.rmdir(below)


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
