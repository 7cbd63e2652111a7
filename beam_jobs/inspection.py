"""Statistics and pictures of a dataset."""

import itertools
import sys

import numpy as np

from segthor import drawing, files, plots, records, scans
from segthor.errors import InputError
from segthor.manifest import TRAIN, VALIDATION, Built, Dataset
from segthor.organs import Organs
from segthor.recipe import window

FILES = ("slices.png", "normalization.png", "histograms.png")
_WIDE_LEVEL_HU, _WIDE_WIDTH_HU = 0, 2000
_SHOWN_PX = 256


def draw(dataset: Dataset, folder: str, output: str, patients: int) -> int:
    """Writes the pictures FILES; returns the number of patients that cannot be shown.

    Args:
      dataset: The manifest.
      folder: Folder of the dataset.
      output: Folder for the pictures.
      patients: Number of patients to show, spread evenly over their names.
    """
    if not dataset.patients:
        raise InputError(f"{folder}: expected patients with slices, found none; build it again")
    picks = np.linspace(0, len(dataset.patients) - 1, patients).round().astype(int)
    chosen = [dataset.patients[index] for index in sorted(set(picks.tolist()))]
    shown = []
    for one in chosen:
        try:
            shown.append((one, find_fullest_slice(one.patient, dataset, folder)))
        except InputError as error:
            print(f"FAILED: {one.patient}: {error}", file=sys.stderr)
    if not shown:
        raise InputError(f"{folder}: no patient can be shown; see the lines above")
    slices, normalization, histograms = (files.join(output, name) for name in FILES)
    drawing.save_png(slices, draw_slices(shown, dataset.organs))
    drawing.save_png(normalization, draw_normalization(shown, dataset.organs))
    plots.save(draw_histograms(dataset), histograms)
    return len(chosen) - len(shown)


def describe(dataset: Dataset):
    """Yields the dataset's statistics as lines of text."""
    statistics = dataset.statistics
    total = max(1, statistics.slices.get("all", 0))
    for split in (TRAIN, VALIDATION):
        shards = dataset.shards_of(split)
        patients = sum(one.split == split for one in dataset.patients)
        size = sum(shard.bytes for shard in shards) / 2**20
        count = f"{sum(shard.records for shard in shards):8}"
        yield f"{split:<11}{patients:5} patients{count} slices{len(shards):5} shards{size:9.1f} MiB"
    yield f"rejected   {len(dataset.rejected):5} patients"
    yield f"unlabelled {len(dataset.unlabelled):5} patients"
    for name in ("spacing_in_plane_mm", "spacing_between_slices_mm"):
        spread = " / ".join(f"{mm:g}" for mm in getattr(statistics, name).values())
        yield f"{name}: {spread} (min / median / max)"
    yield ""
    width = 1 + max(10, *map(len, dataset.organs.names))
    columns = "in slices    HU 5 %   median     95 %   volume cm3 (min / median / max)"
    yield f"{'organ':<{width}}{columns}"
    for organ in dataset.organs.names:
        percent = statistics.hu_percentiles.get(organ)
        volumes = _organ_volumes(dataset, organ)
        if percent and volumes:
            spread = " / ".join(f"{cm3:.0f}" for cm3 in np.percentile(volumes, (0, 50, 100)))
            yield (
                f"{organ:<{width}}{statistics.slices.get(organ, 0) / total:8.1%}{percent['5']:10g}"
                f"{percent['50']:9g}{percent['95']:9g}   {spread}"
            )


def find_fullest_slice(patient: str, dataset: Dataset, folder: str) -> records.Slice:
    """The patient's record with most organs; of several, the one with most labelled pixels."""
    path = files.join(folder, dataset.shard_of(patient).file)
    own = (record for record in records.slices(path) if record.patient == patient)
    best = max(own, key=lambda one: (sum(one.present), np.count_nonzero(one.labels)), default=None)
    if best is None:
        raise InputError(f"{path}: no slice of {patient}; build the dataset again")
    return best


