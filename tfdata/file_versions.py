"""Which version of a file is there: told for many files at once, so that a job notices what was changed under it."""

import contextlib
import dataclasses
import os
import posixpath
from collections.abc import Iterable

from fsspec.core import url_to_fs

from tfdata import store_errors
from tfdata.storage import is_remote

# What file systems call the thing that changes with a file's content, the surest first.
_VERSION_KEYS = ("generation", "etag", "ETag", "md5Hash", "mtime", "updated", "LastModified", "created")


@dataclasses.dataclass(frozen=True)
class FileVersion:
    """A file's size, and what changes with its content: a time, an object's generation; "" where a store tells none."""

    num_bytes: int
    version: str


def file_versions(paths: Iterable[str]) -> dict[str, FileVersion]:
    """The versions of those files that are there; of objects by listing their folders, not one request for each."""
    found, listings = {}, {}
    for path in paths:
        if not is_remote(path):
            with contextlib.suppress(OSError):
                status = os.stat(path)
                found[path] = FileVersion(status.st_size, f"mtime {status.st_mtime_ns}")
            continue
        folder, name = path.rsplit("/", 1)
        if folder not in listings:
            listings[folder] = _listing(folder)
        if entry := listings[folder].get(name):
            mark = next((f"{key} {entry[key]}" for key in _VERSION_KEYS if entry.get(key)), "")
            found[path] = FileVersion(entry["size"], mark)
    return found


@store_errors.told
def _listing(folder: str) -> dict[str, dict]:
    """What the store says of each file in a folder, by base name; {} where there is no such folder."""
    fs, name = url_to_fs(folder)
    fs.invalidate_cache()
    try:
        entries = fs.ls(name, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {posixpath.basename(entry["name"]): entry for entry in entries if entry["type"] == "file"}
