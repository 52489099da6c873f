"""Which recordings there are and what is known of each before it is opened: a folder per class, a glob, or a CSV."""

import csv
import dataclasses
import difflib
import io
import posixpath
from collections.abc import Iterable, Mapping

from tfdata import storage
from tfdata.file_versions import file_versions
from tfdata.spec import SPLIT_NAMES, DatasetError

_GLOB_CHARACTERS = "*?["


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """One audio file to prepare.

    Attributes:
      path: where it is, local or gs://.
      name: the same relative to the input; stored in records, and what rejects are called by.
      label: class name; None where it stands outside a class folder, which is a reject.
      group: recordings of one group never stand in two splits; by default each is its own.
      split: "train", "validation" or "test" where the manifest fixes it.
      metadata: the manifest's other columns.
      num_bytes: size of the file; 0 where it is not there.
      version: changes when the file does, so that a job that goes on after an interruption notices another one.
    """

    path: str = dataclasses.field(compare=False)  # the same recording may be reached by another way
    name: str
    label: str | None
    group: str
    split: str | None = None
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    num_bytes: int = 0
    version: str | None = None


def find_recordings(
    *, input_path: str | None, manifest: str | None, group: str | None, classes: tuple[str, ...]
) -> list[Recording]:
    """List the recordings, sorted by name.

    Args:
      input_path: a directory with a folder for each class (nested folders allowed), or a glob, where the folder a file
        stands in is its class. With `manifest`, the directory its paths are relative to (by default its own).
      manifest: a CSV with columns path and label, optionally split, and any others.
      group: a manifest column.
      classes: the labels allowed; () allows all.
    Raises:
      DatasetError: nothing there, no recording found, a column missing, an unknown class or split name, a path twice.
    """
    if manifest:
        recordings = _from_manifest(manifest, root=input_path or storage.parent(manifest) or ".", group=group)
        where = manifest
    elif input_path:
        if group:
            raise DatasetError(
                f"--group={group} names a manifest column: give --manifest, a CSV with path, label and {group}"
            )
        is_glob = any(character in input_path for character in _GLOB_CHARACTERS) and not storage.is_directory(
            input_path
        )
        recordings = list(_from_glob(input_path) if is_glob else _from_folder(input_path))
        where = input_path
    else:
        raise DatasetError("no input: give --input (a folder for each class, or a glob) or --manifest (a CSV)")
    if not any(recording.label for recording in recordings):
        raise DatasetError(
            f"no recordings found in {where}: expected a folder for each class with audio files in it, "
            "or a manifest with columns path and label"
        )
    _check_labels(recordings, classes, where)
    versions = file_versions(recording.path for recording in recordings)
    recordings = [
        dataclasses.replace(recording, num_bytes=file.num_bytes, version=file.version)
        if (file := versions.get(recording.path))
        else recording
        for recording in recordings
    ]
    return sorted(recordings, key=lambda recording: recording.name)


def _from_folder(directory: str) -> Iterable[Recording]:
    if not storage.is_directory(directory):
        raise DatasetError(f"--input={directory} does not exist or is not a directory")
    for name in storage.walk_files(directory):
        label = name.split("/")[0] if "/" in name else None
        yield Recording(path=storage.join(directory, name), name=name, label=label, group=name)


def _from_glob(pattern: str) -> Iterable[Recording]:
    paths = storage.glob(pattern)
    if not paths:
        raise DatasetError(f"--input={pattern} matches no files")
    # Names are relative to the folder above the class folders, whatever absolute place that is.
    root = posixpath.commonpath([storage.parent(storage.parent(path)) for path in paths])
    if storage.is_remote(pattern):  # commonpath drops a slash of gs://
        root = root.replace(":/", "://", 1)
    for path in paths:
        name = path[len(root) :].lstrip("/")
        yield Recording(path=path, name=name, label=posixpath.basename(storage.parent(path)) or None, group=name)


def _from_manifest(manifest: str, *, root: str, group: str | None) -> list[Recording]:
    if not storage.exists(manifest) or storage.is_directory(manifest):
        raise DatasetError(f"--manifest={manifest} does not exist or is not a file")
    try:
        text = storage.read_bytes(manifest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{manifest} is not UTF-8 text ({error}): save it as CSV in UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DatasetError(f"{manifest} line {reader.line_num} is not CSV ({error}): look for a stray quote") from error
    columns = reader.fieldnames or []
    for column in columns:
        if not column or columns.count(column) > 1:
            raise DatasetError(
                f"{manifest} has {'two columns ' + repr(column) if column else 'a column without a name'}: "
                "give each column a name of its own"
            )
    for column in ["path", "label"] + ([group] if group else []):
        if column not in columns:
            raise DatasetError(f"{manifest} has no column {column!r}; its columns are: {', '.join(columns) or 'none'}")
    metadata_columns = [column for column in columns if column not in ("path", "label", "split")]
    recordings, seen = [], {}
    for line, row in rows:
        if None in row or None in row.values():
            raise DatasetError(f"{manifest} line {line} has another number of fields than the header ({len(columns)})")
        path, label, split = row["path"], row["label"].strip(), row.get("split", "").strip()
        if not path or not label:
            raise DatasetError(f"{manifest} line {line} has an empty {'label' if path else 'path'}")
        if split and split not in SPLIT_NAMES:
            raise DatasetError(
                f"{manifest} line {line} has split {split!r}, expected one of {', '.join(SPLIT_NAMES)}"
                f"{_nearest(split, SPLIT_NAMES)}"
            )
        if path in seen:
            raise DatasetError(
                f"{manifest} line {line} names {path} again (first on line {seen[path]}): keep one of them"
            )
        seen[path] = line
        recordings.append(
            Recording(
                path=path if storage.is_remote(path) or path.startswith("/") else storage.join(root, path),
                name=path,
                label=label,
                group=row[group] if group and row[group].strip() else path,
                split=split or None,
                metadata={column: row[column] for column in metadata_columns},
            )
        )
    return recordings


def _check_labels(recordings: list[Recording], classes: tuple[str, ...], where: str) -> None:
    for recording in recordings:
        label = recording.label
        if label is None:
            continue
        if "\n" in label or "\r" in label:
            raise DatasetError(f"the class name {label!r} in {where} contains a line break: rename it")
        if classes and label not in classes:
            raise DatasetError(
                f"unknown class {label!r} for {recording.name} in {where}: --classes allows "
                f"{', '.join(classes)}{_nearest(label, classes)}"
            )
    labels = {recording.label for recording in recordings} - {None}
    if len(labels) < 2:
        raise DatasetError(f"{where} has only one class, {min(labels)!r}: a classifier needs two or more")
    missing = set(classes) - labels
    if missing:
        raise DatasetError(f"{where} has no recordings of {', '.join(sorted(missing))}, which --classes names")


def _nearest(word: str, words: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
