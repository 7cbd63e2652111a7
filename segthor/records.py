"""The record, one axial slice as a TFRecord: its schema, its writer and its readers.

The writer needs no TensorFlow: it encodes the Example message by its public schema, and frames it
as a TFRecord with masked CRC-32C checksums
(https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details).
`parse` reads records with TensorFlow, `decode` without.
"""

import functools
import itertools
import struct
from dataclasses import dataclass

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from segthor import files
from segthor.errors import InputError
from segthor.organs import Organs

PATIENT = "patient"  # bytes: the patient's name
Z = "z"  # int64: the slice's number, from inferior to superior
IMAGE = "image"  # bytes: uint8 [H, W, C], windowed, row-major
LABELS = "labels"  # bytes: uint8 [H, W], row-major
SHAPE = "shape"  # int64 [3]: H, W, C
PRESENT = "organs_present"  # int64 [K], organs of the table: 1 if the slice has a voxel of it
CONTOURED = "organs_contoured"  # int64 [K]: 1 if the organ was contoured in this patient
SCAN_SHAPE = "scan_shape"  # int64 [3]: X, Y, Z of the scan in LPS order
AFFINE = "affine"  # float32 [16]: row-major, index in LPS order to RAS+ mm; origin to 0.1 mm
BOX_PX = "box_px"  # float32 [4]: first row, first column, row step, column step, in scan pixels
LEVEL_HU = "window_level_hu"  # float32
WIDTH_HU = "window_width_hu"  # float32

_PIECE_BYTES = 1 << 24
_Kinds = descriptor_pb2.FieldDescriptorProto


@dataclass(frozen=True)
class Slice:
    """One record. The fields hold the values of the keys above, in their shapes and units."""

    patient: str
    z: int
    image: np.ndarray
    labels: np.ndarray
    present: tuple[int, ...]
    contoured: tuple[int, ...]
    scan_shape: tuple[int, int, int]
    affine: np.ndarray
    box_px: tuple[float, float, float, float]
    level_hu: float
    width_hu: float


def present_in(labels: np.ndarray, organs: Organs) -> tuple[int, ...]:
    """For each organ 1 if it has a voxel in a slice's labels, uint8 [H, W], else 0."""
    plane = labels.tobytes()  # searching bytes is a fast call of the C library
    return tuple(int(organ.label in plane) for organ in organs)


def encode(record: Slice) -> bytes:
    """The serialized tf.train.Example, with sorted keys; equal records give equal bytes.

    Does not use protobuf, which would copy each image three times and take ten times as long.
    """
    entries = {
        PATIENT: _bytes(PATIENT, record.patient.encode(errors="surrogatepass")),
        IMAGE: _bytes(IMAGE, _flat(record.image)),
        LABELS: _bytes(LABELS, _flat(record.labels)),
        Z: _int64s(Z, (record.z,)),
        SHAPE: _int64s(SHAPE, record.image.shape),
        PRESENT: _int64s(PRESENT, record.present),
        CONTOURED: _int64s(CONTOURED, record.contoured),
        SCAN_SHAPE: _int64s(SCAN_SHAPE, record.scan_shape),
        AFFINE: _floats(AFFINE, record.affine),
        BOX_PX: _floats(BOX_PX, record.box_px),
        LEVEL_HU: _floats(LEVEL_HU, (record.level_hu,)),
        WIDTH_HU: _floats(WIDTH_HU, (record.width_hu,)),
    }
    pieces = itertools.chain.from_iterable(entries[key] for key in sorted(entries))
    return b"".join(_field(1, *pieces))


def decode(serialized: bytes) -> Slice:
    """The inverse of `encode`, without TensorFlow; floats are float32."""
    example = _Example()
    example.ParseFromString(serialized)
    feature = {entry.key: entry.value for entry in example.features.feature}
    height, width, channels = feature[SHAPE].int64_list.value
    image = np.frombuffer(feature[IMAGE].bytes_list.value[0], np.uint8)
    labels = np.frombuffer(feature[LABELS].bytes_list.value[0], np.uint8)
    return Slice(
        patient=feature[PATIENT].bytes_list.value[0].decode(errors="surrogatepass"),
        z=feature[Z].int64_list.value[0],
        image=image.reshape(height, width, channels),
        labels=labels.reshape(height, width),
        present=tuple(feature[PRESENT].int64_list.value),
        contoured=tuple(feature[CONTOURED].int64_list.value),
        scan_shape=tuple(np.reshape(feature[SCAN_SHAPE].int64_list.value, 3).tolist()),
        affine=np.array(feature[AFFINE].float_list.value, np.float32).reshape(4, 4),
        box_px=tuple(np.reshape(feature[BOX_PX].float_list.value, 4).tolist()),
        level_hu=feature[LEVEL_HU].float_list.value[0],
        width_hu=feature[WIDTH_HU].float_list.value[0],
    )


def parse(serialized, size_px: int, context: int, num_organs: int) -> dict:
    """Reads a record with TensorFlow, for `tf.data.Dataset.map`.

    serialized: A string tensor []. size_px: H and W. context: C. num_organs: K.

    Returns:
      IMAGE uint8 [H, W, C], LABELS uint8 [H, W], PRESENT and CONTOURED int64 [K], PATIENT string
      [], Z int64 [].
    """
    import tensorflow as tf  # here, so that the data job's workers need not load it

    values = tf.io.parse_single_example(
        serialized,
        {
            PATIENT: tf.io.FixedLenFeature([], tf.string),
            Z: tf.io.FixedLenFeature([], tf.int64),
            IMAGE: tf.io.FixedLenFeature([], tf.string),
            LABELS: tf.io.FixedLenFeature([], tf.string),
            PRESENT: tf.io.FixedLenFeature([num_organs], tf.int64),
            CONTOURED: tf.io.FixedLenFeature([num_organs], tf.int64),
        },
    )
    image = tf.io.decode_raw(values[IMAGE], tf.uint8)
    labels = tf.io.decode_raw(values[LABELS], tf.uint8)
    return {
        **values,
        IMAGE: tf.reshape(image, [size_px, size_px, context]),
        LABELS: tf.reshape(labels, [size_px, size_px]),
    }


