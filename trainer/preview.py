"""Draws training slices with their contours, as stored and as augmented.

python -m trainer.preview --flagfile=configs/all.flags --data=DATASET --output=preview.png

Takes the flags of trainer.main. Each row shows the slice of a patient with most organs: in the
first column as stored, in the others as augmented at the first steps of the run.
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
    """Reads slices, augments and draws them."""
    outputs.check_file(_OUTPUT.value, ".png", outputs.picture, {"data": training.DATA.value})
    config = flags_of.read(Config)
    patients = config.train_patients, config.draw
    source = sources.open_source(training.DATA.value, config.held_out_fold, *patients)
    config = config.of_table(source.organs).of_patients(source.train_patients)
    slices = read_fullest_slices(source, _PATIENTS.value)
    startup.load_tensorflow()
    steps = (None, *range(_VERSIONS.value))
    columns = [draw_slices(slices, step, config, source.organs) for step in steps]
    tiles, captions = zip(
        *(cell for row in zip(*columns, strict=True) for cell in row), strict=True
    )
    legend = "dashed: contoured, moved with the slice"
    sheet = drawing.sheet(tiles, len(columns), captions, legend, organs=source.organs)
    drawing.save_png(_OUTPUT.value, sheet)
    print(f"Wrote {_OUTPUT.value}: {len(slices)} slices as stored and at {_VERSIONS.value} steps")


def read_fullest_slices(source: sources.Source, count: int) -> list[records.Slice]:
    """Reads the slice with most organs of each of the first `count` training patients."""
    fullest = {}
    for shard in source.train:
        if len(fullest) >= count:
            break
        for record in records.slices(files.join(source.folder, shard.file)):
            if source.chosen is not None and record.patient not in source.chosen:
                continue
            best = fullest.setdefault(record.patient, record)
            fullest[record.patient] = max(best, record, key=lambda one: sum(one.present))
    return [fullest[patient] for patient in sorted(fullest)][:count]


def draw_slices(
    slices: list[records.Slice], step: int | None, config, organs: Organs
) -> list[tuple[np.ndarray, str]]:
    """Draws each slice; returns pairs of picture and caption.

    step: Step of the run at which to augment the slices; None: as stored.
    """
    import tensorflow as tf  # slow import: report bad input first

    from trainer import augment
    from trainer.exchange import exchange_sides

    images, labels = (np.stack([getattr(s, name) for s in slices]) for name in ("image", "labels"))
    captions = [f"{s.patient}, slice {s.z}" for s in slices]
    if step is not None:
        draw = tf.range(len(slices)), tf.constant([config.seed, step]), config.augment
        contoured = tf.constant([one.contoured for one in slices])
        images, labels = augment.augment(tf.constant(images), tf.constant(labels), *draw)
        labels, _ = exchange_sides(labels, contoured, *draw, organs)
        captions = [f"at step {step}"] * len(slices)
    middle = np.rint(images)[..., images.shape[-1] // 2].astype(np.uint8)
    scale = max(1, round(TILE_PX / middle.shape[1]))
    return [
        (drawing.overlay(image, truth=truth, scale=scale, organs=organs), caption)
        for image, truth, caption in zip(middle, np.asarray(labels), captions, strict=True)
    ]


if __name__ == "__main__":
    run(main)
