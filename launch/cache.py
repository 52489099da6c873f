"""log-mel clips to a dataset of frozen Inception-ResNet-v2 features, 3 x 3 x 1536 for each clip.

  melcache cache --data=data/notes --output=data/notes_features --weights=imagenet
  melcache cache --data=data/more_notes --output=data/more_features --like=data/notes_features
  melcache cache --manifest=notes.csv --group=group --data=data/notes --output=data/notes_features
  melcache cache --engine=beam --data=gs://bucket/notes --output=gs://bucket/features -- \\
      --runner=DataflowRunner --project=P --region=R --temp_location=gs://bucket/tmp --sdk_container_image=IMAGE

The network runs once over all splits; `melcache heads` then trains from the features alone. With --like, clips are
embedded as those of another feature dataset were, and what is there already is taken from it. With --input or
--manifest, the clips are prepared first, by the flags of `melcache prepare`. Beam's options stand after a bare `--`.
"""

from absl import flags

from launch import command, prepare_flags, quiet

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(prepare_flags)

flags.DEFINE_string(
    "data",
    None,
    "The log-mel dataset directory that `melcache prepare` made; with --input or --manifest, the one to make first "
    "(clips are stored as float16). One that is complete must be of the same recordings and settings.",
)
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
flags.DEFINE_string(
    "like",
    None,
    "A feature dataset directory: its weights, image range, precisions, pooling and variants are used, so that "
    "features can be compared, and features of audio that it holds already are taken from it.",
)
flags.DEFINE_enum(
    "engine",
    "strategy",
    ["strategy", "beam"],
    "strategy: the network runs in this process. beam: on the workers of a Beam job, here or on many machines, which "
    "need TensorFlow. Both make the same features, and one finishes what the other began.",
)
flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "cpu", "mirrored", "tpu", "multiworker"],
    "Which devices the network runs on: auto takes a TPU, else all GPUs, else the CPU.",
)
flags.DEFINE_integer("batch_size", 64, "Clips in one step of the network, over all replicas.", lower_bound=1)
flags.DEFINE_string(
    "local_cache_dir",
    None,
    "A directory on a local disk: clips on gs:// are copied there once, and read from the copies.",
)
flags.DEFINE_enum("precision", "float16", ["float16", "float32"], "How features are stored.")
flags.DEFINE_enum(
    "compute_precision",
    "float32",
    ["float32", "bfloat16"],
    "What the network computes in: bfloat16 is faster on accelerators, and features are off by about a hundredth.",
)
flags.DEFINE_bool("pooled", False, "Store the mean over the 3 x 3 positions, 1536 values for each clip.")
flags.DEFINE_integer(
    "variants",
    0,
    "Changed copies of each training clip (gain, shift, SpecAugment's masks) to embed too, for heads to train on.",
    lower_bound=0,
)
flags.DEFINE_integer("variants_seed", 0, "Seed of what is drawn for --variants.", lower_bound=0)

# Flags that decide the features; each is a field of FeatureSettings of the same name.
_SETTINGS = ("weights", "seed", "precision", "compute_precision", "pooled", "variants", "variants_seed")


def main(positional, beam_args):
    command.no_positional(positional)
    command.required(data=FLAGS.data, output=FLAGS.output)
    from_audio = bool(FLAGS.input or FLAGS.manifest)
    if beam_args and FLAGS.engine != "beam" and not from_audio:
        raise command.UsageError(
            f"{beam_args[0]}: Beam's options after -- need --engine=beam, or --input or --manifest"
        )
    if of_prepare := [] if from_audio else prepare_flags.given():
        raise command.UsageError(f"--{of_prepare[0]} says how clips are prepared: it needs --input or --manifest")
    prepared = _prepare(beam_args) if from_audio else None
    quiet.import_tensorflow()
    from launch.feature_cache import RANDOM_NOTE, cache_features
    from launch.feature_settings import FeatureSettings, settings_like
    from tfdata import layout
    from tfdata.spec import FEATURES

    if FLAGS["seed"].present and not FLAGS.like and FLAGS.weights != "random":
        raise command.UsageError(f"--seed is of random weights, and --weights={FLAGS.weights}: leave it out")
    if FLAGS["variants_seed"].present and not FLAGS.like and not FLAGS.variants:
        raise command.UsageError("--variants_seed without --variants has no meaning: leave it out, or give both")
    given = {name: FLAGS[name].value for name in _SETTINGS if FLAGS[name].present}
    if FLAGS.like:
        settings = settings_like(FLAGS.like, layout.read_spec(FLAGS.like, FEATURES), given)
    else:
        settings = FeatureSettings(**given)
    if settings.weights == "random":
        command.note(RANDOM_NOTE)
    cached = cache_features(
        data=FLAGS.data,
        output=FLAGS.output,
        settings=settings,
        batch_size=FLAGS.batch_size,
        strategy=FLAGS.strategy,
        like=FLAGS.like,
        local_cache_dir=FLAGS.local_cache_dir,
        engine=FLAGS.engine,
        beam_args=beam_args,
        show_progress=not FLAGS.quiet,
        provenance=command.provenance(data=FLAGS.data, like=FLAGS.like),
    )
    spec = cached.spec
    weights = spec.settings["weights"]
    shape = " x ".join(map(str, spec.array.shape))
    variants = f" and {settings.variants} variants of each training clip" if settings.variants else ""
    command.note(f"ran on {cached.devices}")
    if FLAGS.like:
        why = f" ({cached.nothing_taken})" if cached.nothing_taken else ""
        command.say(f"{cached.num_taken:,} taken from {FLAGS.like}{why}, {cached.num_embedded:,} embedded")
    command.say(
        f"{spec.num_clips:,} clips{variants} of {shape} features in {FLAGS.output}, "
        f"{weights['source']} weights ({weights['digest'][:12]}), {cached.clips_per_s:.0f} clips/s"
    )
    return {
        "num_clips": spec.num_clips,
        "num_embedded": cached.num_embedded,
        "num_taken": cached.num_taken,
        "clips_per_s": round(cached.clips_per_s, 2),
        "fingerprint": spec.fingerprint,
        "weights": weights,
        "devices": cached.devices,
        "parity": spec.parity,
        "output": FLAGS.output,
        **({"prepared": prepared} if prepared else {}),
    }


def _prepare(beam_args):
    """Make the clips, or find that they are there; returns what `melcache prepare` tells of them."""
    from beam_preprocess.reuse import clips_of
    from tfdata import layout
    from tfdata.unfinished import Unfinished

    Unfinished(FLAGS.output).check_free(done_marker=layout.COMPLETED)  # before hours of decoding
    with quiet.native_stderr_held():
        spec, made = clips_of(
            output=FLAGS.data,
            settings=prepare_flags.settings(precision="float16"),
            beam_args=beam_args,
            **prepare_flags.arguments(),
            show_progress=not FLAGS.quiet,
            provenance=command.provenance(input=FLAGS.input, manifest=FLAGS.manifest),
        )
    if made:
        prepare_flags.say_what_was_made(spec, FLAGS.data)
    else:
        command.note(f"{FLAGS.data} holds these {spec.num_clips:,} clips already")
    return prepare_flags.told(spec, FLAGS.data)
