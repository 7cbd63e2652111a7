"""The folder of predictions: what made it, which cases are finished, and how one is written.

  predictions.json       the models and settings behind every label map here
  Patient_41.nii.gz      a label map, named after its scan
  cases/Patient_41.json  what is known about it, or why there is none
  probabilities/Patient_41_heart.nii.gz   where they were asked for
  dicom/Patient_41_rtstruct.dcm           the same

A case is finished when its label map is there with facts of the same job and the same scan. Facts,
label map and DICOM objects are renamed into place in this order when all of them are written, so a
kill or a full disk at any moment leaves a case finished or to be done again, and no object without
its label map. A finished label map goes when a newer one is ready to take its place, or by
--overwrite with another model; never because a later try failed. One that a person corrected
(its bytes are not those that the facts note) is replaced by --overwrite alone. The workers of one
job may write into one folder together; two jobs may not (`segthor.locks`).
"""

import hashlib
import importlib.metadata
import json
import time
from dataclasses import replace

import numpy as np

from segthor import dicom, files, json_files, nifti, outputs, scans, underway
from segthor.errors import InputError
from segthor.layouts import PREDICTIONS as FILE_NAME
from segthor.organs import Organs
from segthor.patients import Patient
from segthor.planes import Planes
from segthor.volume import Grid, LabelMap
from serving.prediction import corrections, facts
from serving.prediction.facts import Facts

FORMAT = 1
MADE = "made"  # in FILE_NAME, where DICOM is written: YYYYMMDD HHMMSS, which its objects bear
ORGANS = "organs"  # in FILE_NAME: what the label values stand for
_PROBABILITY_STEP = float(np.nextafter(np.float32(1 / 255), np.float32(0)))  # 255 is at most 1


