"""Reading many files, or many pieces of files, in one call: of an object store many at once."""

import contextlib
from collections.abc import Iterator, Sequence

from fsspec.core import url_to_fs

from tfdata import store_errors
from tfdata.storage import is_remote, read_bytes


def read_ranges(paths: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
    """Bytes start to end of each path, in the order asked for; of objects many at once."""
    if paths and is_remote(paths[0]):
        return _remote_ranges(paths[0], paths, starts, ends)
    found: list[bytes] = [b""] * len(paths)
    in_file_order = sorted(range(len(paths)), key=lambda place: (paths[place], starts[place]))
    with contextlib.ExitStack() as stack:
        file, opened = None, None
        for place in in_file_order:
            if paths[place] != opened:
                stack.close()
                file, opened = stack.enter_context(open(paths[place], "rb")), paths[place]
            file.seek(starts[place])
            found[place] = file.read(ends[place] - starts[place])
    return found


def read_many(paths: Sequence[str]) -> Iterator[bytes]:
    """The content of each path in order; of objects some hundred at once."""
    for start in range(0, len(paths), 256):
        some = paths[start : start + 256]
        yield from _remote_files_content(some[0], some) if is_remote(some[0]) else map(read_bytes, some)


@store_errors.told
def _remote_files_content(first: str, paths: Sequence[str]) -> list[bytes]:
    fs, _ = url_to_fs(first)
    names = [fs._strip_protocol(path) for path in paths]
    found = fs.cat(names, on_error="raise")
    return [found[name] for name in names] if isinstance(found, dict) else [found]


@store_errors.told
def _remote_ranges(first: str, paths: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
    fs, _ = url_to_fs(first)
    return fs.cat_ranges([fs._strip_protocol(path) for path in paths], list(starts), list(ends), on_error="raise")
