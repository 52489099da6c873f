"""The flags that say which recordings become which clips, and what they come to for a prepare job.

For the commands that prepare clips: `prepare`, and `cache` where it begins with audio.
"""

from typing import Any

from absl import flags

from launch import clip_table, command

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "input",
    None,
    "A directory with a folder for each class, or a glob (quoted) where the folder is the "
    "class. With --manifest: the directory its paths are relative to.",
)
flags.DEFINE_string(
    "manifest",
    None,
    "A CSV with columns path and label, optionally split (train, validation, test); "
    "its other columns are carried along.",
)
flags.DEFINE_string("group", None, "A manifest column: recordings with an equal value never stand in two splits.")
flags.DEFINE_list("classes", [], "The labels allowed, in label order; by default all that occur, sorted.")
flags.DEFINE_string(
    "windows",
    "first",
    "Clips of each recording: first (one, padded where it is short), all, or the first N.",
)
flags.DEFINE_float("hop_s", None, "Seconds from the start of a clip to that of the next; by default clip_s.")
flags.DEFINE_float(
    "silence_dbfs",
    None,
    "Leave out, and count, clips whose RMS level is at or below this: -60, say. Of several "
    "clips of a recording, those of digital silence are always left out.",
)
flags.DEFINE_enum(
    "split",
    "exact",
    ["exact", "stable"],
    "exact: counts as near the fractions as whole groups allow. stable: by a hash of each group's name, so that new "
    "recordings never move an old one to another split; counts are near the fractions by chance.",
)
flags.DEFINE_integer("folds", 0, "Divide all clips outside the test split into so many folds for cross-validation.")
flags.DEFINE_float("test_fraction", 0.2, "Share of all clips for testing, class by class.")
flags.DEFINE_float("validation_fraction", 0.2, "Share of the remaining clips for validation, class by class.")
flags.DEFINE_integer("split_seed", 0, "Another seed gives another division.")
flags.DEFINE_integer("sample_rate_hz", 12_000, "Sample rate after resampling, Hz.")
flags.DEFINE_float("clip_s", 1.0, "Seconds of a clip; a shorter recording is padded.")
flags.DEFINE_integer("n_fft", 2048, "Length of the analysis window, samples.")
flags.DEFINE_integer("hop_length", 1024, "Samples from one frame to the next.")
flags.DEFINE_integer("n_mels", 128, "Number of mel bins.")
flags.DEFINE_float("fmin_hz", 0.0, "Lowest frequency of the mel bins, Hz.")
flags.DEFINE_float("fmax_hz", None, "Highest frequency of the mel bins, Hz; by default half the sample rate.")
flags.DEFINE_float("power", 2.0, "Exponent of the magnitude spectrum: 2 power (librosa's default), 1 magnitude.")
flags.DEFINE_integer("num_shards", 0, "Files for each split; 0 takes 8, and more where they would exceed 64 MiB.")
flags.DEFINE_float("max_reject_fraction", 0.1, "The job fails where more than this share of the inputs can't be used.")
flags.DEFINE_float("decode_timeout_s", 60.0, "A recording that gives no clip for so many seconds is rejected.")
flags.DEFINE_bool("leak_audit", True, "Look for near-copies of training clips in the other splits; say and store it.")


def settings(*, precision: str):
    """The PrepareSettings that the flags come to; log-mel values are stored with `precision`."""
    # Heavy imports wait until the command line is known to be right.
    from beam_preprocess.settings import LogMelSettings, PrepareSettings, SplitSettings, WindowSettings

    fmax_hz = FLAGS.sample_rate_hz / 2 if FLAGS.fmax_hz is None else FLAGS.fmax_hz
    return PrepareSettings(
        log_mel=LogMelSettings(
            sample_rate_hz=FLAGS.sample_rate_hz,
            clip_s=FLAGS.clip_s,
            n_fft=FLAGS.n_fft,
            hop_length=FLAGS.hop_length,
            n_mels=FLAGS.n_mels,
            fmin_hz=FLAGS.fmin_hz,
            fmax_hz=fmax_hz,
            power=FLAGS.power,
        ),
        windows=WindowSettings(
            max_windows=_max_windows(FLAGS.windows), hop_s=FLAGS.hop_s, silence_dbfs=FLAGS.silence_dbfs
        ),
        split=SplitSettings(
            method=FLAGS.split,
            test_fraction=FLAGS.test_fraction,
            validation_fraction=FLAGS.validation_fraction,
            folds=FLAGS.folds,
            seed=FLAGS.split_seed,
        ),
        group=FLAGS.group,
        classes=tuple(FLAGS.classes),
        precision=precision,
        num_shards=FLAGS.num_shards,
    )


def given() -> list[str]:
    """The names of those of these flags that were given."""
    return [flag.name for flag in FLAGS.flags_by_module_dict()[__name__] if flag.present]


def arguments() -> dict[str, Any]:
    """What else the flags come to, as keyword arguments of `prepare`."""
    return {
        "input_path": FLAGS.input,
        "manifest": FLAGS.manifest,
        "max_reject_fraction": FLAGS.max_reject_fraction,
        "decode_timeout_s": FLAGS.decode_timeout_s,
        "leak_audit": FLAGS.leak_audit,
    }


def say_what_was_made(spec, output: str) -> None:
    """A clip dataset in a few lines for people: its table, its rejects, its leak audit."""
    from beam_preprocess.leak_audit import summary

    for line in clip_table.lines(spec):
        command.say(line)
    rejected = f", {spec.num_rejects:,} rejected (rejects.jsonl says why)" if spec.num_rejects else ", none rejected"
    command.say(f"{spec.num_clips:,} clips from {spec.num_recordings:,} recordings in {output}{rejected}")
    for sentence in summary(spec.leak_audit) if spec.leak_audit else []:
        command.say(sentence)


def told(spec, output: str) -> dict[str, Any]:
    """A clip dataset in the --json line."""
    return {
        "num_recordings": spec.num_recordings,
        "num_clips": spec.num_clips,
        "num_rejects": spec.num_rejects,
        "splits": {name: split.num_clips for name, split in spec.splits.items()},
        "leak_audit": spec.leak_audit,
        "fingerprint": spec.fingerprint,
        "output": output,
    }


def _max_windows(text: str) -> int | None:
    if text in ("first", "all"):
        return 1 if text == "first" else None
    try:
        return int(text)
    except ValueError:
        raise command.UsageError(f"--windows must be first, all, or a number, got {text!r}") from None
