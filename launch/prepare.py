"""audio files to a dataset of log-mel clips, by a Beam job.

  melcache prepare --input=notes/ --output=data/notes
  melcache prepare --manifest=notes.csv --group=group --output=gs://bucket/notes -- \\
      --runner=DataflowRunner --project=P --region=R --temp_location=gs://bucket/tmp --setup_file=./setup.py

Beam's own options stand after a bare `--`; without them the job runs on this machine's cores.
"""

from absl import flags

from launch import command, prepare_flags, quiet

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(prepare_flags)

flags.DEFINE_string("output", None, "The dataset directory to make; the same command continues an interrupted job.")
flags.DEFINE_enum("precision", "float16", ["float16", "float32"], "How log-mel values are stored.")
flags.DEFINE_bool(
    "retry_rejects",
    False,
    "Take a finished --output up again: decode what was rejected or is new, keep the clips of other recordings as they "
    "were then, and divide all anew.",
)
flags.DEFINE_bool("dry_run", False, "List what would be prepared, by class, and write nothing.")


def main(positional, beam_args):
    command.no_positional(positional)
    # Heavy imports wait until the command line is known to be right.
    from beam_preprocess.recordings import find_recordings

    settings = prepare_flags.settings(precision=FLAGS.precision)
    if not FLAGS.input and not FLAGS.manifest:
        raise command.UsageError("--input or --manifest must be given")
    if FLAGS.dry_run:
        return _dry_run(
            find_recordings(
                input_path=FLAGS.input, manifest=FLAGS.manifest, group=settings.group, classes=settings.classes
            )
        )
    command.required(output=FLAGS.output)

    from beam_preprocess.prepare import prepare

    with quiet.native_stderr_held():
        spec = prepare(
            output=FLAGS.output,
            settings=settings,
            retry_rejects=FLAGS.retry_rejects,
            beam_args=beam_args,
            **prepare_flags.arguments(),
            show_progress=not FLAGS.quiet,
            provenance=command.provenance(input=FLAGS.input, manifest=FLAGS.manifest),
        )
    prepare_flags.say_what_was_made(spec, FLAGS.output)
    return prepare_flags.told(spec, FLAGS.output)


def _dry_run(recordings):
    counts = {}
    for recording in recordings:
        counts[recording.label] = counts.get(recording.label, 0) + 1
    for label, count in sorted(counts.items(), key=lambda item: str(item[0])):
        command.say(
            f"{label or '(outside a class folder)'}: {count:,} files, the first is "
            f"{next(r.path for r in recordings if r.label == label)}"
        )
    command.say(f"{len(recordings):,} files; nothing was written (--dry_run)")
    return {"num_recordings": len(recordings), "classes": {label or "": count for label, count in counts.items()}}