class Results:
    """One output folder of one job. folder: where. job: a digest of the job's settings."""

    def __init__(self, folder: str, settings: dict, organs: Organs, overwrite: bool = False):
        """settings: all that decides the label maps, plain JSON values; organs: their labels'.

        overwrite: whether label maps that a person corrected may be replaced.
        """
        self.folder, self._organs, self._overwrite = folder, organs, overwrite
        self.settings = {"format": FORMAT, **settings}
        text = json.dumps(self.settings, sort_keys=True)
        self.job = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._cases = files.join(folder, "cases")

    def claim(self, overwrite: bool, formats=()) -> None:
        """Makes the folder this job's, and names the cases in whose midst a run was killed.

        formats: of DICOM, if any.

        Raises:
          InputError: the folder holds another job's results and not `overwrite`, or no results.
        """
        path, made = files.join(self.folder, FILE_NAME), None
        if files.exists(path):
            found, head = settings_of(self.folder), self.settings
            found.pop(ORGANS, None)  # the models imply them
            made = found.pop(MADE, None)
            differing = sorted(key for key in {*head, *found} if head.get(key) != found.get(key))
            if differing and not overwrite:
                raise InputError(
                    f"{self.folder}: holds predictions made with another {', '.join(differing)}; "
                    "choose another --output, or --overwrite them"
                )
            if differing:
                self._clear()
        elif files.exists(self.folder) and files.listdir(self.folder):
            raise InputError(
                f"{self.folder}: expected an empty folder or one with {FILE_NAME}, found "
                f"{files.listdir(self.folder)[0]}; choose another --output"
            )
        underway.warn_about_notes(self._cases)
        for part in ("", "cases", "probabilities", "dicom"):
            files.remove_partial(files.join(self.folder, part))  # left by a run that was killed
        if formats:
            made = made or time.strftime("%Y%m%d %H%M%S")
        noted = {ORGANS: self._organs.to_json()} | ({MADE: made} if made else {})
        json_files.write(path, self.settings | noted)

    def _clear(self) -> None:
        """Removes another job's label maps, also of scans that this job will not predict."""
        known = files.listdir(self._cases) if files.exists(self._cases) else []
        # The facts last: they tell a repeated run which label maps are a job's.
        for name in filter(nifti.is_nifti, files.listdir(self.folder)):
            if f"{nifti.stem(name)}.json" in known:
                files.remove(files.join(self.folder, name))
        for name in known:
            self._forget_objects(name.removesuffix(".json"))
            files.remove(files.join(self._cases, name))

    def noted(self, scan: Patient):
        """A block in which this case is under way; a run that is killed there leaves its name."""
        return underway.keep_note(self._cases, f"{scan.name} ({scan.ct})")

    def forget_notes(self) -> None:
        """Removes the notes of cases that were given up: their threads end with the process."""
        underway.remove_notes(self._cases)

    def path(self, scan: Patient) -> str:
        """Where the scan's label map goes."""
        return files.inside(self.folder, scan.label_map)

    def origin(self, doubt: str = "") -> dict:
        """The fields of `segthor.dicom.origin.Origin`; doubt: what is implausible, in words."""
        date, _, clock = settings_of(self.folder)[MADE].partition(" ")
        model = ",".join(digest[:16] for digest in self.settings["models"])
        if len(model) > 64:
            model = f"job {self.job}"
        version = importlib.metadata.version("segthor")
        return {"version": version, "model": model, "date": date, "time": clock, "doubt": doubt}

    def object_path(self, name: str, kind: str) -> str:
        """Where a patient's DICOM object goes."""
        return files.inside(files.join(self.folder, "dicom"), f"{name}_{kind}.dcm")

    def is_finished(self, scan: Patient, formats=(), wants_nifti: bool = False) -> bool:
        """Whether a run of this job finished the scan as it is now, in all DICOM formats.

        wants_nifti: Whether a scan with uneven planes needs a label map in NIfTI, too; others
          always do.
        """
        if not scans.exists(scan.ct) or not files.exists(facts.path(self.folder, scan.name)):
            return False
        if files.exists(self.path(scan)):
            if corrections.is_damaged(self.path(scan), self._noted(scan)):
                return False
        elif wants_nifti or not self._is_dicom_alone(scan):
            return False
        try:
            known = self.facts(scan)
        except InputError:  # facts that cannot be read say nothing of the label map beside them
            return False
        objects = known.objects or {}
        return (
            (known.job, known.scan) == (self.job, mark_of(scan))
            and set(formats) <= set(objects)
            and all(
                files.exists(self.object_path(scan.name, kind)) for kind in formats if objects[kind]
            )
        )

    def require_uncorrected(self, scan: Patient, digest: str = "") -> None:
        """Raises InputError where another label map than a job's is there; not with overwrite.

        digest: That of the new label map; it may replace one like it, whoever wrote that.
        """
        expected = self._noted(scan) or ("" if self._is_own(scan) else digest)
        if not self._overwrite and corrections.differs(self.path(scan), expected):
            raise InputError(
                f"{self.path(scan)}: was corrected or put there by hand, and the scan or the "
                "--formats are others than when it was made; move it away, or --overwrite it "
                "(serving.convert makes DICOM of a corrected label map)"
            )

    def _is_dicom_alone(self, scan: Patient) -> bool:
        """Whether the facts are of a scan with uneven planes that has no label map in NIfTI."""
        try:
            known = self.facts(scan)
        except InputError:
            return False
        return bool(known.uneven and known.objects and not known.label_map)

    def _is_own(self, scan: Patient) -> bool:
        """Whether the facts say that a job wrote the label map."""
        try:
            return self.facts(scan).job is not None
        except InputError:
            return False

    def _noted(self, scan: Patient) -> str:
        """What the facts say of the label map's bytes; '' where they do not."""
        try:
            noted = self.facts(scan).label_map or {}
        except InputError:
            return ""
        return noted.get("sha256", "") if noted.get("file") == scan.label_map else ""

    def write(
        self,
        scan: Patient,
        mark,
        labels: LabelMap,
        known: Facts,
        probabilities: dict,
        resample_z: bool = False,
    ) -> str:
        """Writes one case; returns why it has no label map in NIfTI, or ''.

        mark: of `mark_of`, from before the scan was read. probabilities: organ -> uint8 [Z, Y, X]
        on the same grid. resample_z: Whether uneven planes are resampled to an even grid; a label
        map of such a scan that is there already is always replaced.
        """
        if files.is_same(self.path(scan), scan.ct):
            raise InputError(
                f"{scan.ct}: its label map would take its place; choose another --output"
            )
        planes, lacking = labels.grid.planes, ""
        if planes and (resample_z or files.exists(self.path(scan))):
            probabilities = {name: zyx[planes.nearest] for name, zyx in probabilities.items()}
            labels = replace(labels, zyx=labels.zyx[planes.nearest], grid=labels.grid.even())
            known = replace(known, uneven=_resampled(planes))
        elif planes:
            lacking = no_label_map(labels.grid)
            known, probabilities = replace(known, uneven=lacking), {}
        with outputs.Staging() as staging:
            for name, array in probabilities.items():
                file = nifti.stem(scan.label_map) + f"_{name}.nii.gz"
                path = files.inside(files.join(self.folder, "probabilities"), file)
                nifti.write(staging.path(path), array, labels.grid, slope=_PROBABILITY_STEP)
            place, digest, label_map = staging.path(facts.path(self.folder, scan.name)), "", None
            if not lacking:
                written = staging.path(self.path(scan))
                nifti.write(written, labels.zyx, labels.grid)
                digest = files.sha256(written)
                label_map = {"file": scan.label_map, "sha256": digest}
            replace(known, job=self.job, scan=mark, label_map=label_map).write(place)
            self.require_uncorrected(scan, digest)  # a person may have written it meanwhile
            self.forget(scan)  # an older label map must never lie beside newer facts
            self._forget_objects(scan.name)
            staging.publish()
        return lacking

    def facts(self, scan: Patient) -> Facts:
        """What is known about the case."""
        return facts.read(self.folder, scan.name)

    def write_failure(self, scan: Patient, reason: str) -> None:
        """Notes why this try gave no label map; one of an earlier try stays, with its facts."""
        stays = files.exists(self.path(scan)) or self._is_dicom_alone(scan)
        known = self.facts(scan) if stays else Facts(scan={"path": scan.ct})
        replace(known, failed=reason).save(self.folder, scan.name)

    def forget_failure(self, scan: Patient) -> None:
        """Removes the note of a failed try from a case that is finished."""
        known = self.facts(scan)
        if known.failed:
            replace(known, failed=None).save(self.folder, scan.name)

    def forget(self, scan: Patient) -> None:
        """Removes the scan's label map, and then what is known about it."""
        for path in (self.path(scan), facts.path(self.folder, scan.name)):
            if files.exists(path):
                files.remove(path)

    def _forget_objects(self, name: str) -> None:
        for kind in dicom.FORMATS:
            if files.exists(self.object_path(name, kind)):
                files.remove(self.object_path(name, kind))


