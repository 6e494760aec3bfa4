"""JSON that others may have damaged or forged: it is read into what was written, or refused in words.

What relic writes for itself ends with a digest of the text before it, so that a changed byte is noticed. Documents of
earlier versions have none, and are checked by their types alone. Names in a document are shown to people: what would
steer a terminal, or turn the direction of writing, is taken out when it is read.
"""

import hashlib
import json
import lzma
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from core.errors import DataError

DIGEST = "digest"
COMPRESSED = ".xz"
"""The end of the names of compressed files."""
LARGEST_UNPACKED = 1_000_000_000
_SEAL = re.compile(rb',\s*"digest": "([0-9a-f]{16})"\s*\}\s*$')
_SEAL_LENGTH = 80
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MAY_CONTROL = re.compile(rb"\\[ubfnrt]|[\x7f-\xff]")
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object",
          list: "a list", NoneType: "null"}  # fmt: skip

Kinds = Mapping[str, type | tuple[type, ...]]
"""Of each name in a document the types that its value may have; ``float`` takes whole numbers too."""


def sealed(text: str) -> str:
    """The text of a JSON object with a digest of itself as its last entry, on the last line that has one."""
    body = text.rstrip().removesuffix("}").rstrip()
    between = ",\n " if "\n" in body else ", "
    return f'{body}{between}"{DIGEST}": "{_digest(body.encode())}"}}' + text[len(text.rstrip()) :]


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]


def parsed(data: bytes) -> dict[str, Any]:
    """The JSON object that a text holds, without its digest and without control characters in its strings.

    Raises:
      DataError: what is wrong, as the end of a sentence.
    """
    seal = _SEAL.search(data, max(0, len(data) - _SEAL_LENGTH))
    if seal and _digest(data[: seal.start()]) != seal[1].decode():
        raise DataError("does not fit its digest: something in it was changed")
    try:
        document = json.loads(data.decode())
    except UnicodeDecodeError:
        raise DataError("is not UTF-8") from None
    except (ValueError, RecursionError):
        raise DataError("is no JSON") from None
    if not isinstance(document, dict):
        raise DataError(f"holds {described(document)} where an object is expected")
    if (document.pop(DIGEST, None) is None) == bool(seal):
        raise DataError("does not end with its digest")
    return plain(document) if _MAY_CONTROL.search(data) else document


def read(path: Path) -> dict[str, Any]:
    """The JSON object in a file, see :func:`parsed`.

    Raises:
      DataError: names the file and what is wrong.
    """
    try:
        return parsed(contents(path))
    except DataError as error:
        text = str(error)
        raise error if text.startswith(str(path)) else DataError(f"{path} {text}") from None


def contents(path: Path) -> bytes:
    """The bytes of a regular file, at its end or behind a link; unpacked where its name ends with :data:`COMPRESSED`.

    Raises:
      DataError: where there is none that can be read, or unpacked it is larger than :data:`LARGEST_UNPACKED`.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise DataError(f"{path} is no regular file")
        found = path.read_bytes()
        return _unpacked(path, found) if path.suffix == COMPRESSED else found
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _unpacked(path: Path, data: bytes) -> bytes:
    reader = lzma.LZMADecompressor()
    try:
        found = reader.decompress(data, LARGEST_UNPACKED)
    except lzma.LZMAError as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if not reader.eof:
        raise DataError(f"{path} is cut off, or larger than {LARGEST_UNPACKED:,} bytes when unpacked")
    return found


def plain(value: Any) -> Any:
    """A text without control characters; the same for all keys and strings of a JSON value."""
    if isinstance(value, str):
        return _CONTROLS.sub("", value)
    if isinstance(value, dict):
        return {plain(name): plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def fault(document: Mapping[str, Any], kinds: Kinds, optional: Kinds | None = None) -> str | None:
    """Which entry is missing or of another type, in words; None where all are as they should be.

    Args:
      document: what was read.
      kinds: of the entries that must be there.
      optional: of those that may be there.
    """
    for name, kind in kinds.items():
        if name not in document:
            return f"has no {name}"
        if not _is(document[name], kind):
            return _wrong(name, document[name], kind)
    for name, kind in (optional or {}).items():
        if name in document and not _is(document[name], kind):
            return _wrong(name, document[name], kind)
    return None


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if isinstance(value, bool):  # which Python counts among the integers
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and type(value) is int and abs(value) < 1 << 1023)


def _wrong(name: str, value: Any, kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return f"has {described(value)} as its {name}, not {' or '.join(_WORDS[each] for each in kinds)}"


def described(value: Any) -> str:
    """A value by its type in words."""
    return _WORDS.get(type(value), type(value).__name__)
