"""Prepared data sets where the disk is full."""

import types

import pytest

from core.datasets.prepared import prepared
from core.errors import DataError


def test_a_full_disk_is_said_with_its_place_and_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("RELIC_CACHE", str(tmp_path))
    raw = tmp_path / "raw"
    raw.write_text("a b")

    def full():
        raise RuntimeError("write() failed: No space left on device")

    with pytest.raises(DataError, match=r"cannot be written .*No space left.* RELIC_CACHE"):
        prepared(lambda **options: types.SimpleNamespace(download_and_prepare=full), [raw])
