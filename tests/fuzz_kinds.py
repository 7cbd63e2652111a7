"""The kinds of files that `tests.fuzz_all` damages.

Each has `check_base`, which reads its undamaged files, and `run`, which damages one and reads it.
"""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np

from segthor import model_directory, nifti, organ_table, patient_table
from segthor.dicom import headers, index, pixels, structures
from segthor.organs import SEGTHOR
from tests import dicom_phantoms, file_order, fuzz, fuzz_json, fuzz_trees, structure_cases
from tests.cases import tiny_patient

SECRET = "Secret"  # stands in the phantoms' headers
COMPRESSED = ("jpeg_lossless", "jpeg_lossless_sv1", "jpeg_ls", "jpeg_2000_lossless", "rle")
_BYTES = (fuzz._bytes_changed, fuzz._cut, fuzz._spliced, fuzz._garbage)
_TEXTS = ["", "-", "²", "NaN", "1e400", "=1+1", "\uff1d1", '"', "\0", "\ud800", "a,b", "\r\n"]
_TEXTS += ["9" * 5000, "[" * 5000, '{"a":' * 5000, "null", "-1", "[]", "{}", "../../x"]


def damaged(rng, content: bytes) -> bytes:
    """Bytes changed, cut, moved or random; in text also values that are hard to read."""
    if rng.random() < 0.3:
        at = int(rng.integers(len(content) + 1))
        until = min(len(content), at + int(rng.integers(20)))
        text = _TEXTS[rng.integers(len(_TEXTS))].encode(errors="surrogatepass")
        return content[:at] + text + content[until:]
    return _BYTES[rng.integers(len(_BYTES))](rng, content, "")


class Codecs:
    """Compressed slices."""

    def __init__(self, folder: Path):
        made = tiny_patient(3)
        hu, affine = dicom_phantoms.posed(made.hu[:, :, 11:13], made.affine)
        self._slices = []
        for name in COMPRESSED:
            paths = dicom_phantoms.write_series(folder / name, hu, affine, syntax=name)
            self._slices.append(Path(paths[0]).read_bytes())

    def check_base(self):
        """Reads the slices as they are."""
        for content in self._slices:
            pixels.Image(content, "slice").hu(None)

    def run(self, rng):
        """Damages the compressed image, seldom what comes before it."""
        content = self._slices[rng.integers(len(self._slices))]
        start = 0 if rng.random() < 0.1 else content.index(b"\xfe\xff\x00\xe0", 300) + 8
        changed = content[:start] + _BYTES[rng.integers(3)](rng, content[start:], "")
        pixels.Image(changed, "slice").hu(None)


class Headers:
    """A tree of slices and a structure set, one of them damaged in its first part."""

    def __init__(self, folder: Path):
        self._tree = folder / "tree"
        structure_cases.write_patient(self._tree, tiny_patient(0))
        self._paths = sorted(path for path in self._tree.rglob("*") if path.is_file())
        self._headers = [headers.read(str(path)) for path in self._paths]

    def check_base(self):
        """Indexes the tree as it is."""
        (patient,) = index.index_headers(self._headers, str(self._tree)).patients
        assert not any(case.problem for case in patient.cases), patient

    def run(self, rng):
        """Indexes the tree; nothing of the damaged header may appear."""
        at = int(rng.integers(len(self._paths)))
        path, content = self._paths[at], self._paths[at].read_bytes()
        try:
            head = int(rng.integers(140, 1500))
            path.write_bytes(damaged(rng, content[:head]) + content[head:])
            read = [*self._headers[:at], headers.read(str(path)), *self._headers[at + 1 :]]
            found = index.index_headers(read, str(self._tree))
            for patient in found.patients:
                shown = [str(case.problem) for case in patient.cases]
                assert SECRET not in "".join(shown), shown
        finally:
            path.write_bytes(content)


class StructureSets:
    """A structure set on a CT."""

    def __init__(self, folder: Path):
        structure_cases.write_patient(folder, tiny_patient(0))
        self._set = folder / "rs.dcm"
        self._content = self._set.read_bytes()
        found = index.index_folder(str(folder / "ct"))
        self._stack = found.patients[0].cases[0].volume.stack

    def check_base(self):
        """Reads the set as it is."""
        assert structures.read(str(self._set), self._stack, SEGTHOR)

    def run(self, rng):
        """Reads the damaged set as a label map."""
        self._set.write_bytes(damaged(rng, self._content))
        structures.read(str(self._set), self._stack, SEGTHOR)


