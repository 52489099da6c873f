"""tfdata.storage: remote files are read with few requests."""

import io

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tfdata import storage


@pytest.mark.parametrize("num_bytes", [0, 1, 2**20 - 1, 2**20, 3 * 2**20 + 7])
def test_a_remote_file_reads_as_it_was_written(num_bytes):
    content = bytes(range(251)) * (num_bytes // 251 + 1)
    storage.write_bytes("memory://folder/file", content[:num_bytes])
    with storage.open_read("memory://folder/file") as file:
        assert file.read(10) == content[: min(10, num_bytes)]
        file.seek(-min(5, num_bytes), io.SEEK_END)
        assert file.read() == content[:num_bytes][-5:]
    with pytest.raises(FileNotFoundError, match="memory://folder/gone: no such file or bucket"):
        storage.open_read("memory://folder/gone")


def test_an_empty_object_that_has_no_range_to_give_is_empty(monkeypatch):
    """As Google answers where a first block of an empty object is asked for."""

    class HttpError(Exception):
        code = 416

    def cat_file(*arguments, **options):
        raise HttpError

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    assert storage.open_read("memory://folder/empty").read() == b""