def no_label_map(grid: Grid) -> str:
    """Why a scan with uneven planes has no label map in NIfTI, and what to do."""
    return (
        f"no label map in NIfTI: it cannot hold planes at steps of {grid.planes.words}; "
        "--resample_z writes one on an even grid, --formats=rtstruct,seg the planes as they are"
    )


def _resampled(planes: Planes) -> str:
    return (
        f"label map in NIfTI resampled from {len(planes.places_mm)} planes at steps of "
        f"{planes.words} to {planes.even_count} slices of {planes.even_step_mm:.4g} mm, each that "
        "of the nearest plane"
    )


def mark_of(scan: Patient) -> dict:
    """What names the scan's own files as they are now; others beside them do not count."""
    return {"path": scan.ct, "stamp": scans.volume_stamp(scan.ct, scan.ct_files)}


def settings_of(folder: str) -> dict:
    """The settings of the job whose label maps lie in a folder.

    Raises:
      InputError: there are none, or not what a prediction job writes.
    """
    path = files.join(folder, FILE_NAME)
    found = json_files.read(path)
    models = found.get("models") if isinstance(found, dict) else None
    if not isinstance(models, list) or not all(isinstance(one, str) for one in models):
        raise InputError(
            f"{path}: expected the settings that serving.predict writes, found something else; "
            "choose another folder"
        )
    return found
