"""whether a dataset is what its spec says, shard by shard.

  melcache verify data/notes
  melcache verify gs://bucket/features --json

Reads every byte of a clip or feature dataset. Exit status 0 where all is well, 1 where anything is not.
"""

from absl import flags

from launch import command

FLAGS = flags.FLAGS


def main(positional, beam_args):
    if len(positional) != 1:
        raise command.UsageError("name one dataset directory: melcache verify DIR")
    from tfdata.verify import verify

    (directory,) = positional
    verdict = verify(directory, show_progress=not FLAGS.quiet)
    for shard in verdict.shards:
        if not shard.ok:
            command.say(f"{shard.name}: {shard.reason}")
    for problem in verdict.problems:
        command.say(problem)
    damaged = sum(not shard.ok for shard in verdict.shards)
    command.say(
        f"{directory}: all {len(verdict.shards)} shards and {verdict.spec.num_clips:,} clips are as they were written"
        if verdict.ok
        else f"{directory} is not what it was: {damaged} of {len(verdict.shards)} shards damaged, "
        f"{len(verdict.problems)} other problems; make it again, or restore the files named above"
    )
    return {
        "ok": verdict.ok,
        "shards": [{"name": shard.name, "ok": shard.ok, "reason": shard.reason} for shard in verdict.shards],
        "problems": verdict.problems,
        "fingerprint": verdict.spec.fingerprint,
    }
