"""Text to token ids: bytes where nothing else is at hand, or a checkpoint's own ``tokenizer.json``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from core.datasets import observed
from core.errors import ConfigError, DataError

SPECIALS = ("<pad>", "<bos>", "<eos>")


class Tokenizer(Protocol):
    """Text to ids and back."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text, nothing added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ones have none."""
        ...

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """One readable string per id."""
        ...


class ByteTokenizer:
    """UTF-8 bytes, and three special ids above them."""

    pad, bos, eos = 256, 257, 258
    vocab_size = 256 + len(SPECIALS)

    def encode(self, text: str) -> list[int]:
        """Bytes of the text."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the bytes among the ids; broken sequences show as replacement characters."""
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Latin-1 characters, or the special names."""
        return [chr(i) if i < 256 else SPECIALS[i - 256] for i in ids]


class FileTokenizer:
    """The tokenizer that a ``tokenizer.json`` describes.

    Raises:
      DataError: where the file is missing or damaged.
      ConfigError: where the library is not installed.
    """

    def __init__(self, folder: Path | str):
        path = self._path = Path(folder) / "tokenizer.json"
        try:
            import tokenizers
        except ModuleNotFoundError as error:
            raise ConfigError("reading tokenizer.json needs an optional package: pip install 'relic[lm]'") from error
        observed.note(path)
        try:
            self._inner = tokenizers.Tokenizer.from_str(path.read_text())
        except Exception as error:  # the library raises bare exceptions
            raise DataError(f"cannot read {path}: {error}; download it again") from error

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return self._inner.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, no special tokens added.

        Raises:
          DataError: where the file lacks what a text needs, such as the token for unknown words that it names.
        """
        try:
            return self._inner.encode(text, add_special_tokens=False).ids
        except Exception as error:  # as above
            raise DataError(f"{self._path} cannot encode this text: {error}; download it again") from error

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return self._inner.decode(list(ids))

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The text of every id alone."""
        return [self._inner.decode([i], skip_special_tokens=False) for i in ids]
