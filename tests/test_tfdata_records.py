"""Our records against TensorFlow's own reader and writer, and damage named."""

import numpy as np
import pytest
import tensorflow as tf

from tfdata import records, schema
from tfdata.spec import ArraySpec


def tf_example(values):
    def feature(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    return tf.train.Example(features=tf.train.Features(feature={key: feature(value) for key, value in values.items()}))


VALUES = {"id": "a/flöte.wav@0".encode(), "label": 3, "negative": -7, "start_s": 0.5, "array": bytes(range(256))}


def test_tensorflow_reads_what_we_encode():
    assert tf.train.Example.FromString(records.encode_example(VALUES)) == tf_example(VALUES)


def test_we_read_what_tensorflow_encodes():
    assert records.decode_example(tf_example(VALUES).SerializeToString()) == VALUES


def test_tfrecord_files_go_both_ways(tmp_path):
    written = [b"", b"one", bytes(70_000)]
    (tmp_path / "ours").write_bytes(records.frame(written))
    assert list(tf.data.TFRecordDataset(str(tmp_path / "ours")).as_numpy_iterator()) == written
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in written:
            writer.write(record)
    assert list(records.unframe((tmp_path / "theirs").read_bytes(), where="theirs")) == written


@pytest.mark.parametrize("damage", ["flip", "cut", "cut_header"])
def test_damage_is_named_with_file_record_and_offset(damage):
    data = bytearray(records.frame([b"first", b"second"]))
    second = 12 + 5 + 4
    if damage == "flip":
        data[second + 13] ^= 1
    data = data[: {"flip": len(data), "cut": len(data) - 3, "cut_header": second + 5}[damage]]
    with pytest.raises(ValueError, match=f"shard-7 is damaged: record 1 at byte {second}"):
        list(records.unframe(bytes(data), where="shard-7"))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_tf_data_parses_a_clip_as_it_was_encoded(dtype):
    spec = ArraySpec(name="log_mel", shape=(4, 3), dtype=dtype)
    array = np.linspace(-20, 5, 12).reshape(4, 3)
    clip = schema.Clip(
        recording="a/ü b.wav", start_s=1.5, duration_s=1.0, label=2, group="g", fold=3, content_hash="c0ffee",
        peak=0.5, rms=0.25, num_clipped=7, metadata={"pitch": "C4"},
    )  # fmt: skip
    parsed = tf.io.parse_single_example(
        schema.encode_clip(clip, array, spec),
        {"id": tf.io.FixedLenFeature((), tf.string), "label": tf.io.FixedLenFeature((), tf.int64),
         "metadata/pitch": tf.io.FixedLenFeature((), tf.string), "log_mel": tf.io.FixedLenFeature((), tf.string)},
    )  # fmt: skip
    assert (
        parsed["id"].numpy().decode() == "a/ü b.wav@1.5" and parsed["label"] == 2 and parsed["metadata/pitch"] == b"C4"
    )
    np.testing.assert_array_equal(tf.reshape(tf.io.decode_raw(parsed["log_mel"], dtype), (4, 3)), array.astype(dtype))
