"""Files on local disks and in object stores, by the same few calls (fsspec; gcsfs behind gs://).

Nothing here leaves a half-written file under its final name: local files are renamed into place, and an
object store makes an object visible only when its upload is complete.
"""

import contextlib
import dataclasses
import os
import posixpath
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from fsspec.core import url_to_fs

_TEMPORARY = ".melcache-tmp"


def is_remote(path: str) -> bool:
    return "://" in path


def join(directory: str, *names: str) -> str:
    return posixpath.join(str(directory), *names)


def parent(path: str) -> str:
    return posixpath.dirname(str(path).rstrip("/"))


def exists(path: str) -> bool:
    fs, name = url_to_fs(path)
    return fs.exists(name)


def is_directory(path: str) -> bool:
    fs, name = url_to_fs(path)
    return fs.isdir(name)


def size(path: str) -> int:
    fs, name = url_to_fs(path)
    return fs.size(name)


@dataclasses.dataclass(frozen=True)
class FileVersion:
    """A file's size, and what changes when its content does: a modification time, or an object's generation."""

    num_bytes: int
    version: str


def file_versions(paths: Iterable[str]) -> dict[str, FileVersion]:
    """The versions of those files that are there; of objects by listing their folders, not one request for each."""
    found, remote = {}, {}
    for path in paths:
        if is_remote(path):
            remote.setdefault(parent(path), []).append(path)
            continue
        with contextlib.suppress(OSError):
            status = os.stat(path)
            found[path] = FileVersion(status.st_size, f"{status.st_size} bytes, {status.st_mtime_ns}")
    for folder, members in remote.items():
        fs, name = url_to_fs(folder)
        try:
            entries = {entry["name"]: entry for entry in fs.ls(name, detail=True)}
        except FileNotFoundError:
            continue
        for path in members:
            entry = entries.get(fs._strip_protocol(path))
            if entry and entry["type"] == "file":
                keys = ("generation", "md5Hash", "ETag", "etag", "mtime", "updated")
                mark = next((entry[key] for key in keys if entry.get(key)), "")
                found[path] = FileVersion(entry["size"], f"{entry['size']} bytes, {mark}")
    return found


def list_names(directory: str) -> list[str]:
    """Base names of what stands directly in `directory`, sorted; [] if there is no such directory."""
    fs, name = url_to_fs(directory)
    fs.invalidate_cache()
    try:
        entries = fs.ls(name, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(base for entry in entries if (base := posixpath.basename(entry.rstrip("/"))))


def walk_files(directory: str) -> Iterator[str]:
    """Paths of all files below `directory`, relative to it, sorted. Linked folders are followed, each once.

    A folder that can't be listed is yielded itself, with a slash at its end, so that it does not vanish.
    """
    fs, root = url_to_fs(directory)
    if is_remote(directory):
        yield from sorted(posixpath.relpath(found, root) for found in fs.find(root))
        return
    found, seen = [], set()

    def unreadable(error: OSError) -> None:
        found.append(os.path.relpath(error.filename, root) + "/")

    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=unreadable):
        real = os.path.realpath(folder)
        if real in seen:  # a link back into a folder already walked would never end
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        found.extend(os.path.relpath(os.path.join(folder, name), root) for name in files)
    yield from sorted(found)


def absolute(path: str) -> str:
    """The path as it can be found from another working directory."""
    return path if is_remote(path) else os.path.abspath(path)


def glob(pattern: str) -> list[str]:
    """Files that match `pattern` (`**` for any depth), sorted, with the protocol the pattern has."""
    fs, name = url_to_fs(pattern)
    matches = [match for match in fs.glob(name) if fs.isfile(match)]
    return sorted(fs.unstrip_protocol(match) if is_remote(pattern) else match for match in matches)


def open_read(path: str) -> BinaryIO:
    fs, name = url_to_fs(path)
    return fs.open(name, "rb")


def read_bytes(path: str) -> bytes:
    fs, name = url_to_fs(path)
    return fs.cat_file(name)


def read_range(path: str, start: int, end: int) -> bytes:
    return read_ranges([path], [start], [end])[0]


def read_ranges(paths: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
    """Bytes start to end of each path, in the order asked for; of objects many at once."""
    if paths and is_remote(paths[0]):
        fs, _ = url_to_fs(paths[0])
        return fs.cat_ranges([fs._strip_protocol(path) for path in paths], list(starts), list(ends), on_error="raise")
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


def read_text(path: str) -> str:
    return read_bytes(path).decode("utf-8")


def make_directory(directory: str) -> None:
    if not is_remote(directory):
        os.makedirs(directory, exist_ok=True)


@contextlib.contextmanager
def open_write(path: str) -> Iterator[BinaryIO]:
    """A file to write piece by piece: it stands there complete after the with block, or not at all."""
    if is_remote(path):
        with tempfile.NamedTemporaryFile() as local:
            yield local
            local.flush()
            fs, name = url_to_fs(path)
            fs.put_file(local.name, name)
        return
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}{_TEMPORARY}"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def write_bytes(path: str, data: bytes) -> None:
    """Write a whole file at once: it stands there complete, or not at all."""
    if is_remote(path):
        fs, name = url_to_fs(path)
        fs.pipe_file(name, data)
        return
    with open_write(path) as file:
        file.write(data)


def write_text(path: str, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def move(source: str, target: str) -> None:
    """Move a file within one place."""
    if not is_remote(source):
        os.replace(source, target)
        return
    fs, name = url_to_fs(source)
    fs.copy(name, fs._strip_protocol(target))
    fs.rm_file(name)


def remove(path: str) -> None:
    """Remove a file; nothing happens where there is none."""
    fs, name = url_to_fs(path)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(name)


def remove_temporaries(directory: str) -> None:
    """Remove what killed processes left of files they were writing below a local directory."""
    if not is_remote(directory):
        for folder, _, names in os.walk(directory):
            for name in names:
                if name.endswith(_TEMPORARY):
                    os.remove(os.path.join(folder, name))


def remove_tree(directory: str) -> None:
    fs, name = url_to_fs(directory)
    fs.invalidate_cache()
    if fs.exists(name):
        fs.rm(name, recursive=True)
