"""Shards that are not what the manifest promises: one line that names the shard, never a crash."""

import dataclasses

import numpy as np
import pytest
import slices
from google.protobuf import message
from programs import run

from segthor import files, records
from segthor.errors import InputError
from trainer import data, failures, sources
from trainer.config import Config

BATCH = 4


def without_its_labels(payload):
    example = records._Example.FromString(payload)
    kept = [entry for entry in example.features.feature if entry.key != records.LABELS]
    del example.features.feature[:]
    example.features.feature.extend(kept)
    return example.SerializeToString()


def with_labels_for_an_image(payload):
    example = records._Example.FromString(payload)
    labels = next(entry for entry in example.features.feature if entry.key == records.LABELS)
    labels.value.Clear()
    labels.value.int64_list.value[:] = [1, 2]
    return example.SerializeToString()


def of_another_size(payload):
    one = records.decode(payload)
    return records.encode(dataclasses.replace(one, image=one.image[:16], labels=one.labels[:16]))


def with_an_unknown_label(payload):
    one = records.decode(payload)
    return records.encode(dataclasses.replace(one, labels=np.full_like(one.labels, 9)))


def no_message(payload):
    with pytest.raises(message.DecodeError):
        records._Example.FromString(b"\xff" * 40)
    return b"\xff" * 40


DAMAGES = [
    without_its_labels,
    with_labels_for_an_image,
    of_another_size,
    with_an_unknown_label,
    no_message,
]


def replace_shard(folder, dataset, split, content):
    """Writes another content under a shard's name, and its size into the manifest."""
    (place, shard) = next(p for p in enumerate(dataset.shards) if p[1].split == split)
    path = folder / shard.file
    path.write_bytes(content(path))
    changed = dataclasses.replace(shard, bytes=path.stat().st_size, sha256=files.sha256(str(path)))
    shards = (*dataset.shards[:place], changed, *dataset.shards[place + 1 :])
    dataclasses.replace(dataset, shards=shards).save(str(folder))
    return path


def with_third_record(change):
    def content(path):
        payloads = list(records.payloads(str(path)))
        payloads[2] = change(payloads[2])
        return b"".join(b"".join(records.frame(payload)) for payload in payloads)

    return content


def with_a_length_that_no_memory_holds(path):
    """2^60 bytes, under a checksum that is right."""
    first = b"".join(records.frame(next(records.payloads(str(path)))))
    length = (1 << 60).to_bytes(8, "little")
    return first + length + records._masked_crc(length) + path.read_bytes()[len(first) + 12 :]


def read_all(source, split):
    if split == "train":
        rows = data.training(source, Config(shuffle_buffer=8), BATCH).take(100)
    else:
        rows = data.evaluation(source, BATCH)
    for _ in rows.as_numpy_iterator():
        pass


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("change", DAMAGES)
def test_a_record_that_is_no_slice_ends_in_a_line_that_names_shard_and_record(
    tmp_path, split, change
):
    path = replace_shard(tmp_path, slices.make(tmp_path), split, with_third_record(change))
    source = sources.open_source(str(tmp_path), None)
    if change is with_an_unknown_label:  # only the network's channels cannot take it
        assert failures.find_damage(source) == f"{path}: record 2 has a label 9"
        return
    with pytest.raises(InputError) as refused, failures.as_input_errors(source, "run", False):
        read_all(source, split)
    assert f"{path}: record 2 is not a slice of this dataset" in str(refused.value)
    assert f"python -m beam_jobs.verify --data={tmp_path}" in str(refused.value)


def test_a_flipped_bit_is_named_and_a_healthy_dataset_is_not_blamed(tmp_path):
    dataset = slices.make(tmp_path)
    source = sources.open_source(str(tmp_path), None)
    assert failures.find_damage(source) is None
    read_all(source, "train"), read_all(source, "validation")
    path = tmp_path / dataset.shards[1].file
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{path}: record . is damaged"):
        with failures.as_input_errors(source, "run", False):
            read_all(source, "train")


def test_an_error_that_no_shard_explains_stays_what_it_is(tmp_path):
    import tensorflow as tf

    slices.make(tmp_path)
    source = sources.open_source(str(tmp_path), None)
    with pytest.raises(tf.errors.InvalidArgumentError):
        with failures.as_input_errors(source, "run", False):
            tf.reshape(tf.zeros([4]), [3])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_length_that_no_memory_holds_does_not_crash_the_trainer(tmp_path, split):
    folder = tmp_path / "data's"
    folder.mkdir()
    dataset = slices.make(folder, size=96)
    path = replace_shard(folder, dataset, split, with_a_length_that_no_memory_holds)
    command = ["-m", "trainer.main", f"--data={folder}", f"--workdir={tmp_path / 'run'}"]
    command += ["--decoder=pspnet", "--backbone=resnet18", "--batch_size=4", "--steps=2"]
    command += slices.NO_AUGMENTATION
    # Also at the end of an interpreter with threads.
    done = run(command, cold=split == "train", tiny=True)
    assert done.returncode == 2, done.stderr[-2000:]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {path}: record 1 is longer than the file")
    assert f"beam_jobs.verify --data='{tmp_path}/data'\"'\"'s'" in line


def test_a_shard_of_a_patient_that_the_manifest_does_not_describe_is_refused(tmp_path):
    dataset = slices.make(tmp_path)
    dataclasses.replace(dataset, patients=dataset.patients[1:]).save(str(tmp_path))
    with pytest.raises(InputError, match="lists .Patient_01., which has no row of its own"):
        sources.open_source(str(tmp_path), None)
