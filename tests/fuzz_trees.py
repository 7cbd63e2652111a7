"""Random damage to trees of DICOM files: the law of `dicom_law` holds, and nothing raises.

python -m tests.fuzz_trees [seconds] [first seed]     never a traceback or a CT file that vanishes

A case is a tree of small patients whose files were moved between folders, copied, cut, renamed or
taken away, and whose identifiers were shared, swapped, emptied or garbled. Each patient that the
programs are given is read; what cannot be read must say so under a code.
A case is made by its seed alone; `python -m tests.fuzz_trees 0 SEED` repeats one.
"""

import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom

from segthor import inputs, scans
from segthor.dicom import listing
from segthor.errors import InputError, ReadError
from segthor.findings import CODES
from segthor.organs import SEGTHOR
from tests import dicom_law, dicom_phantoms, fuzz_runner

_KEYS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
         "SOPInstanceUID", "AcquisitionNumber", "ImageType", "SOPClassUID", "Modality")  # fmt: skip
_VALUES = ("", "1.2.3", "ANON", "9" * 70, "A-1", "7", "LOCALIZER", "DERIVED\\PRIMARY\\MIP")


def run_case(seed: int, folder: Path) -> Counter:
    """Makes, damages and reads one tree; returns how its patients ended."""
    rng = np.random.default_rng(seed)
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    _make(rng, tree)
    for _ in range(rng.integers(1, 9)):
        paths = [path for path in sorted(tree.rglob("*")) if path.is_file()]
        if paths:
            _DAMAGES[rng.integers(len(_DAMAGES))](rng, tree, paths)
    ended = Counter()
    try:
        dicom_law.check_law(tree)
        listing.list_folder(str(tree), SEGTHOR)
    except InputError as error:
        ended[_line(error)] += 1
    for organs in (SEGTHOR, None):
        for series in ("", "each"):
            ended += _read_all(tree, organs, series)
    return ended


def _read_all(tree, organs, series) -> Counter:
    ended = Counter()
    try:
        patients = inputs.find(str(tree), organs=organs, series=series)
    except InputError as error:
        return Counter([_line(error)])
    for one in patients:
        code = one.fault_code if one.fault else "read"
        if not one.fault:
            try:
                scans.read(one.ct, among=one.ct_files)
                if one.labels:
                    scans.read_contours(one.labels, one.ct, SEGTHOR, among=one.ct_files)
            except ReadError as error:
                code = error.code
                _line(error)
        assert code in ("read", *CODES), code
        ended[code] += 1
    return ended


def _line(error) -> str:
    text = str(error)
    assert "\n" not in text and "Secret" not in text, text
    return "no patient"


def _make(rng, tree: Path) -> None:
    """Some patients of one to three series; often some identifiers are the same for all."""
    shared = {key for key in ("patient", "study", "series", "frame") if rng.random() < 0.25}
    for number in range(rng.integers(1, 5)):
        names = {
            key: "ANON" if key in shared else f"P{number}" for key in ("patient", "study", "frame")
        }
        for visit in range(rng.choice([1, 1, 2, 3])):
            if rng.random() < 0.5:
                names |= {"study": f"P{number}-{visit}", "frame": f"P{number}-{visit}"}
            series = "ANON" if "series" in shared else f"P{number}-{visit}"
            folder = tree / (f"P{number}/{visit}" if rng.random() < 0.7 else f"P{number}")
            _write_series(rng, folder, names, series, f"{number}-{visit}")
            if rng.random() < 0.5:
                points = [[(0, 0, 3.0 * k), (5, 0, 3.0 * k), (0, 5, 3.0 * k)] for k in range(4)]
                path = folder / f"rs{visit}.dcm"
                dicom_phantoms.write_structures(path, points, series=series, **names)


