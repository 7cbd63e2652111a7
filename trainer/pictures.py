"""Pictures of a run: the worst validation slices with contours, and the learning curve."""

import numpy as np
import tensorflow as tf

from segthor import drawing, files, metrics, plots, records
from segthor.organs import Organs
from trainer import sources, validate
from trainer.config import CLASSIFY

TILE_PX = 256
_COLUMNS = 3


def worst_slices(learner, source: sources.Source, scores: validate.VolumeDice, count: int = 6):
    """Draws the `count` slices with the lowest Dice, uint8 [H, W, 3].

    The Dice of a slice is that of all its organs together. Returns None for a classifier, and where
    no patient is held out.
    """
    if learner.config.task == CLASSIFY or not source.validation:
        return None
    indices = scores.worst(count)
    slices = read_slices(source, source.validation, indices)
    values = np.array([0, *source.organs.labels(learner.config.organs)])
    predicted = values[learner.predict(tf.constant(np.stack([s.image for s in slices])))]
    dice = metrics.dice_from_counts(*scores.slice_counts[indices].sum(1).T)
    return _sheet(slices, predicted, values, dice, source.organs)


def read_slices(source: sources.Source, shards, indices) -> list[records.Slice]:
    """Reads the records at these indices, counted over all shards; opens only shards it needs."""
    slices, first = {}, 0
    for shard in shards:
        wanted = {index for index in indices if first <= index < first + shard.records}
        if wanted:
            payloads = records.payloads(files.join(source.folder, shard.file))
            for index, payload in enumerate(payloads, first):
                if index in wanted:
                    slices[index] = records.decode(payload)
        first += shard.records
    return [slices[index] for index in indices]


def learning_curve(rows: list[dict], organs: Organs):
    """Plots loss, learning rate and, if there are scores, Dice over the steps; returns a figure.

    rows: Rows of log.csv, at least one.
    """
    steps = [int(row["step"]) for row in rows]
    figure = plots.new_figure(figsize=(9, 7), layout="constrained")
    is_scored = np.isfinite(_column(rows, "dice")).any()  # not where no patient is held out
    panels = figure.subplots(2 if is_scored else 1, 1, sharex=True, squeeze=False)[:, 0]
    losses = panels[0]
    losses.plot(steps, _column(rows, "loss"), "o-", markersize=3, color="black", label="loss")
    losses.set_ylabel("training loss, mean since the last validation")
    rate = losses.twinx()
    rate.plot(steps, _column(rows, "learning_rate"), ":", color="tab:gray")
    rate.set_ylabel("learning rate (dotted)")
    if is_scored:
        _plot_scores(panels[1], steps, rows, organs)
    panels[-1].set_xlabel("training step")
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure


def _plot_scores(axes, steps, rows: list[dict], organs: Organs):
    for organ in organs:
        if f"dice_{organ.name}" in rows[0]:
            values = _column(rows, f"dice_{organ.name}")
            colour = np.array(organ.rgb) / 255
            axes.plot(steps, values, "o-", markersize=3, color=colour, label=organ.name)
    mean = _column(rows, "dice")
    axes.plot(steps, mean, "--", color="black", label="mean")
    best = int(np.nanargmax(mean))
    axes.axvline(steps[best], color="tab:gray", linewidth=0.8)
    axes.set_title(f"best mean {mean[best]:.3f} at step {steps[best]}", fontsize=10)
    axes.set(ylabel="volume Dice (mean over patients)", ylim=(0, 1))
    axes.legend(loc="lower right", fontsize=9)


def _sheet(slices, predicted, values, dice, organs: Organs):
    tiles, captions = [], []
    for record, labels, score in zip(slices, predicted, dice, strict=True):
        middle = record.image[..., record.image.shape[-1] // 2]  # without the neighbouring slices
        contoured = [o.label for o, yes in zip(organs, record.contoured, strict=True) if yes]
        scored = np.intersect1d(values, contoured)
        truth, labels = (np.where(np.isin(x, scored), x, 0) for x in (record.labels, labels))
        scale = max(1, round(TILE_PX / max(middle.shape)))
        tiles.append(drawing.overlay(middle, truth, labels, scale, organs=organs))
        captions.append(f"{record.patient}, slice {record.z}, Dice {score:.2f}")
    legend = "solid: predicted, dashed: contoured"
    return drawing.sheet(tiles, _COLUMNS, captions, legend, organs=organs)


def _column(rows, name):
    return np.array([float(row[name]) for row in rows])
