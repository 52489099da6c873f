"""this machine, and a bucket, looked over: what is there, what is missing, and how to mend it.

  melcache doctor --output=DIRECTORY --bucket=gs://BUCKET/PREFIX

Reads and writes nothing but one small file in the bucket, which it removes. Exit status 1 where a package that every
command needs is missing, or where something of --bucket does not work.
"""

import dataclasses
import itertools

from absl import flags

from launch import command
from tfdata import storage

FLAGS = flags.FLAGS

flags.DEFINE_string("output", ".", "Where datasets are to be made: its free disk space is told.")
flags.DEFINE_string(
    "bucket",
    None,
    "A place to try: gs://BUCKET, a prefix in one, or a local directory. Can it be listed, read, written?",
)


def main(positional, beam_args):
    command.no_positional([*positional, *beam_args])
    from launch import checks

    looks = [checks.python(), checks.packages(), checks.hardware(FLAGS.output), checks.audio_formats(),
             checks.tensorflow(), checks.imagenet_weights()]  # fmt: skip
    if FLAGS.bucket:
        looks += [checks.account()] if storage.is_remote(FLAGS.bucket) else []
        looks.append(checks.place(FLAGS.bucket))
    found = []
    for check in itertools.chain.from_iterable(looks):  # told one by one, since a bucket may take its time
        found.append(check)
        command.say(f"{'ok' if check.ok else 'NO' if check.required else '--':4}{check.name}: {check.detail}")
        if check.fix:
            command.say(f"    {check.fix}")
    ok = all(check.ok for check in found if check.required)
    command.say("all that is needed is there" if ok else "see the lines with NO: what is needed is not all there")
    return {"ok": ok, "checks": [dataclasses.asdict(check) for check in found]}
