"""A clip dataset for a stage that begins with audio: made where it is not there, used again where it is the same."""

from collections.abc import Sequence

from beam_preprocess.kept import check_made_with, difference
from beam_preprocess.prepare import job_identity, prepare
from beam_preprocess.recordings import Recording, find_recordings
from beam_preprocess.settings import PrepareSettings
from tfdata import layout, schema, shards, storage
from tfdata.spec import LOG_MEL, DatasetError, DatasetSpec


def clips_of(
    *,
    output: str,
    settings: PrepareSettings,
    input_path: str | None = None,
    manifest: str | None = None,
    **how,
) -> tuple[DatasetSpec, bool]:
    """The clip dataset in `output`, prepared first where it is not complete.

    A complete one must have been made with these settings of recordings with these names, labels, groups, columns and
    splits. That the sound of one was changed since is not noticed.

    Args:
      output, settings, input_path, manifest: see `prepare`.
      how: what else `prepare` takes.
    Returns:
      its spec, and whether it was made now.
    Raises:
      DatasetError: as `prepare`; or the complete one differs, and in what.
    """
    if not layout.is_complete(output):
        return prepare(output=output, settings=settings, input_path=input_path, manifest=manifest, **how), True
    spec = layout.read_spec(output, LOG_MEL)
    input_path, manifest = (path and storage.absolute(path) for path in (input_path, manifest))
    recordings = find_recordings(
        input_path=input_path, manifest=manifest, group=settings.group, classes=settings.classes
    )
    remedy = "leave --input and --manifest out to use it as it is, or choose another --data"
    check_made_with(spec, job_identity(settings, recordings), output, remedy=f"give the same, {remedy}")
    if what := _changed(output, spec, recordings):
        raise DatasetError(f"{output} was made of other recordings, since {what}: {remedy}")
    return spec, False


def _changed(directory: str, spec: DatasetSpec, recordings: Sequence[Recording]) -> str | None:
    """The first thing in which the recordings are not those of the dataset."""
    by_name = {recording.name: recording for recording in recordings}
    seen = set()
    for line in layout.read_rejects(directory):
        seen.add(line["path"])
        recording = by_name.get(line["path"])
        if recording is None or recording.label != line["label"]:
            return f"{line['path']}, which was rejected then, {'has another label' if recording else 'is gone'}"
    for split in spec.splits:
        for shard in shards.of_split(directory, spec, split):
            for record in shards.read(shard):
                clip, _ = schema.decode_clip(record, spec)
                recording = by_name.get(clip.recording)
                what = difference(clip, recording, spec)
                if not what and recording.split not in (None, split):
                    what = f"its split was {split!r} and is {recording.split!r}"
                if what:
                    return f"of {clip.recording} {what}"
                seen.add(clip.recording)
    new = sorted(by_name.keys() - seen)
    return f"{new[0]} is new" if new else None
