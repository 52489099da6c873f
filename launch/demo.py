"""all of it on a small synthetic orchestra: audio, clips, features, heads, report. Needs nothing, takes minutes.

  melcache demo --output=demo_output

Tries the ImageNet weights first; where they can't be had it says so and goes on with random ones. A stage that is
finished already is not done again.
"""

import json
import shlex
import time

from absl import flags

from launch import command, quiet

FLAGS = flags.FLAGS

flags.DEFINE_string("output", "demo_output", "The directory for all that the demo makes.")
flags.DEFINE_integer("pitches", 12, "Pitches of each instrument, each at three dynamics.", lower_bound=4)
flags.DEFINE_integer("seed", 0, "Seed of the orchestra and of random weights.", lower_bound=0)


def main(positional, beam_args):
    command.no_positional([*positional, *beam_args])
    quiet.import_tensorflow()
    from beam_preprocess.prepare import prepare
    from beam_preprocess.settings import PrepareSettings
    from launch import head_runs, run_directory
    from launch.feature_cache import RANDOM_NOTE, cache_features
    from launch.feature_settings import FeatureSettings
    from launch.orchestra import write_orchestra
    from launch.report_page import write_report
    from model.backbone import WeightsError
    from model.thesis import SETUPS
    from tfdata import layout, storage

    started = time.monotonic()
    output, progress = FLAGS.output.rstrip("/"), not FLAGS.quiet
    audio, data, features, run = (storage.join(output, name) for name in ("audio", "clips", "features", "heads"))
    manifest, page = storage.join(audio, "notes.csv"), storage.join(output, "report.html")
    _check_same_demo(storage.join(output, "demo.json"))

    command.say("1/5 audio: synthesising an orchestra of seven instruments (and four broken files)")
    if not storage.exists(manifest):
        write_orchestra(audio, num_pitches=FLAGS.pitches, seed=FLAGS.seed)

    steps = {
        name: shlex.join(["melcache", name, *(f"--{flag}={value}" for flag, value in values.items())])
        for name, values in {
            "prepare": {"manifest": manifest, "group": "group", "output": data},
            "cache": {"data": data, "output": features},
            "heads": {"features": features, "output": run, "seeds": 3},
            "report": {"run": run, "output": page},
        }.items()
    }
    command.say(f"2/5 {steps['prepare']}")
    if not layout.is_complete(data):
        with quiet.native_stderr_held():
            prepare(
                output=data,
                settings=PrepareSettings(group="group"),
                manifest=manifest,
                show_progress=progress,
                provenance={"manifest": manifest, "command": steps["prepare"]},
            )
    clips = layout.read_spec(data)
    counts = ", ".join(f"{name} {split.num_clips}" for name, split in clips.splits.items())
    command.say(f"    {clips.num_clips} clips ({counts}), {clips.num_rejects} files rejected:")
    for reject in layout.read_rejects(data):
        command.say(f"    {reject['path']}: {reject['reason']}")

    command.say(f"3/5 {steps['cache']}")

    def cache(weights):
        line = f"{steps['cache']} --weights={weights} --seed={FLAGS.seed}"
        cache_features(
            data=data,
            output=features,
            settings=FeatureSettings(weights=weights, seed=FLAGS.seed),
            batch_size=64,
            provenance={"data": data, "command": line},
            show_progress=progress,
        )

    if not layout.is_complete(features):
        try:
            cache("imagenet")
        except WeightsError as error:
            command.say(f"    {error}")
            command.say(f"    going on with --weights=random. {RANDOM_NOTE}")
            cache("random")
    weights = layout.read_spec(features).settings["weights"]
    command.say(f"    weights used: {weights['source']} ({weights['digest'][:12]})")

    command.say(f"4/5 {steps['heads']}")
    if not storage.exists(storage.join(run, run_directory.HEADS)):
        head_runs.train_heads(
            features=features,
            output=run,
            setups=SETUPS,
            num_seeds=3,
            standardise=True,
            data=data,
            provenance={"features": features, "data": data, "command": steps["heads"]},
            show_progress=progress,
        )
    heads = run_directory.read_heads(run)
    for line in run_directory.table(heads):
        command.say(f"    {line}")

    command.say(f"5/5 {steps['report']}")
    write_report(run=run, output=page, features=None, data=None, command=steps["report"])

    command.say(
        f"\nDone in {time.monotonic() - started:.0f} s. Open {page} in a browser; everything else is in {output}/."
    )
    command.say("On your own audio, a folder for each class:")
    command.say("  melcache prepare --input=FOLDER --output=my/clips")
    command.say(
        "  melcache cache --data=my/clips --output=my/features"
        + (" --weights=random" if weights["source"] == "random" else "")
    )
    command.say("  melcache heads --features=my/features --output=my/heads --seeds=5")
    command.say("  melcache report --run=my/heads")
    command.say("(as .venv/bin/melcache where make has installed it)")
    return {
        "output": output,
        "report": page,
        "weights": weights,
        "setups": [{"name": row["name"], "test_accuracy": row["test_accuracy"]} for row in heads["results"]],
    }


def _check_same_demo(path):
    """A demo is continued, or shown again, but not mixed with one of other flags."""
    from tfdata import storage

    flags_now = {"pitches": FLAGS.pitches, "seed": FLAGS.seed}
    if not storage.exists(path):
        storage.write_text(path, json.dumps(flags_now) + "\n")
    elif (flags_then := json.loads(storage.read_text(path))) != flags_now:
        raise ValueError(
            f"{FLAGS.output} holds a demo of {flags_then}, this one has {flags_now}: choose another --output"
        )
