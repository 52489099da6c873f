"""What `melcache doctor` looks at: this machine, what is installed on it, and a place for data."""

import dataclasses
import importlib.metadata
import io
import os
import platform
import shutil
import sys
import uuid
from collections.abc import Iterator

from fsspec.core import url_to_fs

from tfdata import storage, store_errors

_GIB_BYTES = 2**30
_CLIP_BYTES, _FEATURE_BYTES = 3_500, 28_000  # a clip and its features on disk, as float16, with their descriptions
_MIN_MEMORY_BYTES, _MIN_DISK_BYTES = 4 * _GIB_BYTES, 1 * _GIB_BYTES
_SUPPORTED_PYTHONS = ((3, 11), (3, 12))
# libsndfile's (format, encoding) by the name people know.
_AUDIO = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
          "aiff": ("AIFF", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III")}  # fmt: skip
_EXTRAS = {"beam": "prepare", "cpu": "cache and heads", "report": "report"}
_TENSORFLOWS = ("tensorflow-cpu", "tensorflow", "tensorflow-tpu")
_WEIGHTS = "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5"  # Keras's own name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at.

    Attributes:
      name: a few words.
      ok: whether it is as it should be.
      detail: what was found.
      fix: what to do, "" where nothing is to be done.
      required: whether nothing works without it, or it was asked for; else it matters for some commands only.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = False


def python() -> Iterator[Check]:
    ok = sys.version_info[:2] in _SUPPORTED_PYTHONS
    wanted = " or ".join(f"{major}.{minor}" for major, minor in _SUPPORTED_PYTHONS)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    yield Check(name="Python", ok=ok, detail=detail, fix="" if ok else f"install Python {wanted}", required=True)


def packages() -> Iterator[Check]:
    """The installed versions of what setup.py names, for all commands and for those that need an extra."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in importlib.metadata.requires("melcache") or []]
    except importlib.metadata.PackageNotFoundError:
        fix = "pip install -c constraints.txt '.[beam,cpu,report]'"
        yield Check(name="packages", ok=False, detail="melcache itself is not installed", fix=fix, required=True)
        return
    always = [requirement for requirement in wanted if not requirement.marker]
    yield _versions("packages for all commands", always, "pip install -c constraints.txt .", required=True)
    for extra, commands in _EXTRAS.items():
        of_extra = [r for r in wanted if r.marker and not r.marker.evaluate({"extra": ""})
                    and r.marker.evaluate({"extra": extra})]  # fmt: skip
        yield _versions(f"packages for {commands}", of_extra, f"pip install -c constraints.txt '.[{extra}]'")


def _versions(name: str, requirements: list, fix: str, *, required: bool = False) -> Check:
    found, wrong = [], []
    for requirement in requirements:
        # One build of TensorFlow stands for another; they exclude each other.
        names = _TENSORFLOWS if requirement.name in _TENSORFLOWS else (requirement.name,)
        version = next(filter(None, map(_version, names)), None)
        if version is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is outside {requirement.specifier}")
        else:
            found.append(f"{requirement.name} {version}")
    return Check(
        name=name, ok=not wrong, detail=", ".join(wrong or found), fix=fix if wrong else "", required=required
    )  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def hardware(output: str) -> Iterator[Check]:
    """Cores, memory, and the disk that `output` is or will be on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check(name="cores", ok=True, detail=f"{cores} to run on")
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        ok = memory_bytes >= _MIN_MEMORY_BYTES
        fix = "" if ok else "cache needs about 3 GiB: give it a smaller --batch_size, or run it elsewhere"
        yield Check(name="memory", ok=ok, detail=f"{memory_bytes / _GIB_BYTES:.1f} GiB", fix=fix)
    if not storage.is_remote(output):
        place = _existing(output)
        free_bytes = shutil.disk_usage(place).free
        num_clips = free_bytes // (_CLIP_BYTES + _FEATURE_BYTES)
        ok = free_bytes >= _MIN_DISK_BYTES
        detail = (
            f"{free_bytes / _GIB_BYTES:.1f} GiB free at {place}, enough for {num_clips:,} clips with their features"
        )
        yield Check(name="disk", ok=ok, detail=detail, fix="" if ok else "name another place with --output")


def _existing(path: str) -> str:
    """The nearest folder above or at a local path that is there."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def audio_formats() -> Iterator[Check]:
    """Writes a moment of sound in each format in memory, and decodes it."""
    import numpy as np
    import soundfile

    sound = np.sin(np.arange(4_800) / 10).astype(np.float32) / 2
    decoded, failed = [], []
    for name, (kind, encoding) in _AUDIO.items():
        try:
            file = io.BytesIO()
            soundfile.write(file, sound, 48_000, format=kind, subtype=encoding)
            file.seek(0)
            samples, _ = soundfile.read(file)
            (decoded if abs(samples).max() > 0.1 else failed).append(name)
        except (soundfile.SoundFileError, ValueError, TypeError, RuntimeError):
            failed.append(name)
    detail = f"libsndfile {soundfile.__libsndfile_version__} decodes {', '.join(decoded) or 'nothing'}"
    if failed:
        detail += f", but not {', '.join(failed)}"
    fix = "pip install --upgrade soundfile, whose wheels bring a libsndfile with all of them" if failed else ""
    yield Check(name="audio formats", ok=not failed, detail=detail, fix=fix)


def tensorflow() -> Iterator[Check]:
    """TensorFlow's build and the devices it sees."""
    from launch import quiet

    try:
        quiet.import_tensorflow()
        import tensorflow as tf

        with quiet.native_stderr_held():
            devices = tf.config.list_physical_devices()
    except Exception as error:  # a build that does not fit the machine fails in many ways
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        fix = "pip install -c constraints.txt '.[cpu]' (or '.[gpu]', '.[tpu]'): cache and heads need it"
        yield Check(name="TensorFlow", ok=False, detail=f"can't be imported ({reason})", fix=fix)
        return
    build = "with CUDA" if tf.test.is_built_with_cuda() else "without CUDA"
    seen = ", ".join(f"{device.device_type} {device.name.rsplit(':', 1)[-1]}" for device in devices)
    yield Check(name="TensorFlow", ok=True, detail=f"{tf.__version__} {build}; devices: {seen}")


def imagenet_weights() -> Iterator[Check]:
    home = os.environ.get("KERAS_HOME", os.path.join(os.path.expanduser("~"), ".keras"))
    path = os.path.join(home, "models", _WEIGHTS)
    ok = os.path.isfile(path)
    fix = "melcache cache downloads them where it has a network; else copy the file there, or use --weights=random"
    yield Check(
        name="ImageNet weights", ok=ok, detail=path if ok else f"not in {os.path.dirname(path)}", fix="" if ok else fix
    )


def account() -> Iterator[Check]:
    """Who Google Cloud takes us for."""
    import google.auth
    import google.auth.transport.requests

    try:
        credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_write"])
        if not credentials.valid:
            credentials.refresh(google.auth.transport.requests.Request())
    except google.auth.exceptions.GoogleAuthError as error:
        detail, fix = store_errors.explain(error, "Google Cloud")
        yield Check(name="Google account", ok=False, detail=detail, fix=fix)
        return
    who = getattr(credentials, "service_account_email", "") or "a user's login"
    fix = "" if project else "set GOOGLE_CLOUD_PROJECT, or give Beam --project: Dataflow needs it"
    yield Check(name="Google account", ok=bool(project), detail=f"{who}, project {project or 'not known'}", fix=fix)


def place(path: str) -> Iterator[Check]:
    """Whether a place, local or gs://, can be listed, written, read and deleted in. Leaves nothing there."""
    folder = path.rstrip("/") if storage.is_remote(path) else _existing(path)
    probe = storage.join(folder, f"melcache-doctor-{uuid.uuid4().hex}")
    content = b"melcache doctor was to remove this"
    files: list[str] = []

    def attempt(name, action):
        try:
            return Check(name=f"{name} {path}", ok=True, detail=action(), required=True)
        except Exception as error:
            if not store_errors.is_store_error(error):
                raise
            detail, fix = store_errors.explain(error, folder)
            return Check(name=f"{name} {path}", ok=False, detail=detail, fix=fix, required=True)

    def list_it():
        fs, name = url_to_fs(folder)
        fs.invalidate_cache()
        try:
            entries = fs.ls(name, detail=True)
        except FileNotFoundError:
            bucket = name.split("/")[0]
            fs.ls(bucket)  # a prefix that holds nothing is as good as any, but a bucket must be there
            entries = []
        files.extend(f"{folder}/{entry['name'].rsplit('/', 1)[-1]}" for entry in entries if entry["type"] == "file")
        return f"{len(entries):,} names in {folder}"

    def write_it():
        storage.write_bytes(probe, content)
        return "a small file"

    def read_it():
        if written.ok:
            if storage.read_bytes(probe) != content:
                raise OSError("other bytes came back than were written")
            return "the same file"
        storage.read_range(files[0], 0, 1)
        return files[0]

    def delete_it():
        fs, name = url_to_fs(probe)
        fs.rm_file(name)
        return "it is gone"

    listed = attempt("list", list_it)
    yield listed
    if listed.detail == store_errors.MISSING:  # the rest would fail for the same reason
        return
    written = attempt("write", write_it)
    yield written
    if written.ok or files:
        yield attempt("read", read_it)
    if written.ok:
        deleted = attempt("delete", delete_it)
        yield deleted if deleted.ok else dataclasses.replace(deleted, detail=f"{probe} stays there: {deleted.detail}")
