"""Times all scores of one full-size patient, and other libraries on the same masks, on one core.

Processor seconds are measured, since other work on the machine changes them little.
Run from the project's root: python -m benchmarks.metrics [--seed=0]
Its last table is of ours alone: 4 organs, 7, and the 7 cut into 32 pieces, beside their surface.
MONAI is measured where it is installed: pip install -e .[bench]
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import importlib.metadata
import importlib.util
import sys
import time

import numpy as np
import SimpleITK
import surface_distance
from absl import app, flags
from scipy import ndimage

from benchmarks.pieces import cut
from segthor import effort, metrics, phantom
from segthor.boxes import nonzero_box
from segthor.organs import SEGTHOR

SEED = flags.DEFINE_integer("seed", 0, "Which phantom, which deformation.")
SHAPE = (512, 512, 200)
LIMIT_S = 3.0
REPEATS = 3
LABELS = [organ.label for organ in SEGTHOR]
# MONAI keeps distances in float32.
AGREEMENT = {"SimpleITK": 1e-6, "surface-distance": 1e-6, "MONAI": 1e-4}


def main(argv):
    del argv
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    truth, _, spacing_mm = patient(SEED.value, SEGTHOR)
    predicted = deformed(truth, spacing_mm, SEED.value)
    print(f"{'x'.join(map(str, truth.shape))} voxels of {spacing_mm} mm, {len(LABELS)} organs\n")

    ours, seconds = timed(metrics.score, predicted, truth, spacing_mm, LABELS)
    print(f"{'':26}", *(f"{f'label {label}':>10}" for label in LABELS))
    for name in metrics.SCORES:
        print(f"{name:26}", *(f"{getattr(ours[label], name):10.3f}" for label in LABELS))

    print(f"\n{'library':20}{'seconds':>8}{'ratio':>7}  largest difference in shared scores")
    print(f"{'segthor':20}{seconds:8.2f}{1:7.1f}")
    # As scores.csv holds it: the maps with slices first.
    maps = [label_map.transpose(2, 1, 0) for label_map in (predicted, truth)]
    tolerances_mm = {organ.label: organ.tolerance_mm for organ in SEGTHOR}
    efforts, more = timed(effort.measure, *maps, spacing_mm[::-1], tolerances_mm)
    print(f"{'effort to mend':20}{more:8.2f}{more / seconds:7.2f}  beside ours: added path length")
    for label, found in efforts.items():
        print(f"  label {label}: {found.added_path_mm:.0f} mm, {found.slices_to_touch} slices")
    agree = True
    for name, measure in libraries().items():
        theirs, their_seconds = timed(measure, predicted, truth, spacing_mm)
        difference = max(
            abs(getattr(ours[label], score) - value)
            for label, scores in theirs.items()
            for score, value in scores.items()
        )
        agree &= difference <= AGREEMENT[name]
        title = f"{name} {importlib.metadata.version(name)}"
        shared = ", ".join(theirs[LABELS[0]])
        ratio = their_seconds / seconds
        print(f"{title:20}{their_seconds:8.2f}{ratio:7.1f}  {difference:.0e} in {shared}")

    stray = strewn(predicted, SEED.value)
    _, stray_seconds = timed(metrics.score, stray, truth, spacing_mm, LABELS)
    print(f"\n1000 stray voxels all over the scan: {stray_seconds:.2f} s")
    print_growth(SEED.value)
    print(
        f"\nLimit {LIMIT_S} s: {'kept' if max(seconds, stray_seconds) <= LIMIT_S else 'EXCEEDED'}."
    )
    print(f"Shared scores: {'equal' if agree else 'UNEQUAL'}.")
    return 0 if agree else 1


def print_growth(seed):
    """Seconds of scores beside the voxels of the organs' surfaces, true and predicted together."""
    thorax = phantom.table("thorax")
    four, _, spacing_mm = patient(seed, SEGTHOR)
    seven, affine, _ = patient(seed, thorax)
    maps = {len(SEGTHOR): four, len(thorax): seven, 32: cut(seven, affine, thorax, 32)}
    print(f"\n{'organs':>6}{'surface voxels':>16}{'ratio':>7}{'seconds':>9}{'ratio':>7}")
    first = None
    for number, truth in maps.items():
        predicted, labels = deformed(truth, spacing_mm, seed), range(1, number + 1)
        _, seconds = timed(metrics.score, predicted, truth, spacing_mm, labels)
        size = surface_voxels(predicted, labels) + surface_voxels(truth, labels)
        first = first or (size, seconds)
        print(
            f"{number:6}{size:16,}{size / first[0]:7.2f}{seconds:9.2f}{seconds / first[1]:7.2f}",
            flush=True,
        )


def surface_voxels(label_map, labels):
    """How many voxels have a neighbour by a face that is not of their organ."""
    count = 0
    for label, box in zip(labels, ndimage.find_objects(label_map, max(labels)), strict=True):
        if box:
            mask = np.pad(label_map[box] == label, 1)
            count += mask.sum() - ndimage.binary_erosion(mask).sum()
    return int(count)


def timed(function, *arguments):
    """(result, least processor seconds of a few runs); slow functions run once."""
    seconds = []
    while len(seconds) < REPEATS and sum(seconds) < 10:
        started = time.process_time()
        result = function(*arguments)
        seconds.append(time.process_time() - started)
    return result, min(seconds)


