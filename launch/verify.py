"""whether a dataset is what its spec says, shard by shard.

  melcache verify data/notes
  melcache verify gs://bucket/features --json

Reads every byte of a clip or feature dataset. Of features, some clips' are also computed anew and compared, where the
clips and the weights can be had. Exit status 0 where all is well, 1 where anything is not.
"""

from absl import flags

from launch import command, quiet

FLAGS = flags.FLAGS

flags.DEFINE_bool("parity", True, "Compute some clips' features anew, with TensorFlow, and compare.")
flags.DEFINE_string("data", None, "Where the clips of the features are now, if they were moved.")
flags.DEFINE_string("weights", None, "Where the weights file of the features is now, if it was moved.")


def main(positional, beam_args):
    if len(positional) != 1:
        raise command.UsageError("name one dataset directory: melcache verify DIR")
    from tfdata.spec import FEATURES
    from tfdata.verify import verify

    (directory,) = positional
    verdict = verify(directory, show_progress=not FLAGS.quiet)
    problems, parity, unchecked = list(verdict.problems), None, None
    if verdict.spec.kind == FEATURES:
        if not FLAGS.parity:
            unchecked = "left out by --noparity"
        elif not verdict.ok:
            unchecked = "the dataset is damaged"
        else:
            parity, told, unchecked = _parity(directory, verdict.spec)
            if parity and parity["ok"]:
                command.say(told)
            elif parity:
                problems.append(told)
        if unchecked:
            command.say(f"features were not computed anew: {unchecked}")
    for shard in verdict.shards:
        if not shard.ok:
            command.say(f"{shard.name}: {shard.reason}")
    for problem in problems:
        command.say(problem)
    damaged = sum(not shard.ok for shard in verdict.shards)
    ok = verdict.ok and not problems
    command.say(
        f"{directory}: all {len(verdict.shards)} shards and {verdict.spec.num_clips:,} clips are as they were written"
        if ok
        else f"{directory} is not what it was: {damaged} of {len(verdict.shards)} shards damaged, "
        f"{len(problems)} other problems; make it again, or restore the files named above"
    )
    return {
        "ok": ok,
        "shards": [{"name": shard.name, "ok": shard.ok, "reason": shard.reason} for shard in verdict.shards],
        "problems": problems,
        "parity": parity,
        "parity_unchecked": unchecked,
        "fingerprint": verdict.spec.fingerprint,
    }


def _parity(directory, spec):
    """(what was measured or None, a sentence about it, why it could not be measured or None)."""
    try:
        quiet.import_tensorflow()
        from launch import parity_check
    except ModuleNotFoundError as error:
        return None, None, f"that needs {error.name}, which is not installed here"
    try:
        found, told = parity_check.check_dataset(directory, spec, data=FLAGS.data, weights=FLAGS.weights)
    except parity_check.WrongDatasetError as error:
        return {"ok": False}, str(error), None
    return (found, told, None) if found else (None, None, told)
