"""A dataset's files against its manifest."""

import itertools
import os
import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np

from segthor import fields, files, progress, records
from segthor.errors import InputError
from segthor.geometry import Placement
from segthor.manifest import Built, Dataset, Shard
from segthor.volume import Grid


def verify(folder: str) -> Dataset:
    """Re-reads everything, prints a line for every problem on stderr; returns the manifest.

    Raises:
      InputError: something is wrong, or there is no dataset.
    """
    dataset = Dataset.load(folder)
    rows = {row.patient: row for row in dataset.patients}
    found = {}
    with progress.watch(lambda: len(found), len(dataset.shards), "shards"):
        for shard in dataset.shards:
            found[shard] = list(problems(shard, rows, dataset, folder))
    wrong = [*itertools.chain(*found.values()), *strangers(dataset, folder)]
    for problem in wrong:
        print(problem, file=sys.stderr)
    if wrong:
        damaged = [shard.file for shard, own in found.items() if own and _is_own(shard, folder)]
        remove = f"remove {', '.join(damaged)}; then " if damaged else ""
        raise InputError(
            f"{folder}: {len(wrong)} problems, named above; {remove}python -m beam_jobs.build with "
            "the flags of the first time writes what is missing"
        )
    return dataset


def _is_own(shard: Shard, folder: str) -> bool:
    """Whether the file lies in the dataset's folder itself: nothing else is ever to be removed."""
    path = files.join(folder, shard.file)
    if files.is_url(folder):
        return files.exists(path)
    inner = os.path.join(os.path.realpath(folder), shard.file)
    return os.path.isfile(path) and os.path.realpath(path) == inner


def problems(shard: Shard, rows: dict[str, Built], dataset: Dataset, folder: str):
    """Yields a line for everything about one shard that is not as the manifest says.

    rows: Every patient of the dataset, by name.
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
        patients = {name: _Expected.of(rows[name], dataset) for name in shard.patients}
        for record in records.slices(path):
            seen[record.patient, record.z] += 1
            for problem in _record_problems(record, patients.get(record.patient)):
                yield f"{shard.file}: {record.patient}, slice {record.z}: {problem}"
    except InputError as error:
        yield str(error)
        return
    slices = {name: rows[name].slices for name in shard.patients}
    yield from _count_problems(seen, slices, shard)


@dataclass(frozen=True)
class _Expected:
    """What the manifest says of each of a patient's records.

    affines: Those of the records read so far.
    """

    patient: Built
    placement: Placement
    dataset: Dataset
    affines: list[np.ndarray]

    @classmethod
    def of(cls, row: Built, dataset: Dataset) -> "_Expected":
        placement = fields.from_json(Placement, row.placement, f"{row.patient}: placement")
        return cls(row, placement, dataset, [])


def _count_problems(seen: Counter, slices: dict[str, int], shard: Shard):
    expected = Counter({(name, z): 1 for name, count in slices.items() for z in range(count)})
    for difference, word in ((expected - seen, "missing"), (seen - expected, "too many")):
        if difference:
            name, z = min(difference)
            count = sum(difference.values())
            yield f"{shard.file}: {count} slices {word}, the first: {name}, slice {z}"
    if sum(seen.values()) != shard.records:
        yield f"{shard.file}: expected {shard.records} records, found {sum(seen.values())}"


def _record_problems(record: records.Slice, expected: _Expected | None):
    if expected is None:
        yield "the patient is not listed for this shard"
        return
    patient, placement, dataset = expected.patient, expected.placement, expected.dataset
    recipe, organs = dataset.recipe, dataset.organs
    contoured = tuple(int(name in patient.organs) for name in organs.names)
    present = records.present_in(record.labels, organs)
    for what, wanted, found in (
        ("image shape", (recipe.size_px, recipe.size_px, recipe.context), record.image.shape),
        ("labels shape", (recipe.size_px, recipe.size_px), record.labels.shape),
        ("contoured organs", contoured, record.contoured),
        ("present organs", present, record.present),
        ("scan shape", placement.shape_zyx[::-1], tuple(record.scan_shape)),
    ):
        if wanted != found:
            yield f"{what}: expected {wanted}, found {found}"
    box_px = (*placement.first_px, *placement.step_px)
    if not np.allclose(record.box_px, box_px, rtol=1e-5, atol=1e-3):
        yield f"box: expected {box_px} pixels, found {tuple(record.box_px)}"
    for what, wanted, found in (
        ("window level", patient.level_hu, record.level_hu),
        ("window width", recipe.window_width_hu, record.width_hu),
    ):
        if abs(wanted - found) > 1e-3 * max(1, abs(wanted)):
            yield f"{what}: expected {wanted:g} HU, found {found:g} HU"
    unknown = np.setdiff1d(record.labels, dataset.known_labels)
    if len(unknown):
        yield f"label value {unknown[-1]}, which stands for no organ"
    yield from _affine_problems(record, placement, expected.affines)


def _affine_problems(record: records.Slice, placement: Placement, earlier: list[np.ndarray]):
    """earlier: what the patient's records hold so far; extended by one that is new."""
    affine = record.affine
    if any(np.array_equal(affine, one) for one in earlier):
        return
    if earlier:
        yield "affine: not that of the patient's other slices"
    earlier.append(affine)
    grid = Grid(record.scan_shape, affine)
    if not np.allclose(grid.spacing_mm, placement.spacing_zyx_mm, rtol=1e-4):
        wanted, found = (_by(mm) for mm in (placement.spacing_zyx_mm, grid.spacing_mm))
        yield f"affine: expected voxels of {wanted} mm, found {found} mm"
    elif not grid.orientation.is_lps:
        yield "affine: expected another orientation"


def _by(numbers) -> str:
    return "x".join(f"{number:.4g}" for number in numbers)


def strangers(dataset: Dataset, folder: str):
    """Yields a line for every file among the shards that the manifest does not name."""
    named = {shard.file for shard in dataset.shards}
    for inner in sorted({files.parent(shard.file) for shard in dataset.shards}):
        for name in files.listdir(files.join(folder, inner)):
            if files.join(inner, name) not in named:
                yield f"{files.join(inner, name)}: not in the manifest"