# ---------------------------------------------------------------- masks


def patient(seed, organs):
    made = phantom.make(seed, "full", organs, shape=SHAPE, axcodes="LPS")
    spacing_mm = tuple(float(mm) for mm in np.linalg.norm(made.affine[:3, :3], axis=0).round(6))
    return made.labels, made.affine, spacing_mm


def deformed(labels, spacing_mm, seed, amount_mm=3.0, knots_mm=30.0):
    """The labels bent by a smooth random field of some millimetres: a plausible prediction."""
    box = tuple(slice(max(s.start - 8, 0), s.stop + 8) for s in nonzero_box(labels))
    part = labels[box]
    rng = np.random.default_rng(seed)
    coarse = [
        max(2, round(n * mm / knots_mm)) for n, mm in zip(part.shape, spacing_mm, strict=True)
    ]
    grid = np.indices(part.shape, np.float32)
    for axis in range(3):
        field = ndimage.zoom(
            rng.normal(0, amount_mm / spacing_mm[axis], coarse),
            np.divide(part.shape, coarse),
            order=2,
            output=np.float32,
        )
        grid[axis] += field[tuple(slice(n) for n in part.shape)]
    bent = np.zeros_like(labels)
    bent[box] = ndimage.map_coordinates(part, grid, order=0)
    return bent


def strewn(labels, seed, count=1000):
    stray = labels.copy(order="K")
    rng = np.random.default_rng(seed)
    where = tuple(rng.integers(0, n, count) for n in labels.shape)
    stray[where] = rng.choice(LABELS, count)
    return stray


# ---------------------------------------------------------------- the other libraries


def libraries():
    found = {"SimpleITK": simpleitk, "surface-distance": surface_distances}
    if importlib.util.find_spec("monai") and importlib.util.find_spec("torch"):
        found["MONAI"] = monai
    return found


def crops(predicted, truth, label, margin=1):
    """The two masks of an organ, cropped to what the library needs."""
    pair = predicted == label, truth == label
    box = nonzero_box(pair[0] | pair[1])
    return [np.pad(mask[box], margin) for mask in pair]


def simpleitk(predicted, truth, spacing_mm):
    """Overlap and Hausdorff filters; the average Hausdorff distance is that of the whole masks."""
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    overlap, hausdorff = (
        SimpleITK.LabelOverlapMeasuresImageFilter(),
        SimpleITK.HausdorffDistanceImageFilter(),
    )
    scores = {}
    for label in LABELS:
        images = []
        for mask in crops(predicted, truth, label):
            image = SimpleITK.GetImageFromArray(mask.astype(np.uint8).T)
            image.SetSpacing(spacing_mm)
            images.append(image)
        overlap.Execute(*images)
        hausdorff.Execute(*images)
        hausdorff.GetAverageHausdorffDistance()  # mean of both directions; ours is the larger
        hausdorff.Execute(*(SimpleITK.BinaryContour(image) for image in images))
        scores[label] = {
            "dice": overlap.GetDiceCoefficient(),
            "hausdorff_mm": hausdorff.GetHausdorffDistance(),
        }
    return scores


def surface_distances(predicted, truth, spacing_mm):
    """All scores of surface-distance, which measures between voxel corners and weights by area."""
    scores = {}
    for label in LABELS:
        mask, truth_mask = predicted == label, truth == label
        distances = surface_distance.compute_surface_distances(truth_mask, mask, spacing_mm)
        surface_distance.compute_robust_hausdorff(distances, 100)
        surface_distance.compute_robust_hausdorff(distances, 95)
        surface_distance.compute_average_surface_distance(distances)
        for tolerance_mm in metrics.TOLERANCES_MM:
            surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm)
        scores[label] = {"dice": surface_distance.compute_dice_coefficient(truth_mask, mask)}
    return scores


def monai(predicted, truth, spacing_mm):
    """MONAI's functions on whole one-hot volumes, which MONAI crops itself."""
    import monai.metrics
    import torch

    torch.set_num_threads(1)
    hot = [
        torch.from_numpy(np.stack([label_map == label for label in LABELS])[None])
        for label_map in (predicted, truth)
    ]
    common = dict(include_background=True, spacing=spacing_mm)
    values = {
        "dice": monai.metrics.compute_dice(*hot, include_background=True),
        "hausdorff_mm": monai.metrics.compute_hausdorff_distance(*hot, **common),
        "hausdorff95_mm": monai.metrics.compute_hausdorff_distance(*hot, percentile=95, **common),
        "mean_surface_distance_mm": monai.metrics.compute_average_surface_distance(
            *hot, symmetric=True, **common
        ),
    }
    for tolerance_mm in metrics.TOLERANCES_MM:
        values[f"surface_dice_{tolerance_mm:.0f}mm"] = monai.metrics.compute_surface_dice(
            *hot, class_thresholds=[tolerance_mm + 1e-4] * len(LABELS), **common
        )
    return {
        label: {score: float(tensor[0, i]) for score, tensor in values.items()}
        for i, label in enumerate(LABELS)
    }


if __name__ == "__main__":
    sys.exit(app.run(main))