def frame(payload: bytes) -> tuple[bytes, bytes, bytes]:
    """The three parts of a TFRecord frame, to be written one after the other."""
    length = struct.pack("<Q", len(payload))
    return length + _masked_crc(length), payload, _masked_crc(payload)


def read_frames(stream, path: str):
    """Yields the payload of each TFRecord frame; raises InputError at the first damaged frame."""
    number = 0
    while head := stream.read(12):
        if len(head) < 12 or _masked_crc(head[:8]) != head[8:]:
            raise InputError(f"{path}: record {number} has a damaged length; build the shard again")
        size = struct.unpack("<Q", head[:8])[0]
        payload, crc = _read(stream, size), stream.read(4)
        if len(payload) < size or _masked_crc(payload) != crc:
            raise InputError(
                f"{path}: record {number} is damaged or cut off; build the shard again"
            )
        yield payload
        number += 1


def _read(stream, size: int) -> bytes:
    """Reads in pieces, because a damaged length may be larger than the memory."""
    pieces = []
    while size > 0 and (piece := stream.read(min(size, _PIECE_BYTES))):
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def check_lengths(path: str) -> None:
    """Checks the lengths of a shard's records against the size of the file; skips their content.

    Raises:
      InputError: The file ends inside a record.
    """
    end = files.size(path)
    number = offset = 0
    with files.open_read(path) as stream:
        while offset < end:
            stream.seek(offset)
            offset += 12 + int.from_bytes(stream.read(12)[:8], "little") + 4
            if offset > end:
                raise InputError(
                    f"{path}: record {number} is longer than the file; build the shard again"
                )
            number += 1


def payloads(path: str):
    """Yields the serialized Example of each record of a shard; raises as `read_frames` does."""
    with files.open_read(path) as stream:
        yield from read_frames(stream, path)


def slices(path: str):
    """Yields each record of a shard; raises InputError for a damaged one or another schema."""
    for number, payload in enumerate(payloads(path)):
        try:
            record = decode(payload)
        except Exception as error:  # protobuf and numpy raise many types
            raise InputError(f"{path}: record {number} cannot be decoded ({error})") from error
        yield record


def _flat(array: np.ndarray) -> memoryview:
    """The bytes of the array in row-major order, without a copy where it already is."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _bytes(key: str, value: bytes | memoryview) -> tuple:
    return _head(key, len(value)), value


@functools.lru_cache(4096)  # the bytes before a value depend only on its length
def _head(key: str, length: int) -> bytes:
    return b"".join(_entry(key, _field(1, *_field(1, bytes(length))))[:-1])


def _floats(key: str, values) -> tuple[bytes]:
    return _float_bytes(key, np.asarray(values, "<f4").tobytes())


# Neighbouring slices have mostly equal values. The cache's key is their bytes, since -0.0 == 0.0.
@functools.lru_cache(4096)
def _float_bytes(key: str, values: bytes) -> tuple[bytes]:
    return (b"".join(_entry(key, _field(2, *_field(1, values)))),)


@functools.lru_cache(4096)
def _int64s(key: str, values: tuple[int, ...]) -> tuple[bytes]:
    return (b"".join(_entry(key, _field(3, *_field(1, *map(_varint, values))))),)


def _entry(key: str, feature: tuple) -> tuple:
    """One key and its Feature in the map of an Example's features."""
    return _field(1, *_field(1, key.encode()), *_field(2, *feature))


def _field(number: int, *pieces: bytes | memoryview) -> tuple:
    """A length-delimited field (https://protobuf.dev/programming-guides/encoding), in pieces."""
    return bytes((number << 3 | 2,)), _varint(sum(map(len, pieces))), *pieces


def _varint(value: int) -> bytes:
    """A non-negative integer with seven bits per byte, lowest first."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _example_class():
    """The class of tensorflow/core/example/example.proto's message, in a separate pool.

    An encoded map is a list of entries of key and value, and is declared as such.
    """
    proto = descriptor_pb2.FileDescriptorProto(
        name="segthor/example.proto", package="segthor", syntax="proto3"
    )
    one, many = _Kinds.LABEL_OPTIONAL, _Kinds.LABEL_REPEATED
    lists = {"Bytes": _Kinds.TYPE_BYTES, "Float": _Kinds.TYPE_FLOAT, "Int64": _Kinds.TYPE_INT64}
    for name, kind in lists.items():
        _declare(proto, f"{name}List", value=(many, kind))
    _declare(proto, "Feature", **{f"{name.lower()}_list": (one, f"{name}List") for name in lists})
    _declare(proto, "Entry", key=(one, _Kinds.TYPE_STRING), value=(one, "Feature"))
    _declare(proto, "Features", feature=(many, "Entry"))
    _declare(proto, "Example", features=(one, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("segthor.Example"))


def _declare(proto, name: str, **fields) -> None:
    """Declares a message. fields: Name to (label, scalar type or name of a message)."""
    message = proto.message_type.add(name=name)
    for number, (field, (label, kind)) in enumerate(fields.items(), 1):
        declared = message.field.add(name=field, number=number, label=label)
        if isinstance(kind, str):
            declared.type, declared.type_name = _Kinds.TYPE_MESSAGE, f".segthor.{kind}"
        else:
            declared.type = kind


_Example = _example_class()