def _write_series(rng, folder, names, series, copy) -> None:
    hu = rng.integers(-1000, 1000, (8, 8, rng.integers(2, 14))).astype(np.int16)
    step = rng.choice([1.0, 1.5, 3.0])
    affine = np.diag([2.0, 2.0, step, 1.0])
    acquisition = [1, lambda k: k % 2, lambda k: k // 4][rng.integers(3)]
    options = dict(series=series, acquisition=acquisition, copy=copy, **names)
    if rng.random() < 0.1:
        options["enhanced"] = True
    dicom_phantoms.write_series(folder, hu, affine, **options)


def _some(rng, paths):
    count = rng.choice([1, max(1, len(paths) // 2), len(paths), rng.integers(1, len(paths) + 1)])
    return [paths[i] for i in sorted(rng.permutation(len(paths))[:count])]


def _move(rng, tree, paths):
    """Files into a folder of others, into the root or into a new folder."""
    folders = [*sorted({path.parent for path in paths}), tree, tree / "new" / "deep"]
    target = folders[rng.integers(len(folders))]
    target.mkdir(parents=True, exist_ok=True)
    for path in _some(rng, paths):
        if rng.random() < 0.3:
            shutil.copy(path, target / f"copy-{path.name}")
        elif not (target / path.name).exists():
            path.rename(target / path.name)


def _remove(rng, tree, paths):
    for path in _some(rng, paths)[: max(1, len(paths) // 3)]:
        path.unlink()


def _rename(rng, tree, paths):
    for number, path in enumerate(_some(rng, paths)):
        path.rename(path.parent / f"IM{number:04d}-{path.stem[-3:]}")


def _cut(rng, tree, paths):
    for path in _some(rng, paths)[:5]:
        content = path.read_bytes()
        end = int(rng.choice([0, 100, 140, 500, 0.9 * len(content), len(content) // 2]))
        start = bytes(rng.integers(0, 200)) if rng.random() < 0.2 else b""
        path.write_bytes(start + content[:end])


def _edit(paths, change):
    for path in paths:
        try:
            dataset = pydicom.dcmread(path, force=True)
            change(dataset)
            dataset.save_as(path)
        except Exception:  # what pydicom does not write, no exporter sends
            continue


def _set(rng, tree, paths):
    """One identifier of some files is shared, emptied or garbled."""
    key = str(rng.choice(_KEYS))
    values = [*_VALUES, None, None]
    value = values[rng.integers(len(values))]
    donor = dict(value=value)

    def change(dataset):
        if donor["value"] is None:
            donor["value"] = dataset.get(key, "")
        setattr(dataset, key, donor["value"])

    _edit(_some(rng, paths), change)


def _swap(rng, tree, paths):
    """An identifier alternates between two values, or is each file's own."""
    key = str(rng.choice(_KEYS[:5]))
    counter = iter(range(10_000))
    number = [lambda k: k % 2, lambda k: k, lambda k: k // 5][rng.integers(3)]
    _edit(_some(rng, paths), lambda dataset: setattr(dataset, key, f"1.2.{number(next(counter))}"))


def _places(rng, tree, paths):
    """Positions that are rounded, moved, stretched or gone."""
    what, scale = rng.integers(4), rng.choice([0.5, 1.01, 2.0, -1.0])

    def change(dataset):
        place = [float(mm) for mm in dataset.ImagePositionPatient]
        if what == 0:
            place[2] = float(np.rint(place[2]))
        elif what == 1:
            place[2] += rng.normal(0, 0.1)
        elif what == 2:
            place[2] *= scale
        else:
            del dataset.ImagePositionPatient
            return
        dataset.ImagePositionPatient = [f"{mm:.6g}" for mm in place]

    _edit(_some(rng, paths), change)


def _strangers(rng, tree, paths):
    """Files of other kinds, and what serving.predict writes."""
    folder = paths[rng.integers(len(paths))].parent
    name = str(rng.choice(["predictions.json", "notes.txt", "x.dcm", "IM0001", "a#b", ".hidden"]))
    (folder / name).write_bytes(rng.bytes(300))


_DAMAGES = (_move, _move, _remove, _rename, _cut, _set, _set, _swap, _places, _strangers)


if __name__ == "__main__":
    sys.exit(fuzz_runner.program(run_case, "trees"))
