"""The disk cache: what was used last stays, and its size is a bound."""

import os

import pytest

from framework.errors import UserError
from framework.stream.cache import DiskCache


def size(directory):
    return sum(file.stat().st_size for file in directory.iterdir())


def test_the_least_recently_used_goes_first(tmp_path):
    cache = DiskCache(tmp_path, limit=3000)
    for age, name in enumerate("abc"):
        cache.put(name, name.encode() * 1000)
        os.utime(tmp_path / name, (age, age))
    assert cache.get("a") == b"a" * 1000  # used just now
    cache.put("d", b"d" * 1500)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "d"]
    assert size(tmp_path) <= 3000
    assert cache.get("b") is None


def test_a_cache_left_by_an_earlier_process_is_used_and_counted(tmp_path):
    DiskCache(tmp_path, limit=3000).put("a", bytes(2000))
    os.utime(tmp_path / "a", (1, 1))
    cache = DiskCache(tmp_path, limit=3000)
    assert cache.get("a") == bytes(2000)
    os.utime(tmp_path / "a", (1, 1))
    cache.put("b", bytes(2000))
    assert [file.name for file in tmp_path.iterdir()] == ["b"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.remote\.cache: .*file/cache: Not a directory"):
        DiskCache(tmp_path / "file" / "cache", limit=1)
