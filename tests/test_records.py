"""The record: keys pinned, writer and readers a pair, and TensorFlow agrees."""

import dataclasses
import io
import struct
import tracemalloc

import numpy as np
import pytest

from segthor import records
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organ, Organs


def a_slice(seed=0, size=8, context=3):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 4], (size, size)).astype(np.uint8)
    return records.Slice(
        patient="Patient_01",
        z=17,
        image=rng.integers(0, 256, (size, size, context)).astype(np.uint8),
        labels=labels,
        present=records.present_in(labels, SEGTHOR),
        contoured=(1, 1, 0, 1),
        scan_shape=(512, 512, 177),
        affine=np.arange(16, dtype=np.float32).reshape(4, 4),
        box_px=(10.5, -3.25, 1.0, 1.0),
        level_hu=63.5,
        width_hu=350.0,
    )


def test_keys_are_pinned():
    named = {name: value for name, value in vars(records).items() if name.isupper()}
    assert {
        name: value for name, value in named.items() if name[0] != "_" and isinstance(value, str)
    } == {
        "PATIENT": "patient",
        "Z": "z",
        "IMAGE": "image",
        "LABELS": "labels",
        "SHAPE": "shape",
        "PRESENT": "organs_present",
        "CONTOURED": "organs_contoured",
        "SCAN_SHAPE": "scan_shape",
        "AFFINE": "affine",
        "BOX_PX": "box_px",
        "LEVEL_HU": "window_level_hu",
        "WIDTH_HU": "window_width_hu",
    }


def test_decode_undoes_encode():
    source, back = a_slice(), records.decode(records.encode(a_slice()))
    for field in source.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(back, field), getattr(source, field))
    assert source.present == (1, 0, 0, 1)


def test_an_organ_is_present_whatever_its_label_and_its_place_in_the_table():
    rows = [Organ(f"o{label}", label, (1, 2, 3)) for label in (255, 8, 1, 64)]
    labels = np.zeros((4, 4), np.uint8)
    labels[1, 2], labels[3, 3], labels[0, 0] = 255, 64, 9
    assert records.present_in(labels, Organs(tuple(rows))) == (1, 0, 0, 1)


def test_equal_records_are_equal_bytes():
    assert records.encode(a_slice()) == records.encode(a_slice())


@pytest.mark.parametrize("size", [1, 8, 96, 128])
def test_protobuf_writes_the_same_bytes(size):
    import tensorflow as tf

    for z in (0, 1, 127, 128, 16_383, 16_384, 2**40):
        encoded = records.encode(
            dataclasses.replace(a_slice(size=size), z=z, patient="P" * (z % 300))
        )
        example = tf.train.Example.FromString(encoded)
        assert example.SerializeToString(deterministic=True) == encoded


def test_a_zero_keeps_its_sign_whatever_was_written_before():
    for level_hu in (0.0, -0.0, 0.0):
        affine = np.full((4, 4), level_hu)
        record = dataclasses.replace(a_slice(), level_hu=level_hu, affine=affine)
        found = records.decode(records.encode(record))
        signs = np.signbit([found.level_hu, *found.affine.ravel()])
        assert (signs == np.signbit(level_hu)).all()


def test_tensorflow_reads_what_was_written(tmp_path):
    import tensorflow as tf

    path = str(tmp_path / "a.tfrecord")
    sources = [a_slice(seed) for seed in range(5)]
    with open(path, "wb") as stream:
        for source in sources:
            stream.writelines(records.frame(records.encode(source)))
    chain = tf.data.TFRecordDataset(path).map(
        lambda s: records.parse(s, 8, 3, num_organs=len(SEGTHOR))
    )
    for source, read in zip(sources, chain.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(read["image"], source.image)
        np.testing.assert_array_equal(read["labels"], source.labels)
        assert read["patient"] == b"Patient_01" and read["z"] == 17
        assert tuple(read["organs_present"]) == source.present
        assert tuple(read["organs_contoured"]) == source.contoured
    example = tf.train.Example.FromString(records.encode(sources[0]))
    assert len(example.features.feature) == 12
    assert example.features.feature["window_level_hu"].float_list.value[0] == 63.5


def test_we_read_what_tensorflow_wrote(tmp_path):
    import tensorflow as tf

    path = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(b"one")
        writer.write(b"")
        writer.write(b"three")
    with open(path, "rb") as stream:
        assert list(records.read_frames(stream, path)) == [b"one", b"", b"three"]


@pytest.mark.parametrize("size", [2**60, 2**63 + 5, 2**31, 3 * 2**24])
def test_a_length_beyond_the_file_is_one_line_and_takes_no_memory(size):
    length = struct.pack("<Q", size)
    content = length + records._masked_crc(length) + bytes(100)
    tracemalloc.start()
    with pytest.raises(InputError, match="shard.tfrecord: record 0 is damaged or cut off"):
        list(records.read_frames(io.BytesIO(content), "shard.tfrecord"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def test_a_frame_beyond_a_piece_is_read_whole():
    payload = np.random.default_rng(0).bytes(2 * records._PIECE_BYTES + 7)
    stream = io.BytesIO(b"".join(records.frame(payload)) + b"".join(records.frame(b"next")))
    assert list(records.read_frames(stream, "x")) == [payload, b"next"]


def test_a_name_that_is_not_utf8_comes_back():
    record = dataclasses.replace(a_slice(), patient="P\udcff")
    assert records.decode(records.encode(record)).patient == "P\udcff"


def test_every_flipped_byte_and_every_cut_is_found():
    stream = io.BytesIO()
    stream.writelines(records.frame(b"some payload"))
    stream.writelines(records.frame(b"another"))
    whole = stream.getvalue()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        with pytest.raises(InputError, match="shard.tfrecord: record [01]"):
            list(records.read_frames(io.BytesIO(bytes(damaged)), "shard.tfrecord"))
    for length in range(1, len(whole)):
        if length != 16 + len(b"some payload"):
            with pytest.raises(InputError, match="shard.tfrecord: record [01]"):
                list(records.read_frames(io.BytesIO(whole[:length]), "shard.tfrecord"))
