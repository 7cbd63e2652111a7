"""Compares formats for slices: bytes on disk, and the time to write and to read them.

Run from the project's root: python -m benchmarks.storage DATASET

raw    the project's records as they are: uint8 image [H, W, 3] and labels [H, W]
gzip   the same records in a shard compressed as a whole, which TFRecord readers understand
png    image and labels of each record as PNG

Reading is a tf.data chain on all cores: parse, decode, batch of 32, nothing else. Encoding is one
core's time for what differs between them: nothing, ISA-L's compression, Pillow's PNG.
"""

import trainer  # noqa: F401, I001  before tensorflow: sets up its environment
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from isal import igzip
from PIL import Image

from segthor import records
from segthor.organs import SEGTHOR
from segthor.manifest import Dataset

ROUNDS = 5


def main(folder):
    dataset = Dataset.load(folder)
    shard = max(dataset.shards, key=lambda one: one.records)
    path = str(Path(folder) / shard.file)
    size, context = dataset.recipe.size_px, dataset.recipe.context
    with open(path, "rb") as stream:
        payloads = list(records.read_frames(stream, path))
    print(f"{len(payloads)} slices of {size}x{size}x{context} with labels, medians of {ROUNDS}")
    print("        bytes per slice   encode ms per slice   read slices/s")
    with tempfile.TemporaryDirectory() as place:
        for name, write, reader in (
            ("raw", write_raw, lambda p: raw_reader(p, "", size, context)),
            ("gzip", write_gzip, lambda p: raw_reader(p, "GZIP", size, context)),
            ("png", write_png, lambda p: png_reader(p, size, context)),
        ):
            target = str(Path(place) / name)
            seconds = write(payloads, target)
            each = Path(target).stat().st_size / len(payloads)
            rate = np.median([len(payloads) / read(reader(target)) for _ in range(ROUNDS)])
            print(f"  {name:5} {each:14.0f} {seconds / len(payloads) * 1000:20.2f} {rate:16.0f}")


def write_raw(payloads, path) -> float:
    with open(path, "wb") as stream:
        for payload in payloads:
            stream.writelines(records.frame(payload))
    return 0.0


def write_gzip(payloads, path) -> float:
    plain = io.BytesIO()
    for payload in payloads:
        plain.writelines(records.frame(payload))
    started = time.process_time()
    packed = igzip.compress(plain.getvalue(), 2)
    seconds = time.process_time() - started
    Path(path).write_bytes(packed)
    return seconds


def write_png(payloads, path) -> float:
    found, started = [], time.process_time()
    for payload in payloads:
        record = records.decode(payload)
        pictures = []
        for array in (record.image, record.labels):
            stream = io.BytesIO()
            Image.fromarray(array).save(stream, "PNG", compress_level=1)
            pictures.append(stream.getvalue())
        found.append(pictures)
    seconds = time.process_time() - started
    with open(path, "wb") as stream:
        for image, labels in found:
            features = {
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                for name, value in ((records.IMAGE, image), (records.LABELS, labels))
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            stream.writelines(records.frame(example.SerializeToString()))
    return seconds


def raw_reader(path, compression, size, context):
    chain = tf.data.TFRecordDataset(path, compression_type=compression)
    return chain.map(
        lambda one: records.parse(one, size, context, num_organs=len(SEGTHOR)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def png_reader(path, size, context):
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "labels")}

    def parse(serialized):
        values = tf.io.parse_single_example(serialized, features)
        image = tf.ensure_shape(tf.io.decode_png(values["image"], context), (size, size, context))
        return {"image": image, "labels": tf.io.decode_png(values["labels"], 1)}

    return tf.data.TFRecordDataset(path).map(parse, num_parallel_calls=tf.data.AUTOTUNE)


def read(chain) -> float:
    started = time.perf_counter()
    for _ in chain.batch(32).prefetch(2):
        pass
    return time.perf_counter() - started


if __name__ == "__main__":
    main(sys.argv[1])
