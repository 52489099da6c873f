"""log-mel clips to a dataset of frozen Inception-ResNet-v2 features, 3 x 3 x 1536 for each clip.

  melcache cache --data=data/notes --output=data/notes_features --weights=imagenet

The network runs once over all splits; `melcache heads` then trains from the features alone.
"""

from absl import flags

from launch import command, quiet

FLAGS = flags.FLAGS

flags.DEFINE_string("data", None, "The log-mel dataset directory that `melcache prepare` made.")
flags.DEFINE_string(
    "output", None, "The feature dataset directory to make; the same command continues an interrupted run."
)
flags.DEFINE_string(
    "weights",
    "imagenet",
    "imagenet (Keras's own download and cache), a Keras weights file (.weights.h5 "
    "or .h5, local or gs://), or random (seeded, batch-norm statistics set from training clips).",
)
flags.DEFINE_integer("seed", 0, "Seed of --weights=random.", lower_bound=0)
flags.DEFINE_integer("batch_size", 64, "Clips in one step of the network.", lower_bound=1)
flags.DEFINE_string(
    "local_cache_dir",
    None,
    "A directory on a local disk: clips on gs:// are copied there once, and TensorFlow reads the "
    "copies. Without it TensorFlow reads gs:// itself.",
)
flags.DEFINE_enum("precision", "float16", ["float16", "float32"], "How features are stored.")


def main(positional, beam_args):
    command.no_positional([*positional, *beam_args])
    command.required(data=FLAGS.data, output=FLAGS.output)
    quiet.import_tensorflow()
    from launch.feature_cache import RANDOM_NOTE, cache_features

    if FLAGS.weights == "random":
        command.note(RANDOM_NOTE)
    spec, clips_per_s = cache_features(
        data=FLAGS.data,
        output=FLAGS.output,
        weights=FLAGS.weights,
        seed=FLAGS.seed,
        batch_size=FLAGS.batch_size,
        precision=FLAGS.precision,
        local_cache_dir=FLAGS.local_cache_dir,
        show_progress=not FLAGS.quiet,
        provenance=command.provenance(data=FLAGS.data),
    )
    weights = spec.settings["weights"]
    command.say(
        f"{spec.num_clips:,} clips of 3 x 3 x 1536 features in {FLAGS.output}, "
        f"{weights['source']} weights ({weights['digest'][:12]}), {clips_per_s:.0f} clips/s"
    )
    return {
        "num_clips": spec.num_clips,
        "clips_per_s": round(clips_per_s, 2),
        "fingerprint": spec.fingerprint,
        "weights": weights,
        "output": FLAGS.output,
    }
