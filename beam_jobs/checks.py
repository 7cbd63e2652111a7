"""Compares a dataset's files with its manifest."""

import itertools
import os
import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np

from segthor import files, progress, records
from segthor.audit import format_lengths
from segthor.errors import InputError
from segthor.geometry import Placement
from segthor.manifest import Built, Dataset, Shard
from segthor.volume import Grid


def verify(folder: str) -> Dataset:
    """Reads all shards and prints a line for every problem on stderr; returns the manifest.

    Raises:
      InputError: There is a problem, or no dataset.
    """
    dataset = Dataset.load(folder)
    rows = {row.patient: row for row in dataset.patients}
    by_shard = {}
    with progress.watch(lambda: len(by_shard), len(dataset.shards), "shards"):
        for shard in dataset.shards:
            by_shard[shard] = list(check_shard(shard, rows, dataset, folder))
    problems = [*itertools.chain(*by_shard.values()), *_find_unlisted_files(dataset, folder)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        damaged = [one.file for one, own in by_shard.items() if own and _is_removable(one, folder)]
        remove = f"remove {', '.join(damaged)}; then " if damaged else ""
        raise InputError(
            f"{folder}: {len(problems)} problems, named above; {remove}repeat python -m "
            "beam_jobs.build with the same flags as before: it writes what is missing"
        )
    return dataset


def _is_removable(shard: Shard, folder: str) -> bool:
    """Whether the shard lies in the dataset's folder itself, not behind a link to another one."""
    path = files.join(folder, shard.file)
    if files.is_url(folder):
        return files.exists(path)
    inner = os.path.join(os.path.realpath(folder), shard.file)
    return os.path.isfile(path) and os.path.realpath(path) == inner


def check_shard(shard: Shard, rows: dict[str, Built], dataset: Dataset, folder: str):
    """Yields a line for every difference between one shard and the manifest.

    rows: Patient's name to row of the manifest, of all patients.
    """
    path = files.join(folder, shard.file)
    if not files.exists(path):
        yield f"{shard.file}: missing"
        return
    size = files.size(path)
    if size != shard.bytes:
        yield f"{shard.file}: expected {shard.bytes} bytes, found {size}"
    elif files.sha256(path) != shard.sha256:
        yield f"{shard.file}: the SHA-256 is not the manifest's"
    seen = Counter()
    try:
        patients = {name: _Expected(rows[name], dataset, []) for name in shard.patients}
        for record in records.slices(path):
            seen[record.patient, record.z] += 1
            for problem in _check_record(record, patients.get(record.patient)):
                yield f"{shard.file}: {record.patient}, slice {record.z}: {problem}"
    except InputError as error:
        yield str(error)
        return
    yield from _check_counts(seen, {name: rows[name].slices for name in shard.patients}, shard)


@dataclass(frozen=True)
class _Expected:
    """What the manifest says about all records of one patient.

    patient: Row of the manifest.
    dataset: The manifest.
    affines: The different affines of the records read so far; extended by `_check_affine`.
    """

    patient: Built
    dataset: Dataset
    affines: list[np.ndarray]


def _check_counts(seen: Counter, slices: dict[str, int], shard: Shard):
    """Yields slices that are missing or there twice. seen: (patient, z) to number of records."""
    expected = Counter({(name, z): 1 for name, count in slices.items() for z in range(count)})
    for difference, word in ((expected - seen, "missing"), (seen - expected, "too many")):
        if difference:
            name, z = min(difference)
            count = sum(difference.values())
            yield f"{shard.file}: {count} slices {word}, the first: {name}, slice {z}"
    if sum(seen.values()) != shard.records:
        yield f"{shard.file}: expected {shard.records} records, found {sum(seen.values())}"


def _check_record(record: records.Slice, expected: _Expected | None):
    if expected is None:
        yield "the patient is not listed for this shard"
        return
    patient, placement, dataset = expected.patient, expected.patient.placement, expected.dataset
    recipe, organs = dataset.recipe, dataset.organs
    contoured = tuple(int(name in patient.organs) for name in organs.names)
    present = records.present_in(record.labels, organs)
    for what, wanted, actual in (
        ("image shape", (recipe.size_px, recipe.size_px, recipe.context), record.image.shape),
        ("labels shape", (recipe.size_px, recipe.size_px), record.labels.shape),
        ("contoured organs", contoured, record.contoured),
        ("present organs", present, record.present),
        ("scan shape", placement.shape_zyx[::-1], tuple(record.scan_shape)),
    ):
        if wanted != actual:
            yield f"{what}: expected {wanted}, found {actual}"
    box_px = (*placement.first_px, *placement.step_px)
    if not np.allclose(record.box_px, box_px, rtol=1e-5, atol=1e-3):
        yield f"box: expected {box_px} pixels, found {tuple(record.box_px)}"
    for what, wanted, actual in (
        ("window level", patient.level_hu, record.level_hu),
        ("window width", recipe.window_width_hu, record.width_hu),
    ):
        if abs(wanted - actual) > 1e-3 * max(1, abs(wanted)):
            yield f"{what}: expected {wanted:g} HU, found {actual:g} HU"
    unknown = np.setdiff1d(record.labels, dataset.known_labels)
    if len(unknown):
        yield f"label value {unknown[-1]}, which stands for no organ"
    yield from _check_affine(record, placement, expected.affines)


def _check_affine(record: records.Slice, placement: Placement, earlier: list[np.ndarray]):
    """Yields problems of an affine that is not among the patient's `earlier` ones; adds it."""
    affine = record.affine
    if any(np.array_equal(affine, one) for one in earlier):
        return
    if earlier:
        yield "affine: not that of the patient's other slices"
    earlier.append(affine)
    grid = Grid(record.scan_shape, affine)
    if not np.allclose(grid.spacing_mm, placement.spacing_zyx_mm, rtol=1e-4):
        wanted, actual = map(format_lengths, (placement.spacing_zyx_mm, grid.spacing_mm))
        yield f"affine: expected voxels of {wanted} mm, found {actual} mm"
    elif not grid.orientation.is_lps:
        yield "affine: expected another orientation"


def _find_unlisted_files(dataset: Dataset, folder: str):
    """Yields a line for every file in the folders of the shards that the manifest does not name."""
    named = {shard.file for shard in dataset.shards}
    for inner in sorted({files.parent(shard.file) for shard in dataset.shards}):
        for name in files.listdir(files.join(folder, inner)):
            if files.join(inner, name) not in named:
                yield f"{files.join(inner, name)}: not in the manifest"
