"""features to trained classification heads, with a table: the source system's four setups, any number of seeds.

  melcache heads --features=data/notes_features --output=runs/notes --seeds=5

Trains from the features alone. Where the clips they were made from are still there, the table also shows what a network
has to beat: logistic regression on the raw log-mels.
"""

from absl import flags

from launch import command, quiet

FLAGS = flags.FLAGS

flags.DEFINE_string("features", None, "The feature dataset directory that `melcache cache` made.")
flags.DEFINE_string("output", None, "The run directory to make; the same command continues an interrupted run.")
flags.DEFINE_list("setups", ["setup1", "setup2", "setup3", "setup4"], "Which of the source system's setups to train.")
flags.DEFINE_integer("seeds", 1, "How many times each setup is trained, with seeds 0, 1, ...", lower_bound=1)
flags.DEFINE_integer("epochs", None, "Epochs instead of the setups' 50.", lower_bound=1)
flags.DEFINE_bool(
    "thesis_exact",
    False,
    "Features as they are, as in the source system, instead of standardised with the "
    "training split's mean and deviation.",
)
flags.DEFINE_string("data", None, "Where the log-mel dataset is now that the features were made from, if it was moved.")


def main(positional, beam_args):
    command.no_positional([*positional, *beam_args])
    command.required(features=FLAGS.features, output=FLAGS.output)
    quiet.import_tensorflow()
    import dataclasses

    from launch import head_runs, run_directory
    from model import thesis

    if not FLAGS.setups:
        raise command.UsageError(f"--setups is empty, expected of {', '.join(thesis.SETUPS)}")
    for name in FLAGS.setups:
        if name not in thesis.SETUPS:
            raise command.UsageError(f"unknown setup {name!r}, expected of {', '.join(thesis.SETUPS)}")
    setups = {name: thesis.SETUPS[name] for name in FLAGS.setups}
    if FLAGS.epochs:
        setups = {name: dataclasses.replace(settings, epochs=FLAGS.epochs) for name, settings in setups.items()}
    document = head_runs.train_heads(
        features=FLAGS.features,
        output=FLAGS.output,
        setups=setups,
        num_seeds=FLAGS.seeds,
        standardise=not FLAGS.thesis_exact,
        data=FLAGS.data,
        show_progress=not FLAGS.quiet,
        provenance=command.provenance(features=FLAGS.features, data=FLAGS.data),
    )
    for line in run_directory.table(document):
        command.say(line)
    weights = document["weights"]
    command.say(f"features: {weights['source']} weights ({weights['digest'][:12]}); runs in {FLAGS.output}")
    rows = ("name", "test_accuracy", "test_loss", "validation_accuracy", "seeds")
    return {
        "setups": [
            {**{name: row[name] for name in rows}, "run": f"{FLAGS.output}/{row['name']}"}
            for row in document["results"]
        ],
        "baselines": document["baselines"],
        "weights": weights,
        "features": document["features"],
        "output": FLAGS.output,
    }
