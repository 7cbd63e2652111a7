"""Damages every kind of file that the programs read, at random; run before a release.

python -m tests.fuzz_all [--minutes=10] [--only=codecs,json] [--seed=0]

Each kind has its minutes. A damaged file must be read, or be refused by `InputError` in one line
that quotes no header, within CASE_SECONDS. Anything else is printed with the seed that repeats it,
and the exit status is 1. `tests.fuzz` and `tests.fuzz_dicom` do the same through the whole data
job.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from segthor import model_directory, organ_table, patient_table, phantom
from segthor.dicom import headers, index, pixels, structures
from segthor.errors import InputError
from segthor.manifest import Dataset
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe
from serving.prediction import facts, postprocess
from serving.review.expectation import load as load_calibration
from tests import dicom_phantoms, fuzz, fuzz_trees, structure_cases

CASE_SECONDS = 60
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
        made = phantom.tiny(3)
        hu, affine = dicom_phantoms.posed(made.hu[:, :, 11:13], made.affine)
        self._slices = []
        for name in COMPRESSED:
            paths = dicom_phantoms.write_series(folder / name, hu, affine, syntax=name)
            self._slices.append(Path(paths[0]).read_bytes())

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
        structure_cases.write_patient(self._tree, phantom.tiny(0))
        self._paths = sorted(path for path in self._tree.rglob("*") if path.is_file())
        self._headers = [headers.read(str(path)) for path in self._paths]

    def run(self, rng):
        """Indexes the tree; nothing of the damaged header may appear."""
        at = int(rng.integers(len(self._paths)))
        path, content = self._paths[at], self._paths[at].read_bytes()
        try:
            head = int(rng.integers(140, 1500))
            path.write_bytes(damaged(rng, content[:head]) + content[head:])
            read = [*self._headers[:at], headers.read(str(path)), *self._headers[at + 1 :]]
            found = index.of_headers(read, str(self._tree))
            for patient in found.patients:
                shown = [str(case.problem) for case in patient.cases]
                assert SECRET not in "".join(shown), shown
        finally:
            path.write_bytes(content)


class StructureSets:
    """A structure set on a CT."""

    def __init__(self, folder: Path):
        structure_cases.write_patient(folder, phantom.tiny(0))
        self._set = folder / "rs.dcm"
        self._content = self._set.read_bytes()
        found = index.of_folder(str(folder / "ct"))
        self._stack = found.patients[0].case.volume.stack

    def run(self, rng):
        """Reads the damaged set as a label map."""
        self._set.write_bytes(damaged(rng, self._content))
        structures.read(str(self._set), self._stack, SEGTHOR)


class Csv:
    """Tables of patients and of ROIs' names."""

    def __init__(self, folder: Path):
        self._path = folder / "table.csv"

    def run(self, rng):
        """Reads one of the tables."""
        patients = b"patient,ct,labels,split,organs\nA,a.nii,b.nii,train,heart\nB,b.nii,,,\n"
        if rng.random() < 0.5:
            self._path.write_bytes(damaged(rng, patients))
            patient_table.read(str(self._path), organs=SEGTHOR)
        else:
            self._path.write_bytes(damaged(rng, b"organ,name\nheart,Herz\naorta,Ao 1\n"))
            organ_table.read_roi_names(str(self._path), SEGTHOR)


class Json:
    """A dataset's manifest and a case's facts."""

    def __init__(self, folder: Path):
        self._folder = folder
        (folder / "cases").mkdir()
        manifest = {"format": 1, "shards": [], "patients": [], "rejected": [], "unlabelled": []}
        manifest["recipe"] = dataclasses.asdict(Recipe())
        known = {"job": "0", "scan": {"path": "a.nii"}, "organs": ["heart"], "findings": []}
        self._contents = [json.dumps(value).encode() for value in (manifest, known)]

    def run(self, rng):
        """Reads one of them."""
        which = int(rng.integers(2))
        content = damaged(rng, self._contents[which])
        if which:
            (self._folder / "cases" / "A.json").write_bytes(content)
            facts.read(str(self._folder), "A")
        else:
            path = self._folder / "dataset.json"
            path.write_bytes(content)
            Dataset.load(str(self._folder))


class OrganTables:
    """Tables of organs, as CSV and as JSON."""

    def __init__(self, folder: Path):
        self._folder = folder
        table = Path(__file__).resolve().parents[1] / "configs" / "organs" / "thorax.csv"
        rows = organ_table.read(str(table)).to_json()
        self._contents = {"csv": table.read_bytes(), "json": json.dumps(rows).encode()}

    def run(self, rng):
        """Reads one of them."""
        kind = ("csv", "json")[rng.integers(2)]
        path = self._folder / f"table.{kind}"
        path.write_bytes(damaged(rng, self._contents[kind]))
        organ_table.read(str(path))