def draw_slices(shown, organs: Organs) -> np.ndarray:
    """One slice of each patient with its contours, uint8 [H, W, 3].

    shown: (row of the manifest, record) of each patient.
    """
    tiles = [_draw_contours(record, organs) for _, record in shown]
    captions = [f"{one.patient}, slice {record.z}, {one.split}" for one, record in shown]
    return drawing.sheet(tiles, 4, captions, organs=organs)


def draw_normalization(shown, organs: Organs) -> np.ndarray:
    """Slices in a wide window and in the recipe's, side by side, uint8 [H, W, 3].

    shown: (row of the manifest, record) of each patient.
    """
    tiles, captions = [], []
    for one, record in shown:
        before = _read_slice(one, record.z)
        if before is None:
            print(f"{one.ct}: cannot be read any more, left out", file=sys.stderr)
            continue
        after = np.ascontiguousarray(record.image[..., record.image.shape[-1] // 2])
        pair = before, after
        tiles += [drawing.overlay(tile, scale=_scale(tile), organs=organs) for tile in pair]
        captions += [
            f"{one.patient}: {_WIDE_WIDTH_HU} HU wide",
            f"level {record.level_hu:.0f} HU, {record.width_hu:g} HU wide",
        ]
    if not tiles:
        raise InputError("none of the patients' CTs can be read any more")
    note = f"slice by slice: before, after {record.width_hu:g} HU"
    return drawing.sheet(tiles, 4, captions, note, organs=organs)


def draw_histograms(dataset: Dataset):
    """A figure with histograms of spacing, window level and organ volume."""
    spacings = np.array([one.placement.spacing_zyx_mm for one in dataset.patients])
    panels = [
        ("pixel, mm", spacings[:, 1], "0.5", None),
        ("slice distance, mm", spacings[:, 0], "0.5", None),
        ("window level, HU", [one.level_hu for one in dataset.patients], "0.5", None),
    ]
    for organ in dataset.organs:
        colour = tuple(value / 255 for value in organ.rgb)
        title = f"{organ.name}, cm3"
        panels.append((title, _organ_volumes(dataset, organ.name), colour, organ.volume_cm3))
    rows = -(-(len(panels) + 1) // 4)  # the last panel holds the legend
    figure = plots.new_figure(figsize=(13, 3 * rows), layout="constrained")
    axes = figure.subplots(rows, 4)
    for axis, (title, values, colour, plausible) in zip(axes.flat, panels, strict=False):
        reach = plausible and (min([*plausible, *values]), max([*plausible, *values]))
        axis.hist(values, bins=20, range=reach, color=colour)
        for border in plausible or ():
            axis.axvline(border, color="0.3", linestyle=":")
        axis.set_title(title)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    axes.flat[-1].text(0, 0.5, f"{len(dataset.patients)} patients\ndotted: the plausible range")
    return figure


def _read_slice(patient: Built, z: int) -> np.ndarray | None:
    """The CT's slice in a wide window, uint8 [H, W]; None where the CT cannot be read any more."""
    try:
        hu = scans.read(patient.ct).zyx
    except InputError:
        return None
    if hu.shape != patient.placement.shape_zyx:  # the scan was replaced after the build
        return None
    slices = patient.placement.image_to_model(hu)
    return window(next(itertools.islice(slices, z, None)), _WIDE_LEVEL_HU, _WIDE_WIDTH_HU)


def _draw_contours(record: records.Slice, organs: Organs) -> np.ndarray:
    middle = np.ascontiguousarray(record.image[..., record.image.shape[-1] // 2])
    return drawing.overlay(middle, predicted=record.labels, scale=_scale(middle), organs=organs)


def _scale(image: np.ndarray) -> int:
    return max(1, _SHOWN_PX // max(image.shape))


def _organ_volumes(dataset: Dataset, organ: str) -> list[float]:
    organs = [one.audit.organs for one in dataset.patients]
    return [own[organ].volume_cm3 for own in organs if organ in own]
