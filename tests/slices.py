"""A dataset of a few made-up slices, for the trainer's tests: quick to write, possible to learn."""

import dataclasses

import numpy as np

from segthor import files, organs, records
from segthor.geometry import Placement
from segthor.manifest import TRAIN, VALIDATION, Audit, Built, Dataset, Shard
from segthor.recipe import Recipe
from trainer.strengths import Strengths

FOLDS = 3
# Flags of trainings that augment nothing, for laws about everything else: to trace augmentation is
# a quarter of what a short training takes.
NO_AUGMENTATION = [f"--augment_{field.name}=0" for field in dataclasses.fields(Strengths)]
NAMES = organs.SEGTHOR.names


def make(
    folder,
    patients=6,
    slices=7,
    size=32,
    context=3,
    seed=0,
    contoured=None,
    folds=FOLDS,
    table=organs.SEGTHOR,
    unannotated=0,
) -> Dataset:
    """Writes FOLDER: one shard per patient, every third patient held out.

    contoured: patient -> names of its contoured organs; all where not given. Patients hold
    between `slices` and `slices` + 2 slices. table: organs of labels from 1 to 4. unannotated:
    so many columns, on the right of each second slice, are ignored voxels.
    """
    rng = np.random.default_rng(seed)
    shards, rows = [], []
    for number in range(patients):
        name = f"Patient_{number + 1:02d}"
        named = (contoured or {}).get(name, table.names)
        split = VALIDATION if number % 3 == 2 else TRAIN
        count = slices + number % 3
        file = f"shards/{split}-{number}.tfrecord"
        path = files.join(str(folder), file)
        files.makedirs(files.parent(path))
        with open(path, "wb") as stream:
            for z in rng.permutation(count):
                one = _slice(rng, name, int(z), size, context, named, table, unannotated)
                stream.writelines(records.frame(records.encode(one)))
        fold = number % folds
        place = Placement.centred(
            (count, size, size), (3.0, 1.5, 1.5), ((size - 1) / 2,) * 2, size, 1.0
        )
        size_bytes, sha = files.size(path), files.sha256(path)
        shards.append(Shard(file, split, fold, count, size_bytes, sha, (name,)))
        rows.append(Built(name, "", "", "", split, fold, count, tuple(named), 50.0, place, Audit()))
    recipe = Recipe(crop_mm=float(size), pixel_mm=1.0, context=context)
    values = (("ignore", 9),) if unannotated else ()
    dataset = Dataset(recipe, folds, tuple(shards), tuple(rows), label_values=values, organs=table)
    dataset.save(str(folder))
    return dataset


def _slice(rng, patient, z, size, context, named, table, unannotated):
    """Noise with a bright square for each of some organs; brighter means a higher label."""
    labels = np.zeros([size, size], np.uint8)
    for organ in table:
        if organ.name in named and rng.random() < 0.7:
            row, column = rng.integers(0, size - size // 4, 2)
            labels[row : row + size // 4, column : column + size // 4] = organ.label
    if unannotated and z % 2:
        labels[:, -unannotated:] = 255
    image = labels[..., None] * 50 + rng.integers(0, 30, (size, size, context))
    return records.Slice(
        patient=patient,
        z=z,
        image=image.astype(np.uint8),
        labels=labels,
        present=records.present_in(labels, table),
        contoured=tuple(int(name in named) for name in table.names),
        scan_shape=(size, size, 99),
        affine=np.eye(4, dtype=np.float32),
        box_px=(0.0, 0.0, 1.0, 1.0),
        level_hu=50.0,
        width_hu=350.0,
    )
