"""Copies of remote files on a local disk, for readers that open local paths only, or open them again and again.

A copy stands at DIRECTORY/KEY/NAME, where the key is made of the file's address, version and size. So a file that was
not changed is fetched once, a changed one gets a copy of its own, and a copy that stands there is always whole. Nothing
is ever removed: throw the directory away when no run is using it.
"""

import concurrent.futures
import hashlib
import os
import uuid
from collections.abc import Mapping, Sequence

from fsspec.core import url_to_fs
from tqdm import tqdm

from tfdata import storage, store_errors
from tfdata.file_versions import FileVersion, file_versions

_PARALLEL_DOWNLOADS = 16


def stage(paths: Sequence[str], directory: str | None, *, show_progress: bool = False) -> list[str]:
    """Local paths with the content of `paths`: of remote ones a copy below `directory`, fetched where it isn't there.

    Several processes may stage the same files at once; each puts whole files in place by renaming.

    Args:
      paths: local or remote; local ones are returned as they are.
      directory: a local directory, made where it is not there. None returns all of `paths` as they are.
    Raises:
      ValueError: `directory` is not local, or the store tells no version of a file, so that changes would go unnoticed.
      FileNotFoundError: a remote file is missing; its message is the path.
      OSError: a file can't be fetched or was changed meanwhile, or the disk is full or not writable.
    """
    if directory is None:
        return list(paths)
    if storage.is_remote(directory):
        raise ValueError(f"--local_cache_dir={directory} must be a directory on a local disk")
    remote = [path for path in dict.fromkeys(paths) if storage.is_remote(path)]
    versions = _versions(remote)
    copies = {path: _copy_path(directory, path, versions[path]) for path in remote}
    missing = [path for path in remote if not os.path.exists(copies[path])]
    fetched = {path: f"{copies[path]}.{uuid.uuid4().hex}.tmp" for path in missing}
    try:
        _fetch(fetched, show_progress=show_progress)
        for path, file in _versions(missing).items():
            if file != versions[path]:
                raise OSError(f"{path} was changed while it was copied: start again when nothing writes to it")
            if (num_bytes := os.path.getsize(fetched[path])) != file.num_bytes:
                raise OSError(f"of {path} only {num_bytes:,} of {file.num_bytes:,} bytes came: start again")
            os.replace(fetched[path], copies[path])
    finally:
        for temporary in fetched.values():
            if os.path.exists(temporary):
                os.remove(temporary)
    return [copies.get(path, path) for path in paths]


def _versions(paths: Sequence[str]) -> dict[str, FileVersion]:
    versions = file_versions(paths)
    for path in paths:
        if path not in versions:
            raise FileNotFoundError(path)
        if not versions[path].version:
            raise ValueError(
                f"the store of {path} tells no version of it: copy it by other means, or leave out staging"
            )
    return versions


def _copy_path(directory: str, path: str, file: FileVersion) -> str:
    key = hashlib.sha256(repr((path, file.version, file.num_bytes)).encode()).hexdigest()[:24]
    return os.path.join(directory, key, path.rsplit("/", 1)[-1])


def _fetch(targets: Mapping[str, str], *, show_progress: bool) -> None:
    """Download each remote path to its local one, several at a time."""
    with (
        concurrent.futures.ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as threads,
        tqdm(total=len(targets), desc="fetch", unit=" files", disable=not (show_progress and targets)) as bar,
    ):
        downloads = [threads.submit(_fetch_one, path, target) for path, target in targets.items()]
        try:
            for download in concurrent.futures.as_completed(downloads):
                download.result()
                bar.update()
        finally:  # after the first failure the others need not begin
            for download in downloads:
                download.cancel()


@store_errors.told
def _fetch_one(path: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    fs, name = url_to_fs(path)
    fs.get_file(name, target)
