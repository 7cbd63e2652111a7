"""Random damage to DICOM patients, through the whole data job as a user starts it.

python -m tests.fuzz_dicom [seconds] [first seed]     never a traceback, a hang or a lost patient

A run builds one tree of patients in every kind of encoding, all damaged but the first: headers,
contours, pixels or whole files. Each must end in the dataset, be rejected under a code of
`segthor.findings`, or have no file left that is a CT image, a structure set or damaged.
A run is made by its seed alone; `python -m tests.fuzz_dicom 0 SEED` repeats one.
"""

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement

from segthor import files, records
from segthor.dicom import headers, index
from segthor.findings import CODES
from segthor.manifest import Dataset
from tests import dicom_damage, dicom_phantoms, fuzz, fuzz_runner, structure_cases
from tests.cases import tiny_patient

RUN_SECONDS, ROUNDS = 300, 3
ROOT = Path(__file__).resolve().parents[1]
ENCODINGS = [{"syntax": syntax} for syntax in dicom_phantoms.SYNTAXES]
ENCODINGS += [{"enhanced": True}, {"enhanced": True, "syntax": "jpeg_2000_lossless"}]
_TEXTS = (b"", b" ", b"\0\0", b"\\", b"nan", b"inf\\0\\0", b"1e400", b"-1", b"0", b"0\\0",
          b"0\\0\\0\\0\\0\\0", b"1\\0\\0\\1\\0\\0", b"9" * 70, b"1.2.3", b"\xff\xfe\xfd\xfc",
          b"LOCALIZER", b"CT", b"OPEN_PLANAR", b"CLOSEDPLANAR_XOR", b"POINT", b"Heart", b"ORIGINAL",
          b"ISO_IR 192", b"\x1b$B", b"1\\2\\3")  # fmt: skip
_NUMBERS = (0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 32, 48, 64, 255, 4096, 32768, 65535)
_OF_PIXELS = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
              "SamplesPerPixel", "NumberOfFrames", "PlanarConfiguration")  # fmt: skip
_OF_VALUES = ("RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImagePositionPatient")


