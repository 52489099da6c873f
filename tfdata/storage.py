"""Files on local disks and in object stores, by the same few calls (fsspec; gcsfs behind gs://).

Nothing here leaves a half-written file under its final name: local files are renamed into place, and an
object store makes an object visible only when its upload is complete. What an object store refuses is raised as an
OSError that names the path and says what to do.
"""

import contextlib
import io
import os
import posixpath
import tempfile
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from fsspec.core import url_to_fs

from tfdata import store_errors

_BLOCK_BYTES = 2**20
_NO_SUCH_RANGE = "416"  # HTTP's status
_TEMPORARY = ".melcache-tmp"


def is_remote(path: str) -> bool:
    return "://" in path


def join(directory: str, *names: str) -> str:
    return posixpath.join(str(directory), *names)


def parent(path: str) -> str:
    return posixpath.dirname(str(path).rstrip("/"))


@store_errors.told
def exists(path: str) -> bool:
    fs, name = url_to_fs(path)
    return fs.exists(name)


@store_errors.told
def is_directory(path: str) -> bool:
    fs, name = url_to_fs(path)
    try:
        return fs.info(name)["type"] == "directory"  # fs.isdir would answer "no" for a bucket that denies access
    except (FileNotFoundError, NotADirectoryError):
        return False


@store_errors.told
def list_names(directory: str) -> list[str]:
    """Base names of what stands directly in `directory`, sorted; [] if there is no such directory."""
    fs, name = url_to_fs(directory)
    fs.invalidate_cache()
    try:
        entries = fs.ls(name, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    own = name.rstrip("/")  # a console's "folder" is an empty object with the folder's own name
    return sorted(
        base for entry in entries if entry.rstrip("/") != own and (base := posixpath.basename(entry.rstrip("/")))
    )


def walk_files(directory: str) -> Iterator[str]:
    """Paths of all files below `directory`, relative to it, sorted. Linked folders are followed, each once.

    A folder that can't be listed is yielded itself, with a slash at its end, so that it does not vanish.
    """
    if is_remote(directory):
        yield from _remote_files(directory)
        return
    fs, root = url_to_fs(directory)
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


@store_errors.told
def _remote_files(directory: str) -> list[str]:
    fs, root = url_to_fs(directory)
    # A console's "folder" is an empty object whose name ends with a slash.
    return sorted(
        posixpath.relpath(found, root) for found in fs.find(root) if not found.endswith("/") and found != root
    )


def absolute(path: str) -> str:
    """The path as it can be found from another working directory, with ~ for the home directory."""
    return path if is_remote(path) else os.path.abspath(os.path.expanduser(path))


@store_errors.told
def glob(pattern: str) -> list[str]:
    """Files that match `pattern` (`**` for any depth), sorted, with the protocol the pattern has."""
    fs, name = url_to_fs(pattern)
    matches = [match for match in fs.glob(name) if fs.isfile(match)]
    return sorted(fs.unstrip_protocol(match) if is_remote(pattern) else match for match in matches)


@store_errors.told
def open_read(path: str) -> BinaryIO:
    """The file, open for reading; of a remote one, the first block comes with one request, and the rest by blocks."""
    fs, name = url_to_fs(path)
    if not is_remote(path):
        return fs.open(name, "rb")
    # gcsfs's own buffering asks for a few bytes at a time of what a decoder reads: over a hundred requests for a second
    # of sound, and two more before the first to learn its size.
    try:
        start = fs.cat_file(name, start=0, end=_BLOCK_BYTES)
    except Exception as error:
        if str(getattr(error, "code", "")) != _NO_SUCH_RANGE:
            raise
        start = b""  # an empty file has no range at all
    if len(start) < _BLOCK_BYTES:
        return io.BytesIO(start)
    return fs.open(name, "rb", cache_type="readahead", block_size=_BLOCK_BYTES)


@store_errors.told
def read_bytes(path: str) -> bytes:
    fs, name = url_to_fs(path)
    return fs.cat_file(name)


@store_errors.told
def read_range(path: str, start: int, end: int) -> bytes:
    fs, name = url_to_fs(path)
    return fs.cat_file(name, start=start, end=end)


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
            _upload(path, local.name)
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


@store_errors.told
def _upload(path: str, local: str) -> None:
    fs, name = url_to_fs(path)
    fs.put_file(local, name)


@store_errors.told
def write_bytes(path: str, data: bytes) -> None:
    """Write a whole file at once: it stands there complete, or not at all."""
    if is_remote(path):
        fs, name = url_to_fs(path)
        fs.pipe_file(name, data)
        return
    with open_write(path) as file:
        file.write(data)


@store_errors.told
def create(path: str, data: bytes) -> bool:
    """Write an object where there is none, as one step; False where there is one."""
    fs, name = url_to_fs(path)
    try:
        fs.pipe_file(name, data, mode="create")
    except FileExistsError:
        return False
    return True


def write_text(path: str, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


@store_errors.told
def move(source: str, target: str) -> None:
    """Move a file within one place."""
    if not is_remote(source):
        os.replace(source, target)
        return
    fs, name = url_to_fs(source)
    fs.copy(name, fs._strip_protocol(target))
    fs.rm_file(name)


@store_errors.told
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


@store_errors.told
def remove_tree(directory: str) -> None:
    fs, name = url_to_fs(directory)
    fs.invalidate_cache()
    if fs.exists(name):
        fs.rm(name, recursive=True)
