"""features to trained classification heads, with a table: the source system's setups, or searches of your own.

  melcache heads --features=data/notes_features --output=runs/notes --seeds=5
  melcache heads --features=data/notes_features --output=runs/search --config=heads.toml

Trains from the features alone, a head on each core, over one copy of the features. Where the clips they were made from
are still there, the table also shows what a network has to beat: linear classifiers on the raw log-mels.
"""

from absl import flags

from launch import command

FLAGS = flags.FLAGS
_NO_RESULT = dict.fromkeys(("test_accuracy", "test_loss", "validation_accuracy"))  # of a setup whose heads diverged

flags.DEFINE_string("features", None, "The feature dataset directory that `melcache cache` made.")
flags.DEFINE_string("output", None, "The run directory to make; the same command continues an interrupted run.")
flags.DEFINE_list("setups", None, "Which of the source system's setups to train; all four by default.")
flags.DEFINE_string(
    "config",
    None,
    "A heads.toml with heads, grids and random searches of your own; docs/heads.toml is an example.",
)
flags.DEFINE_integer(
    "seeds", None, "How many times each setup is trained, with seeds 0, 1, ...; 1 by default.", lower_bound=1
)
flags.DEFINE_integer("epochs", None, "Epochs of all heads, instead of their own.", lower_bound=1)
flags.DEFINE_bool(
    "thesis_exact",
    False,
    "Features as they are, as in the source system, instead of standardised with the "
    "training split's mean and deviation.",
)
flags.DEFINE_bool(
    "random_split",
    False,
    "Also train on a random split of the same clips, with groups torn apart, to see what such a split flatters.",
)
flags.DEFINE_bool("cross_validate", False, "Also cross-validate on the folds that `melcache prepare --folds=K` made.")
flags.DEFINE_list(
    "learning_curve", [], "Also train on these fractions of the training clips, as 0.1,0.3; the report draws the curve."
)
flags.DEFINE_string(
    "test_features",
    None,
    "Another collection's feature dataset, made with `melcache cache --like`, to test on as a whole: accuracy on one's "
    "own recordings says little. Classes are matched by name.",
)
flags.DEFINE_enum(
    "save_heads",
    None,
    ["all", "best", "none"],
    "Which heads are saved as Keras models, 30 to 60 MB each: by default all, with --config the best on validation.",
)
flags.DEFINE_string("data", None, "Where the log-mel dataset is now that the features were made from, if it was moved.")
flags.DEFINE_bool(
    "allow_stale", False, "Train although the clips have changed since the features were made; every result says so."
)
flags.DEFINE_string(
    "local_cache_dir",
    None,
    "A directory on a local disk: features are unpacked there once and mapped into memory, for collections that don't "
    "fit and for quicker starts.",
)
flags.DEFINE_integer("num_threads", 0, "Heads that are trained at once; 0: one for each core.", lower_bound=0)
flags.DEFINE_integer("top", 20, "Rows of the table shown where there are more.", lower_bound=1)


