"""Surface distances of a run's best checkpoint, on the prepared grid."""

import dataclasses

import numpy as np
import tensorflow as tf

from segthor import csv_files, files, ignored, metrics, records
from trainer import run, sources
from trainer.config import SEGMENT

_BATCH = 16


def score(workdir: str, source: sources.Source) -> None:
    """Writes WORKDIR/best_surfaces.csv: a row per validation patient and contoured organ.

    The label maps are cropped and resampled as for the network, so that the distances (mm) differ
    slightly from those of `serving.evaluate`, which measures on the grids of the scans.
    """
    network, record = run.restore(workdir, "best")
    labels = np.array([0, *source.organs.labels(record.organs)], np.uint8)
    slices = _slices(source)
    rows = []
    for patient in source.dataset.patients:
        if patient.patient not in slices:
            continue
        volume = sorted(slices.pop(patient.patient), key=lambda record: record.z)
        predicted = labels[_channels(network, np.stack([one.image for one in volume]))]
        truth = np.stack([one.labels for one in volume])
        spacing_mm, planes = patient.placement.spacing_mm, patient.placement.scan_planes
        contoured = [name for name in record.organs if name in patient.organs]
        values = source.organs.labels(contoured)
        left_out = truth == ignored.LABEL if source.dataset.has_ignored else None
        scores = metrics.score(predicted, truth, spacing_mm, values, left_out, planes)
        rows += [
            {"patient": patient.patient, "organ": name} | dataclasses.asdict(scores[value])
            for name, value in zip(contoured, values, strict=True)
        ]
    path = files.join(workdir, run.SURFACES)
    csv_files.write_table(path, rows)
    print(f"Wrote {path}")


def _slices(source: sources.Source) -> dict[str, list[records.Slice]]:
    """Reads all validation slices, by patient; they are small beside the memory of the training."""
    slices = {}
    for shard in source.validation:
        for record in records.slices(files.join(source.folder, shard.file)):
            slices.setdefault(record.patient, []).append(record)
    return slices


def _channels(network, images) -> np.ndarray:
    """Predicts the most probable channel of every pixel, int [Z, H, W]."""
    predict = tf.function(lambda batch: network(batch, training=False)[SEGMENT])
    batches = (images[first : first + _BATCH] for first in range(0, len(images), _BATCH))
    return np.concatenate([np.argmax(predict(tf.constant(b)).numpy(), -1) for b in batches])
