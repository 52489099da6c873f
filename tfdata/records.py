"""Examples in, bytes out, and back: tf.train.Example records in TFRecord files, without TensorFlow.

Workers that only prepare audio must not pay for importing TensorFlow, so the message is declared here for the
protobuf library and the framing is written out. tf.data reads the files as its own.

Formats: https://www.tensorflow.org/tutorials/load_data/tfrecord (framing, masked crc32c) and
tensorflow/core/example/{example,feature}.proto.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tfdata.spec import DatasetError

BEFORE_RECORD = 12  # bytes of a TFRecord file before the record itself: its length, and the length's crc
_FIELD = descriptor_pb2.FieldDescriptorProto


def _example_class():
    """tf.train.Example, declared in a descriptor pool of its own so that it never clashes with TensorFlow's."""
    file = descriptor_pb2.FileDescriptorProto(name="melcache/example.proto", package="tensorflow", syntax="proto3")

    def message(name, fields):
        proto = file.message_type.add(name=name)
        for number, (field, kind, type_name, repeated) in enumerate(fields, start=1):
            proto.field.add(
                name=field,
                number=number,
                type=kind,
                type_name=type_name,
                label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL,
            )
        return proto

    message("BytesList", [("value", _FIELD.TYPE_BYTES, None, True)])
    message("FloatList", [("value", _FIELD.TYPE_FLOAT, None, True)])
    message("Int64List", [("value", _FIELD.TYPE_INT64, None, True)])
    feature = message(
        "Feature",
        [
            ("bytes_list", _FIELD.TYPE_MESSAGE, ".tensorflow.BytesList", False),
            ("float_list", _FIELD.TYPE_MESSAGE, ".tensorflow.FloatList", False),
            ("int64_list", _FIELD.TYPE_MESSAGE, ".tensorflow.Int64List", False),
        ],
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message("Features", [("feature", _FIELD.TYPE_MESSAGE, ".tensorflow.Features.FeatureEntry", True)])
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=_FIELD.TYPE_MESSAGE, type_name=".tensorflow.Feature", label=_FIELD.LABEL_OPTIONAL
    )
    message("Example", [("features", _FIELD.TYPE_MESSAGE, ".tensorflow.Features", False)])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


_Example = _example_class()


def encode_example(values: Mapping[str, bytes | int | float]) -> bytes:
    """Serialise one tf.train.Example; equal values give equal bytes."""
    example = _Example()
    feature = example.features.feature
    for key, value in values.items():
        if isinstance(value, bytes):
            feature[key].bytes_list.value.append(value)
        elif isinstance(value, float):
            feature[key].float_list.value.append(value)
        else:
            feature[key].int64_list.value.append(int(value))
    return example.SerializeToString(deterministic=True)


def decode_example(record: bytes) -> dict[str, bytes | int | float]:
    """The inverse of `encode_example`."""
    example = _Example.FromString(record)
    return {
        key: getattr(feature, feature.WhichOneof("kind")).value[0] for key, feature in example.features.feature.items()
    }


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(records: Iterable[bytes]) -> bytes:
    """One TFRecord file's bytes: for each record its length, the length's crc, the record, the record's crc."""
    pieces = []
    for record in records:
        length = struct.pack("<Q", len(record))
        pieces += [length, struct.pack("<I", _masked_crc(length)), record, struct.pack("<I", _masked_crc(record))]
    return b"".join(pieces)


def framed_size(record: bytes) -> int:
    """Bytes that a record takes in a TFRecord file."""
    return BEFORE_RECORD + len(record) + 4


def unframe(data: bytes, *, where: str) -> Iterator[bytes]:
    """The records of one TFRecord file's bytes; `where` names the file in errors.

    Raises:
      DatasetError: a checksum is wrong or the file ends inside a record; names file, record and offset.
    """
    offset = index = 0
    while offset < len(data):
        header = data[offset : offset + BEFORE_RECORD]
        if len(header) < BEFORE_RECORD or struct.unpack("<I", header[8:])[0] != _masked_crc(header[:8]):
            raise DatasetError(f"{where} is damaged: record {index} at byte {offset} has no valid length")
        start = offset + BEFORE_RECORD
        end = start + struct.unpack("<Q", header[:8])[0]
        record, crc = data[start:end], data[end : end + 4]
        if len(crc) < 4 or struct.unpack("<I", crc)[0] != _masked_crc(record):
            raise DatasetError(f"{where} is damaged: record {index} at byte {offset} is cut off or was changed")
        yield record
        offset, index = end + 4, index + 1