def main(positional, beam_args):
    command.no_positional([*positional, *beam_args])
    command.required(features=FLAGS.features, output=FLAGS.output)
    from launch import head_runs, head_table

    setups, varied, num_seeds = _setups()
    if FLAGS.epochs:
        setups = {name: _with_epochs(name, settings) for name, settings in setups.items()}
    document = head_runs.train_heads(
        features=FLAGS.features,
        output=FLAGS.output,
        setups=setups,
        varied=varied,
        num_seeds=num_seeds,
        questions=head_runs.HeadQuestions(
            random_split=FLAGS.random_split,
            cross_validate=FLAGS.cross_validate,
            learning_curve=_fractions(),
            test_features=FLAGS.test_features,
        ),
        data=FLAGS.data,
        save_heads=FLAGS.save_heads or ("best" if FLAGS.config else "all"),
        allow_stale=FLAGS.allow_stale,
        local_cache_dir=FLAGS.local_cache_dir,
        num_threads=FLAGS.num_threads,
        show_progress=not FLAGS.quiet,
        provenance=command.provenance(features=FLAGS.features, data=FLAGS.data),
    )
    for line in [*head_table.table(document, limit=FLAGS.top), *head_table.comparison_lines(document)]:
        command.say(line)
    for row in document["results"]:
        for sentence in row["failed"]:
            command.say(f"no result of {row['name']}, {sentence}")
    for row in document["baselines"]:
        if "failed" in row:
            command.say(f"no {row['name']}: {row['failed']}")
    if document["unmatched"]:
        for line in _unmatched_lines(**document["unmatched"]):
            command.say(line)
    if document["num_variants"] and (FLAGS.random_split or FLAGS.cross_validate):
        command.say("random split and folds are trained without the augmented variants that the other heads had")
    if not document["clips_seen"]:
        command.say(
            "the clips that the features were made from are not there any more: no row on raw log-mels, and whether "
            "they have changed could not be seen (--data names their place)"
        )
    if document["stale"]:
        command.say(f"STALE: {document['stale']}")
    weights = document["weights"]
    command.say(f"features: {weights['source']} weights ({weights['digest'][:12]}); runs in {FLAGS.output}")
    return {
        "setups": [{**_NO_RESULT, **row, "run": f"{FLAGS.output}/{row['name']}"} for row in document["results"]],
        "baselines": document["baselines"],
        "comparisons": document["comparisons"],
        "weights": weights,
        "features": document["features"],
        "stale": document["stale"],
        "output": FLAGS.output,
    }


def _unmatched_lines(only_in_training, only_in_other, num_clips_known):
    """What of the other collection was not tested on."""
    if only_in_other:
        yield f"classes only in --test_features, left out: {', '.join(only_in_other)}"
    if only_in_training:
        yield f"classes only in training: {', '.join(only_in_training)}"
    if num_clips_known:
        yield f"{num_clips_known:,} clips of --test_features are in training or validation too, and were left out"


def _setups():
    """Setups, what varies in them, and the number of seeds, of --config or --setups."""
    from launch import head_config
    from model import thesis

    if FLAGS.config is not None:
        if FLAGS.setups is not None or FLAGS.thesis_exact:
            raise command.UsageError("--config says which heads to train: leave out --setups and --thesis_exact")
        config = head_config.read_head_config(FLAGS.config)
        return dict(config.setups), config.varied, FLAGS.seeds or config.num_seeds or 1
    names = list(thesis.SETUPS) if FLAGS.setups is None else FLAGS.setups
    if not names:
        raise command.UsageError(f"--setups is empty, expected of {', '.join(thesis.SETUPS)}")
    for name in names:
        if name not in thesis.SETUPS:
            raise command.UsageError(f"unknown setup {name!r}, expected of {', '.join(thesis.SETUPS)}")
    setups = {name: thesis.SETUPS[name] for name in names}
    if FLAGS.thesis_exact:
        setups = {name: thesis.exact(settings) for name, settings in setups.items()}
    return setups, {}, FLAGS.seeds or 1


def _with_epochs(name, settings):
    import dataclasses

    try:
        return dataclasses.replace(settings, epochs=FLAGS.epochs)
    except ValueError as error:
        raise command.UsageError(f"--epochs={FLAGS.epochs} does not go with {name}: {error}") from error


def _fractions() -> tuple[float, ...]:
    try:
        fractions = tuple(sorted({float(value) for value in FLAGS.learning_curve}))
    except ValueError as error:
        raise command.UsageError(f"--learning_curve: {error}; expected fractions as 0.1,0.3") from error
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise command.UsageError(f"--learning_curve: {fraction:g} is no fraction above 0 and up to 1")
    return tuple(fraction for fraction in fractions if fraction < 1)  # the whole is trained anyway
