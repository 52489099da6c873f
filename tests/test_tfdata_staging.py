"""tfdata.staging: copies are fetched once, changes are noticed, torn copies never stand."""

import pathlib
import threading

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tfdata import staging, storage


@pytest.fixture
def fetched(monkeypatch):
    """Names of files as they are fetched from an empty store in memory (memory://)."""
    names = []
    get_file = MemoryFileSystem.get_file

    def noted(self, name, target, **options):
        names.append(name.rsplit("/", 1)[-1])
        return get_file(self, name, target, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", noted)
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    return names


def stored(contents):
    """memory:// paths of files with these contents."""
    for name, content in contents.items():
        storage.write_bytes(f"memory://data/{name}", content)
    return [f"memory://data/{name}" for name in contents]


def whole_files(directory):
    return {path.relative_to(directory) for path in pathlib.Path(directory).rglob("*") if path.is_file()}


def test_the_second_time_nothing_is_fetched_and_a_changed_file_anew(fetched, tmp_path):
    contents = {f"shard-{index}": bytes([index]) * 1000 for index in range(40)}
    paths = stored(contents)
    copies = staging.stage(paths, str(tmp_path))
    assert [pathlib.Path(copy).read_bytes() for copy in copies] == list(contents.values())
    assert [pathlib.Path(copy).name for copy in copies] == list(contents)
    assert sorted(fetched) == sorted(contents)
    assert staging.stage(paths, str(tmp_path)) == copies and len(fetched) == 40
    stored({"shard-7": b"other"})
    again = staging.stage(paths, str(tmp_path))
    assert fetched[40:] == ["shard-7"]
    assert pathlib.Path(again[7]).read_bytes() == b"other" and again[:7] + again[8:] == copies[:7] + copies[8:]
    assert pathlib.Path(copies[7]).read_bytes() == bytes([7]) * 1000  # for a process that is reading it still


def test_files_of_one_name_in_two_folders_are_kept_apart(fetched, tmp_path):
    paths = stored({"a/shard": b"a", "b/shard": b"b"})
    assert [pathlib.Path(copy).read_bytes() for copy in staging.stage(paths, str(tmp_path))] == [b"a", b"b"]


def test_local_paths_and_no_directory_are_passed_through(fetched, tmp_path):
    (remote,) = stored({"shard": b"x"})
    assert staging.stage(["/some/shard", remote], None) == ["/some/shard", remote]
    local, copy = staging.stage(["/some/shard", remote], str(tmp_path))
    assert local == "/some/shard" and pathlib.Path(copy).read_bytes() == b"x"
    with pytest.raises(ValueError, match="must be a directory on a local disk"):
        staging.stage([remote], "memory://cache")


def test_two_at_once_end_with_one_whole_copy(fetched, tmp_path, monkeypatch):
    paths = stored({"shard": b"x" * 1000})
    both_fetching, one_at_a_time = threading.Barrier(2, timeout=10), threading.Lock()
    get_file = MemoryFileSystem.get_file

    def together(self, *args, **options):
        both_fetching.wait()
        with one_at_a_time:  # readers of a file in this store share one place in it
            return get_file(self, *args, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", together)
    results = []
    threads = [threading.Thread(target=lambda: results.append(staging.stage(paths, str(tmp_path)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2 and results[0] == results[1]
    assert pathlib.Path(results[0][0]).read_bytes() == b"x" * 1000 and len(whole_files(tmp_path)) == 1


def test_a_file_changed_or_cut_off_while_it_is_fetched_is_refused(fetched, tmp_path, monkeypatch):
    paths = stored({"first": b"x" * 1000, "second": b"y" * 1000})
    get_file = MemoryFileSystem.get_file

    def changed(self, name, target, **options):
        get_file(self, name, target, **options)
        if name.endswith("second"):
            stored({"second": b"z" * 1000})

    monkeypatch.setattr(MemoryFileSystem, "get_file", changed)
    with pytest.raises(OSError, match="memory://data/second was changed while it was copied"):
        staging.stage(paths, str(tmp_path))

    def cut_off(self, name, target, **options):
        pathlib.Path(target).write_bytes(b"y")
        raise ConnectionResetError("the connection was reset")

    monkeypatch.setattr(MemoryFileSystem, "get_file", cut_off)
    with pytest.raises(OSError, match="reset"):
        staging.stage(paths[1:], str(tmp_path))
    monkeypatch.setattr(MemoryFileSystem, "get_file", lambda self, name, target: pathlib.Path(target).write_bytes(b"y"))
    with pytest.raises(OSError, match="of memory://data/second only 1 of 1,000 bytes came"):
        staging.stage(paths[1:], str(tmp_path))
    assert {path.name for path in whole_files(tmp_path)} <= {"first"}


def test_a_missing_file_is_named(fetched, tmp_path):
    stored({"shard": b"x"})
    for path in ("memory://data/gone", "memory://nowhere/gone"):
        with pytest.raises(FileNotFoundError, match=path):
            staging.stage([path], str(tmp_path))