class Streams:
    """Compressed streams: NIfTI in gzip, and a deflated DICOM slice."""

    def __init__(self, folder: Path):
        self._path = folder / "scan.nii.gz"
        made = tiny_patient(0)
        volume = file_order.volume(made.hu[:32, :32, :8].astype(np.int16), made.affine)
        nifti.write(str(self._path), volume.zyx, volume.grid)
        self._scan = self._path.read_bytes()
        voxels = gzip.decompress(self._scan)
        members = gzip.compress(voxels[:5000]) + gzip.compress(voxels[5000:])
        self._scans = [self._scan, gzip.compress(voxels, 9), gzip.compress(voxels, 0), members]
        hu, affine = dicom_phantoms.posed(made.hu[:, :, 11:13], made.affine)
        paths = dicom_phantoms.write_series(folder / "ct", hu, affine, syntax="deflated")
        self._slice = Path(paths[0]).read_bytes()

    def check_base(self):
        """Reads all as they are."""
        for content in self._scans:
            self._path.write_bytes(content)
            nifti.read(str(self._path))
        pixels.Image(self._slice, "slice").hu(None)

    def run(self, rng):
        """Damages what lies behind the first bytes."""
        if rng.random() < 0.3:
            start = len(self._slice) // 20
            changed = self._slice[:start] + damaged(rng, self._slice[start:])
            pixels.Image(changed, "slice").hu(None)
        else:
            content = self._scans[rng.integers(len(self._scans))]
            start = int(rng.integers(20))
            self._path.write_bytes(content[:start] + damaged(rng, content[start:]))
            nifti.read(str(self._path))


class Csv:
    """Tables of patients and of ROIs' names."""

    _PATIENTS = b"patient,ct,labels,split,organs\nA,a.nii,b.nii,train,heart\nB,b.nii,,,\n"
    _NAMES = b"organ,name\nheart,Herz\naorta,Ao 1\n"

    def __init__(self, folder: Path):
        self._path = folder / "table.csv"

    def check_base(self):
        """Reads both as they are."""
        self._read_patients(self._PATIENTS)
        self._read_names(self._NAMES)

    def run(self, rng):
        """Reads one of the tables."""
        if rng.random() < 0.5:
            self._read_patients(damaged(rng, self._PATIENTS))
        else:
            self._read_names(damaged(rng, self._NAMES))

    def _read_patients(self, content):
        self._path.write_bytes(content)
        patient_table.read(str(self._path), organs=SEGTHOR)

    def _read_names(self, content):
        self._path.write_bytes(content)
        organ_table.read_roi_names(str(self._path), SEGTHOR)


class Json:
    """Every JSON file that the programs write; see `tests.fuzz_json`."""

    def __init__(self, folder: Path):
        self._documents = fuzz_json.documents(folder)

    def check_base(self):
        """Reads all as they are."""
        for document in self._documents:
            document.read()

    def run(self, rng):
        """Damages the bytes of one, or one of its values."""
        document = self._documents[rng.integers(len(self._documents))]
        change = damaged if rng.random() < 0.3 else fuzz_json.odd_value
        try:
            document.path.write_bytes(change(rng, document.content))
            document.read()
        finally:
            document.path.write_bytes(document.content)


class OrganTables:
    """Tables of organs, as CSV and as JSON."""

    def __init__(self, folder: Path):
        self._folder = folder
        table = Path(__file__).resolve().parents[1] / "configs" / "organs" / "thorax.csv"
        rows = organ_table.read(str(table)).to_json()
        self._contents = {"csv": table.read_bytes(), "json": json.dumps(rows).encode()}

    def check_base(self):
        """Reads both as they are."""
        for kind, content in self._contents.items():
            path = self._folder / f"table.{kind}"
            path.write_bytes(content)
            organ_table.read(str(path))

    def run(self, rng):
        """Reads one of them."""
        kind = ("csv", "json")[rng.integers(2)]
        path = self._folder / f"table.{kind}"
        path.write_bytes(damaged(rng, self._contents[kind]))
        organ_table.read(str(path))


class ModelFolders:
    """The folder of a model's versions; its assets are among the JSON files."""

    def __init__(self, folder: Path):
        self._folder = folder / "model"
        for version in ("1", "7"):
            (self._folder / version).mkdir(parents=True)
            (self._folder / version / "saved_model.pb").write_bytes(b"x")

    def check_base(self):
        """The highest version is the newest."""
        assert model_directory.newest(str(self._folder)) == str(self._folder / "7")

    def run(self, rng):
        """Adds a version whose name is no number, or that has no model yet."""
        names = ("²", "٣", "-1", "1.0", "+8", " 8", "8 ", "8" * 200, "assets", ".8", "8.tmp")
        odd = self._folder / names[rng.integers(len(names))]
        odd.mkdir()
        try:
            if odd.name != "8" * 200:
                (odd / "saved_model.pb").write_bytes(b"x")
            self.check_base()
        finally:
            shutil.rmtree(odd)


class Trees:
    """Whole trees of DICOM files, moved, cut and renamed; see `tests.fuzz_trees`."""

    def __init__(self, folder: Path):
        self._folder = folder

    def check_base(self):
        """A tree is made anew for every case."""

    def run(self, rng):
        """No CT file vanishes."""
        fuzz_trees.run_case(int(rng.integers(1 << 31)), self._folder)


KINDS = {
    "codecs": Codecs,
    "headers": Headers,
    "structures": StructureSets,
    "streams": Streams,
    "csv": Csv,
    "json": Json,
    "organs": OrganTables,
    "models": ModelFolders,
    "trees": Trees,
}