class ModelFolders:
    """What is read of a model's folder before TensorFlow loads it."""

    def __init__(self, folder: Path):
        self._folder, self._assets = folder / "model", folder / "model" / "1" / "assets"
        self._assets.mkdir(parents=True)
        (self._assets.parent / "saved_model.pb").write_bytes(b"x")
        self._values = {
            model_directory.MODEL: {"format": model_directory.FORMAT, "digest": "0" * 16},
            model_directory.TABLE: SEGTHOR.to_json(),
            model_directory.WEIGHTS: ["a", "b"],
            model_directory.RULES: {"rules": {"heart": {"largest": True}}, "table": []},
            model_directory.REVIEW: {"format": 1, "organs": {}, "rows": 0},
        }

    def run(self, rng):
        """Damages one asset, or adds an odd version."""
        odd = self._folder / ("²", "٣", "-1", "1.0", "9" * 200)[rng.integers(5)]
        odd.mkdir(exist_ok=True)
        (odd / "saved_model.pb").write_bytes(b"x")
        names = list(self._values)
        spoiled = names[rng.integers(len(names))]
        for name, value in self._values.items():
            content = json.dumps(value).encode()
            (self._assets / name).write_bytes(damaged(rng, content) if name == spoiled else content)
        try:
            if odd.name != "9" * 200:
                version = model_directory.newest(str(self._folder))
                assert version.endswith("/1"), version
            version = str(self._assets.parent)
            for read in (
                model_directory.digest,
                model_directory.table,
                model_directory.weight_names,
                lambda version: postprocess.load(version, SEGTHOR),
                load_calibration,
            ):
                with contextlib.suppress(InputError):
                    read(version)
        finally:
            shutil.rmtree(odd)


class Trees:
    """Whole trees of DICOM files, moved, cut and renamed; see `tests.fuzz_trees`."""

    def __init__(self, folder: Path):
        self._folder = folder

    def run(self, rng):
        """No CT file vanishes."""
        fuzz_trees.run_case(int(rng.integers(1 << 31)), self._folder)


KINDS = {
    "codecs": Codecs,
    "headers": Headers,
    "structures": StructureSets,
    "csv": Csv,
    "json": Json,
    "organs": OrganTables,
    "models": ModelFolders,
    "trees": Trees,
}


def run_kind(name: str, seconds: float, first_seed: int, most: int = 1 << 62) -> Counter:
    """Runs cases of one kind until the time is up; how each ended, 'WRONG' among them."""
    ended, began, seed = Counter(), time.monotonic(), first_seed
    with tempfile.TemporaryDirectory() as folder:
        kind = KINDS[name](Path(folder))
        while seed - first_seed < most and (time.monotonic() - began < seconds or not ended):
            ended[_run_case(kind, name, seed)] += 1
            seed += 1
    return ended


def _run_case(kind, name: str, seed: int) -> str:
    signal.alarm(CASE_SECONDS)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            kind.run(np.random.default_rng(seed))
        assert SECRET not in printed.getvalue()
        return "read"
    except InputError as error:
        if SECRET not in str(error) + printed.getvalue():
            return getattr(error, "code", "refused")
        print(f"{name}, seed {seed}: quotes the header: {error}", flush=True)
    except Exception:
        print(f"{name}, seed {seed}:\n{traceback.format_exc()}", flush=True)
    finally:
        signal.alarm(0)
    return "WRONG"


def _too_long(*_):
    raise TimeoutError(f"a case took more than {CASE_SECONDS} s")


def main() -> int:
    """Reads the options, runs every kind; 1 where a case went wrong."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--minutes", type=float, default=10, help="of each kind")
    options.add_argument("--only", default=",".join(KINDS), help="kinds, with commas between")
    options.add_argument("--seed", type=int, default=0, help="of the first case")
    given = options.parse_args()
    signal.signal(signal.SIGALRM, _too_long)
    warnings.simplefilter("ignore")
    wrong = 0
    for name in given.only.split(","):
        ended = run_kind(name, given.minutes * 60, given.seed)
        wrong += ended["WRONG"]
        print(f"{name}: {sum(ended.values())} cases; {dict(ended.most_common())}", flush=True)
    print(f"{wrong} went wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