def run_case(seed: int, folder: Path, rounds: int = ROUNDS) -> Counter:
    """Damages and builds one tree; returns the codes found, 'built' and 'left aside' among them.

    rounds: how often each encoding occurs in the tree.
    """
    rng = np.random.default_rng(seed)
    tree, output = folder / "tree", folder / "out"
    for place in (tree, output):
        shutil.rmtree(place, ignore_errors=True)
    names = []
    for number, encoding in enumerate(ENCODINGS * rounds):
        names.append(f"P{number:02d}")
        shutil.copytree(_healthy(folder.parent, number, encoding), tree / names[-1])
        if number:
            for _ in range(rng.integers(1, 3)):
                _DAMAGES[rng.integers(len(_DAMAGES))](rng, tree / names[-1])
    command = [sys.executable, "-m", "beam_jobs.build", f"--input={tree}", f"--output={output}"]
    command += ["--crop_mm=288", "--pixel_mm=9", "--direct_num_workers=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS)
    said = done.stdout + done.stderr
    assert done.returncode in (0, 3), said
    for word in ("Traceback", "Warning", "Secret"):
        assert word not in said, said
    return _endings(tree, output, names)


def _endings(tree, output, names) -> Counter:
    """How each patient ended; raises where one did not, or where the first one was not built."""
    made = Dataset.load(str(output))
    for shard in made.shards:
        assert len(list(records.slices(files.join(str(output), shard.file)))) == shard.records
    ended = {name: [] for name in names}
    for row in (*made.patients, *made.unlabelled, *made.rejected):
        found = row.findings if row in made.rejected else row.audit.findings
        codes = [finding.code for finding in found]
        assert set(codes) <= set(CODES) and (codes or row not in made.rejected)
        name = row.ct.removeprefix(f"{tree}/").partition("/")[0]
        ended[name] += codes + ["built"] * (row not in made.rejected)
    assert "built" in ended[names[0]], ended
    aside = {path: why for why, path in index.index_folder(str(tree)).left_aside}
    for name in [name for name in names if not ended[name]]:
        kinds = {aside.get(str(path)) for path in (tree / name).rglob("*") if path.is_file()}
        lost = {None, headers.DAMAGED, headers.UNREADABLE, index.WITHOUT_CT}
        assert not kinds & lost, (name, kinds)
        ended[name] = [f"left aside: {', '.join(sorted(kinds))}"]
    return Counter(code for codes in ended.values() for code in codes)


def _healthy(folder: Path, number: int, encoding) -> Path:
    place = folder / "healthy" / f"{number}-{'-'.join(map(str, encoding.values()))}"
    if not place.exists():
        names = dict.fromkeys(("patient", "study", "series", "frame"), f"P{number}")
        structure_cases.write_patient(place, tiny_patient(number), **names, **encoding)
    return place


def _chosen(rng, folder) -> list[Path]:
    """One slice, several, or all of those that are left."""
    slices = dicom_damage.slices(folder)
    count = rng.choice([1, rng.integers(0, len(slices)) + 1, len(slices)]) if slices else 0
    return [slices[i] for i in sorted(rng.permutation(len(slices))[:count])]


def _one(rng, folder) -> Path:
    """A file; the structure set as often as all slices together."""
    slices, rest = dicom_damage.slices(folder), list(folder.glob("rs.dcm"))
    paths = rest if rest and (not slices or rng.random() < 0.5) else slices
    return paths[rng.integers(len(paths))]


def _edit(paths, change) -> None:
    """`change` of each file's data set; a file that cannot be written so stays as it was."""
    for path in paths:
        try:
            dataset = pydicom.dcmread(path, force=True)
            change(dataset)
            dataset.save_as(path)
        except Exception:  # what pydicom does not write, no exporter sends
            continue


def _file_bytes(rng, folder):
    """Bytes of one file, in its first part more often than not."""
    path = _one(rng, folder)
    content = path.read_bytes()
    change = (fuzz._bytes_changed, fuzz._cut, fuzz._spliced, fuzz._garbage)[rng.integers(4)]
    head = len(content) if rng.random() < 0.3 else min(len(content), 1500)
    path.write_bytes(change(rng, content[:head], path.name) + content[head:])


def _a_file(rng, folder):
    """A file that is gone, empty, there twice, or under another's name."""
    one, other = _one(rng, folder), _one(rng, folder)
    what = rng.integers(4)
    if what == 0 and len(list(folder.rglob("*.dcm"))) > 1:
        one.unlink()
    elif what == 1:
        one.write_bytes(b"")
    else:
        shutil.copy(one, other if what == 2 and other != one else one.with_suffix(".copy"))


def _element(rng, folder):
    """One element, wherever it stands, of some files: other bytes, another kind, or gone."""
    paths = [folder / "rs.dcm"] if rng.random() < 0.4 else _chosen(rng, folder)
    keys, mark = rng.random(6), rng.integers(1 << 31)

    def change(dataset):
        own = np.random.default_rng(mark)
        for key in keys:
            tags = [tag for tag in dataset.keys() if tag != 0x7FE00010]
            tag = tags[int(key * len(tags))]
            items = dataset[tag].value if dataset[tag].VR == "SQ" else ()
            if not items or own.random() < 0.2:
                return _set(own, dataset, tag)
            dataset = items[own.integers(len(items))]

    _edit(paths, change)


def _set(rng, dataset, tag):
    if rng.random() < 0.25:
        del dataset[tag]
        return
    kind = dataset[tag].VR if rng.random() < 0.8 else rng.choice(["UN", "LO", "US", "DS", "UI"])
    if kind in ("US", "SS"):
        value = int(rng.choice(_NUMBERS)).to_bytes(2, "little") * rng.integers(1, 3)
    elif kind == "SQ":
        return dataset[tag].value.clear()
    else:
        value = rng.bytes(8) if rng.random() < 0.1 else _TEXTS[rng.integers(len(_TEXTS))]
    value += b" " * (len(value) % 2)
    implicit, little = dataset.original_encoding
    dataset[tag] = RawDataElement(tag, str(kind), len(value), value, 0, implicit, little)


def _pixels(rng, folder):
    """What pixels are, or how they are described."""
    mark, what = rng.integers(1 << 31), rng.integers(4)

    def change(dataset):
        own = np.random.default_rng(mark)
        if what == 0:
            change_bytes = (fuzz._bytes_changed, fuzz._cut, fuzz._spliced)[own.integers(3)]
            content = change_bytes(own, dataset.PixelData, "")
            dataset.PixelData = content + b"\0" * (len(content) % 2)
        elif what == 1:
            for keyword in own.choice(_OF_PIXELS, own.integers(1, 3)):
                setattr(dataset, keyword, int(own.choice(_NUMBERS)))
        elif what == 2:
            text = _TEXTS[own.integers(len(_TEXTS))].decode("latin-1")
            setattr(dataset, own.choice(_OF_VALUES), text)
        else:
            syntaxes = list(dicom_phantoms.SYNTAXES.values()) + ["1.2.840.10008.1.2.4.50", "1.2"]
            dataset.file_meta.TransferSyntaxUID = syntaxes[own.integers(len(syntaxes))]

    _edit(_chosen(rng, folder), change)


def _contours(rng, folder):
    """Contours that are elsewhere, of another size or kind, there twice, or no numbers."""

    def change(dataset):
        for _ in range(rng.integers(1, 6)):
            rois = dataset.ROIContourSequence
            drawn = rois[rng.integers(len(rois))].ContourSequence
            at = rng.integers(len(drawn))
            _contour_changes(rng, drawn, at)

    _edit([folder / "rs.dcm"], change)


def _contour_changes(rng, drawn, at):
    item, what = drawn[at], rng.integers(7)
    if what == 0:
        dicom_damage.shift(item, rng.normal(0, 10.0 ** rng.integers(-2, 4), 3))
    elif what == 1:
        offset_mm = rng.normal(0, 5, 3) * (1, 1, rng.random() < 0.2)
        drawn.append(dicom_damage.another(item, rng.normal(1, 0.5), offset_mm))
    elif what == 2:
        points = np.reshape(item.ContourData, (-1, 3))[rng.permutation(len(item.ContourData) // 3)]
        item.ContourData = [str(mm) for mm in points[: rng.integers(1, len(points) + 1)].ravel()]
        item.NumberOfContourPoints = len(item.ContourData) // 3
    elif what == 3:
        del drawn[at]
    else:
        _set(rng, item, list(item.keys())[rng.integers(len(item))])


_DAMAGES = (_file_bytes, _file_bytes, _a_file, _element, _element, _element, _pixels, _contours)


if __name__ == "__main__":
    patients = len(ENCODINGS) * ROUNDS - 1
    unit = f"builds of {patients} damaged patients"
    sys.exit(fuzz_runner.program(run_case, unit, limit=2 * RUN_SECONDS))
