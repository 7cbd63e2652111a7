"""Draws what the network sees: training slices as stored and as augmented, with their contours.

python -m trainer.preview --flagfile=configs/all.flags --data=DATASET --output=preview.png

Takes the flags of trainer.main. Each row is a patient's slice with most organs; the first column
shows it as stored, the others what it would be at one step of the run that the flags describe.
"""

import numpy as np
from absl import flags

from segthor import drawing, files, flags_of, outputs, records, startup
from segthor.errors import run
from segthor.organs import Organs
from trainer import main as training
from trainer import sources
from trainer.config import Config

TILE_PX = 224

_OUTPUT = flags.DEFINE_string("output", "preview.png", "The PNG file to write.")
_PATIENTS = flags.DEFINE_integer("patients", 4, "Patients to show.", 1, 100)
_VERSIONS = flags.DEFINE_integer("versions", 5, "Augmented versions of each.", 1, 100)


def main(_):
    """Reads the slices, augments them as at the run's first steps, draws all."""
    outputs.check_file(_OUTPUT.value, ".png", outputs.picture, {"data": training.DATA.value})
    config = flags_of.read(Config)
    source = sources.open_source(training.DATA.value, config.held_out_fold)
    config = config.of_table(source.organs)
    slices = fullest(source, _PATIENTS.value)
    startup.load_tensorflow()
    steps = (None, *range(_VERSIONS.value))
    columns = [drawn(slices, step, config, source.organs) for step in steps]
    tiles, captions = zip(
        *(cell for row in zip(*columns, strict=True) for cell in row), strict=True
    )
    note = "dashed: contoured, moved with the slice"
    sheet = drawing.sheet(tiles, len(columns), captions, note, organs=source.organs)
    drawing.save_png(_OUTPUT.value, sheet)
    print(f"Wrote {_OUTPUT.value}: {len(slices)} slices as stored and at {_VERSIONS.value} steps")


def fullest(source: sources.Source, count: int) -> list[records.Slice]:
    """Of each of the first training patients, the slice that holds most organs."""
    best = {}
    for shard in source.train:
        if len(best) >= count:
            break
        for found in records.slices(files.join(source.folder, shard.file)):
            known = best.setdefault(found.patient, found)
            best[found.patient] = max(known, found, key=lambda slice_: sum(slice_.present))
    return [best[patient] for patient in sorted(best)][:count]


def drawn(
    slices: list[records.Slice], step: int | None, config, organs: Organs
) -> list[tuple[np.ndarray, str]]:
    """Picture and caption of each slice: as stored where `step` is None, else augmented."""
    import tensorflow as tf  # takes seconds; bad input is told before

    from trainer import augment
    from trainer.exchange import exchange_sides

    images, labels = (np.stack([getattr(s, name) for s in slices]) for name in ("image", "labels"))
    captions = [f"{s.patient}, slice {s.z}" for s in slices]
    if step is not None:
        place, seed = tf.range(len(slices)), tf.constant([config.seed, step])
        choices = place, seed, config.augment
        contoured = tf.constant([one.contoured for one in slices])
        images, labels = augment.augment(tf.constant(images), tf.constant(labels), *choices)
        labels, _ = exchange_sides(labels, contoured, *choices, organs)
        captions = [f"at step {step}"] * len(slices)
    middle = np.rint(images)[..., images.shape[-1] // 2].astype(np.uint8)
    scale = max(1, round(TILE_PX / middle.shape[1]))
    return [
        (drawing.overlay(image, truth=truth, scale=scale, organs=organs), caption)
        for image, truth, caption in zip(middle, np.asarray(labels), captions, strict=True)
    ]


if __name__ == "__main__":
    run(main)
