"""Surface distances of a finished run's best checkpoint, on the prepared grid."""

import dataclasses

import numpy as np
import tensorflow as tf

from segthor import csv_files, files, ignored, metrics, records
from trainer import run, sources
from trainer.config import SEGMENT

_BATCH = 16


def score(workdir: str, source: sources.Source) -> None:
    """Writes WORKDIR/best_surfaces.csv: a row per validation patient and contoured organ.

    Distances are in mm between the prepared label maps, cropped and resampled as the network sees
    them; `serving.evaluate` measures on the scans' own grid.
    """
    network, record = run.restore(workdir, "best")
    labels = np.array([0, *source.organs.labels(record.organs)], np.uint8)
    slices = _slices(source)
    rows = []
    for patient in source.dataset.patients:
        if patient.patient in slices:
            of_patient = sorted(slices.pop(patient.patient), key=lambda one: one.z)
            predicted = labels[_channels(network, np.stack([one.image for one in of_patient]))]
            truth = np.stack([one.labels for one in of_patient])
            spacing = patient.placement.spacing_mm
            named = [name for name in record.organs if name in patient.organs]
            wanted = source.organs.labels(named)
            left_out = truth == ignored.LABEL if source.dataset.has_ignored else None
            scores = metrics.score(predicted, truth, spacing, wanted, left_out)
            rows += [
                {"patient": patient.patient, "organ": name} | dataclasses.asdict(scores[label])
                for name, label in zip(named, wanted, strict=True)
            ]
    path = files.join(workdir, run.SURFACES)
    csv_files.write_table(path, rows)
    print(f"Wrote {path}")


def _slices(source: sources.Source) -> dict[str, list[records.Slice]]:
    """The validation slices by patient; a split is small beside the memory that trains on it."""
    found = {}
    for shard in source.validation:
        for one in records.slices(files.join(source.folder, shard.file)):
            found.setdefault(one.patient, []).append(one)
    return found


def _channels(network, images) -> np.ndarray:
    """int [Z, H, W]: the likeliest channel of every voxel."""
    predict = tf.function(lambda batch: network(batch, training=False)[SEGMENT])
    batches = (images[first : first + _BATCH] for first in range(0, len(images), _BATCH))
    return np.concatenate([np.argmax(predict(tf.constant(b)).numpy(), -1) for b in batches])
