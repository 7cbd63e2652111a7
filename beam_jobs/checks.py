"""A dataset's files against its manifest."""

import sys
from collections import Counter

import numpy as np

from segthor import files, organs, progress, records
from segthor.errors import InputError
from segthor.manifest import Built, Dataset, Shard


def verify(folder: str) -> Dataset:
    """Re-reads everything, prints a line for every problem on stderr; returns the manifest.

    Raises:
      InputError: something is wrong, or there is no dataset.
    """
    dataset = Dataset.load(folder)
    checked, wrong = [], []
    with progress.watch(lambda: len(checked), len(dataset.shards), "shards"):
        for shard in dataset.shards:
            wrong += problems(shard, dataset, folder)
            checked.append(shard)
    wrong += strangers(dataset, folder)
    for problem in wrong:
        print(problem, file=sys.stderr)
    if wrong:
        raise InputError(
            f"{folder}: {len(wrong)} problems; remove the shards named above, "
            "then python -m beam_jobs.build writes them anew"
        )
    return dataset


def problems(shard: Shard, dataset: Dataset, folder: str):
    """Yields a line for everything about one shard that is not as the manifest says."""
    path = files.join(folder, shard.file)
    if not files.exists(path):
        yield f"{shard.file}: missing"
        return
    size = files.size(path)
    if size != shard.bytes:
        yield f"{shard.file}: expected {shard.bytes} bytes, found {size}"
    elif files.sha256(path) != shard.sha256:
        yield f"{shard.file}: the SHA-256 is not the manifest's"
    patients = {one.patient: one for one in dataset.patients if one.shard == shard.file}
    if set(patients) != set(shard.patients):
        yield f"{shard.file}: its list of patients is not that of the patients' rows"
    seen = Counter()
    for record, problem in _records(path, shard.file):
        if problem:
            yield problem
            return
        seen[record.patient, record.z] += 1
        for problem in _record_problems(record, patients.get(record.patient), dataset):
            yield f"{shard.file}: {record.patient}, slice {record.z}: {problem}"
    yield from _count_problems(seen, patients, shard)


def _records(path: str, name: str):
    """Yields (record, None) for each, and (None, what is wrong) where reading has to stop."""
    with files.open_read(path) as stream:
        try:
            for payload in records.read_frames(stream, name):
                yield records.decode(payload), None
        except InputError as error:
            yield None, str(error)
        except Exception as error:  # protobuf's and numpy's, for a record of another schema
            yield None, f"{name}: a record cannot be decoded ({error})"


def _count_problems(seen: Counter, patients: dict[str, Built], shard: Shard):
    expected = Counter({(name, z): 1 for name, one in patients.items() for z in range(one.slices)})
    for difference, word in ((expected - seen, "missing"), (seen - expected, "too many")):
        if difference:
            name, z = min(difference)
            count = sum(difference.values())
            yield f"{shard.file}: {count} slices {word}, the first: {name}, slice {z}"
    if sum(seen.values()) != shard.records:
        yield f"{shard.file}: expected {shard.records} records, found {sum(seen.values())}"


def _record_problems(record: records.Slice, patient: Built | None, dataset: Dataset):
    recipe = dataset.recipe
    if patient is None:
        yield "the patient is not listed for this shard"
        return
    contoured = tuple(int(name in patient.organs) for name in organs.NAMES)
    for what, expected, found in (
        ("image shape", (recipe.size_px, recipe.size_px, recipe.context), record.image.shape),
        ("labels shape", (recipe.size_px, recipe.size_px), record.labels.shape),
        ("contoured organs", contoured, record.contoured),
        ("scan shape", tuple(patient.placement["scan_shape"]), tuple(record.scan_shape)),
    ):
        if expected != found:
            yield f"{what}: expected {expected}, found {found}"
    placement = patient.placement
    box_px = (*placement["first_px"], *placement["step_px"])
    if not np.allclose(record.box_px, box_px, rtol=1e-5, atol=1e-3):
        yield f"box: expected {box_px} pixels, found {tuple(record.box_px)}"
    for what, expected, found in (
        ("window level", patient.level_hu, record.level_hu),
        ("window width", recipe.window_width_hu, record.width_hu),
    ):
        if abs(expected - found) > 1e-3 * max(1, abs(expected)):
            yield f"{what}: expected {expected:g} HU, found {found:g} HU"
    if record.labels.max(initial=0) >= organs.NUM_CLASSES:
        yield f"label value {record.labels.max()}, expected at most {organs.NUM_CLASSES - 1}"


def strangers(dataset: Dataset, folder: str):
    """Yields a line for every file among the shards that the manifest does not name.

    And for every patient of a shard that it does not.
    """
    named = {files.name(shard.file) for shard in dataset.shards}
    for patient in dataset.patients:
        if files.name(patient.shard) not in named:
            yield f"{patient.shard}: holds {patient.patient}, but is not in the manifest"
    for inner in sorted({files.parent(shard.file) for shard in dataset.shards}):
        for name in files.listdir(files.join(folder, inner)):
            if name not in named:
                yield f"{files.join(inner, name)}: not in the manifest"
