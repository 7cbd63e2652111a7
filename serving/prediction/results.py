"""The folder of predictions: the settings of its job, its finished cases, and how one is written.

  predictions.json       the models and settings behind every label map here
  Patient_41.nii.gz      a label map, named after its scan
  cases/Patient_41.json  the facts about it, or why there is none
  probabilities/Patient_41_heart.nii.gz   where they were asked for
  dicom/Patient_41_rtstruct.dcm           the same

A case is finished if its label map exists with facts of the same job and the same scan. Facts,
label map and DICOM objects are renamed into place in this order after all of them are written, so
that a kill or a full disk leaves a case either finished or to be predicted again, and no object
without its label map. A finished label map is removed when a newer one is ready, or by --overwrite
with another model, but not because a later attempt failed. A label map that a person corrected (its
digest differs from that in the facts) is replaced with --overwrite only. The workers of one job
write into one folder together; two jobs may not (`segthor.locks`).
"""

import hashlib
import importlib.metadata
import json
import re
import time
from dataclasses import replace

import numpy as np

from segthor import dicom, files, json_files, nifti, outputs, scans, underway
from segthor.errors import InputError
from segthor.layouts import PREDICTIONS as FILE_NAME
from segthor.organs import Organs
from segthor.patients import Patient
from segthor.volume import LabelMap
from serving.prediction import facts, uneven
from serving.prediction.facts import Facts

FORMAT = 1
MADE = "made"  # field of FILE_NAME if DICOM is written: date and time of its objects
ORGANS = "organs"  # field of FILE_NAME: the table of organs
# The float32 below 1 / 255, so that 255 steps are at most 1.
_PROBABILITY_STEP = float(np.nextafter(np.float32(1 / 255), np.float32(0)))


class Results:
    """The output folder of a job.

    folder: Path of the folder.
    settings: Settings of the job, plain JSON values.
    job: Digest of the settings.
    """

    def __init__(self, folder: str, settings: dict, organs: Organs, overwrite: bool = False):
        """Describes the folder; writes nothing.

        settings: All that the label maps depend on, plain JSON values.
        organs: The table of the label values.
        overwrite: Whether to replace label maps that a person corrected.
        """
        self.folder, self._organs, self._overwrite = folder, organs, overwrite
        self.settings = {"format": FORMAT, **settings}
        text = json.dumps(self.settings, sort_keys=True)
        self.job = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._cases = files.join(folder, "cases")

    def claim(self, overwrite: bool, formats=()) -> None:
        """Prepares the folder for this job, and prints the cases in which a job was killed.

        overwrite: Whether to remove the results of another job.
        formats: DICOM formats that will be written.

        Raises:
          InputError: The folder holds results of another job, or other files.
        """
        path, made = files.join(self.folder, FILE_NAME), None
        if files.exists(path):
            made = self._take_over(overwrite)
        elif files.exists(self.folder) and files.listdir(self.folder):
            raise InputError(
                f"{self.folder}: expected an empty folder or one with {FILE_NAME}, found "
                f"{files.listdir(self.folder)[0]}; choose another --output"
            )
        underway.warn_about_notes(self._cases)
        for part in ("", "cases", "probabilities", "dicom"):
            files.remove_partial(files.join(self.folder, part))  # left by a run that was killed
        if formats and not re.fullmatch("[0-9]{8} [0-9]{6}", str(made)):
            made = time.strftime("%Y%m%d %H%M%S")
        more = {ORGANS: self._organs.to_json()} | ({MADE: made} if made else {})
        json_files.write(path, self.settings | more)

    def _take_over(self, overwrite: bool):
        """Prepares a folder of results; returns the value of MADE in its file, if any."""
        there, here = settings_of(self.folder), self.settings
        there.pop(ORGANS, None)  # follow from the models
        made = there.pop(MADE, None)
        differing = sorted(key for key in {*here, *there} if here.get(key) != there.get(key))
        if differing and not overwrite:
            raise InputError(
                f"{self.folder}: holds predictions made with another {', '.join(differing)}; "
                "choose another --output, or --overwrite them"
            )
        if differing:
            self._clear()
        return made

    def _clear(self) -> None:
        """Removes the results of another job, also of scans that this job does not predict."""
        known = files.listdir(self._cases) if files.exists(self._cases) else []
        # The facts last: by them a repeated command knows which label maps a job wrote.
        for name in filter(nifti.is_nifti, files.listdir(self.folder)):
            if f"{nifti.stem(name)}.json" in known:
                files.remove(files.join(self.folder, name))
        for name in known:
            self._forget_objects(name.removesuffix(".json"))
            files.remove(files.join(self._cases, name))

    def keep_note(self, scan: Patient):
        """Context of predicting this case; a process that is killed in it leaves a note."""
        return underway.keep_note(self._cases, f"{scan.name} ({scan.ct})")

    def forget_notes(self) -> None:
        """Removes the notes of abandoned cases, whose threads end with the process."""
        underway.remove_notes(self._cases)

    def path(self, scan: Patient) -> str:
        """Path of the scan's label map."""
        return files.inside(self.folder, scan.label_map)

    def origin(self, doubt: str = "") -> dict:
        """Fields of `segthor.dicom.origin.Origin`; doubt: What is implausible, in words."""
        date, _, clock = settings_of(self.folder)[MADE].partition(" ")
        model = ",".join(digest[:16] for digest in self.settings["models"])
        if len(model) > 64:
            model = f"job {self.job}"
        version = importlib.metadata.version("segthor")
        return {"version": version, "model": model, "date": date, "time": clock, "doubt": doubt}

    def object_path(self, name: str, kind: str) -> str:
        """Path of a patient's DICOM object."""
        return files.inside(files.join(self.folder, "dicom"), f"{name}_{kind}.dcm")

    def is_finished(self, scan: Patient, formats=(), wants_nifti: bool = False) -> bool:
        """Whether this job has finished the scan as it is now, in all these DICOM formats.

        wants_nifti: Whether a scan with uneven planes needs a label map in NIfTI, as all other
          scans do.
        """
        if not scans.exists(scan.ct) or not files.exists(facts.path(self.folder, scan.name)):
            return False
        known = self._readable_facts(scan)
        if files.exists(self.path(scan)):
            if _is_damaged(self.path(scan), self._recorded_digest(scan)):
                return False
        elif wants_nifti or not _is_dicom_alone(known):
            return False
        objects = known.objects or {}
        return (
            (known.job, known.scan) == (self.job, stamp_of(scan))
            and set(formats) <= set(objects)
            and all(
                files.exists(self.object_path(scan.name, kind)) for kind in formats if objects[kind]
            )
        )

    def require_uncorrected(self, scan: Patient, digest: str = "") -> None:
        """Raises InputError if a person corrected the label map, unless `overwrite` was given.

        digest: Digest of the new label map, which may replace an equal one.
        """
        is_own = self._readable_facts(scan).job is not None
        expected = self._recorded_digest(scan) or ("" if is_own else digest)
        if not self._overwrite and _differs(self.path(scan), expected):
            raise InputError(
                f"{self.path(scan)}: was corrected or put there by hand, and the scan or the "
                "--formats are others than when it was made; move it away, or --overwrite it "
                "(serving.convert makes DICOM of a corrected label map)"
            )

    def _readable_facts(self, scan: Patient) -> Facts:
        """Reads the facts of the case; empty ones if they cannot be read."""
        try:
            return self.facts(scan)
        except InputError:  # without facts nothing is known of the label map
            return Facts()

    def _recorded_digest(self, scan: Patient) -> str:
        """Digest of the label map in the facts; '' if there is none."""
        label_map = self._readable_facts(scan).label_map or {}
        return label_map.get("sha256", "") if label_map.get("file") == scan.label_map else ""

    def write(
        self, scan: Patient, stamp, labels: LabelMap, known: Facts, maps: dict, resample_z=False
    ) -> str:
        """Writes the results of one case; returns why it has no label map in NIfTI, or ''.

        stamp: `stamp_of` from before the scan was read.
        maps: Organ to its probability, uint8 [Z, Y, X] on the grid of the labels.
        resample_z: Whether to resample uneven planes to an even grid, which always happens if a
          label map of the scan exists.
        """
        if files.is_same(self.path(scan), scan.ct):
            raise InputError(
                f"{scan.ct}: its label map would take its place; choose another --output"
            )
        resample_z = resample_z or files.exists(self.path(scan))
        labels, known, maps = uneven.fit_to_nifti(labels, known, maps, resample_z)
        with outputs.Staging() as staging:
            for name, array in maps.items():
                path = staging.path(self._probability_path(scan, name))
                nifti.write(path, array, labels.grid, slope=_PROBABILITY_STEP)
            place = staging.path(facts.path(self.folder, scan.name))  # renamed before the label map
            label_map = self._stage_label_map(scan, labels, staging) if labels else None
            replace(known, job=self.job, scan=stamp, label_map=label_map).write(place)
            # A person may have corrected it meanwhile.
            self.require_uncorrected(scan, label_map["sha256"] if label_map else "")
            self.forget(scan)  # an older label map must not exist beside newer facts
            self._forget_objects(scan.name)
            staging.publish()
        return "" if labels else known.uneven

    def _probability_path(self, scan: Patient, organ: str) -> str:
        name = f"{nifti.stem(scan.label_map)}_{organ}.nii.gz"
        return files.inside(files.join(self.folder, "probabilities"), name)

    def _stage_label_map(self, scan: Patient, labels: LabelMap, staging: outputs.Staging) -> dict:
        """Writes the label map to its temporary path; returns its name and digest."""
        path = staging.path(self.path(scan))
        nifti.write(path, labels.zyx, labels.grid)
        return {"file": scan.label_map, "sha256": files.sha256(path)}

    def facts(self, scan: Patient) -> Facts:
        """Reads the facts of the case."""
        return facts.read(self.folder, scan.name)

    def write_failure(self, scan: Patient, reason: str) -> None:
        """Records why this attempt failed; the label map and facts of an earlier one stay."""
        stays = files.exists(self.path(scan)) or _is_dicom_alone(self._readable_facts(scan))
        known = self._readable_facts(scan) if stays else Facts(scan={"path": scan.ct})
        replace(known, failed=reason).save(self.folder, scan.name)

    def forget_failure(self, scan: Patient) -> None:
        """Removes the record of a failed attempt from a finished case."""
        known = self.facts(scan)
        if known.failed:
            replace(known, failed=None).save(self.folder, scan.name)

    def forget(self, scan: Patient) -> None:
        """Removes the scan's label map, then its facts."""
        for path in (self.path(scan), facts.path(self.folder, scan.name)):
            if files.exists(path):
                files.remove(path)

    def _forget_objects(self, name: str) -> None:
        for kind in dicom.FORMATS:
            if files.exists(self.object_path(name, kind)):
                files.remove(self.object_path(name, kind))


def _differs(path: str, digest: str) -> bool:
    """Whether a readable label map exists and has another digest; False for the digest ''."""
    if not digest or not files.exists(path) or files.sha256(path) == digest:
        return False
    return not _is_damaged(path, digest)


def _is_damaged(path: str, digest: str) -> bool:
    """Whether the label map cannot be read; one with this digest is not read."""
    if files.size(path) and files.sha256(path) == digest:
        return False
    try:
        nifti.read(path)
    except InputError:
        return True
    return False


def _is_dicom_alone(known: Facts) -> bool:
    """Whether a case has uneven planes and DICOM objects, but no label map in NIfTI."""
    return bool(known.uneven and known.objects and not known.label_map)


def stamp_of(scan: Patient) -> dict:
    """Path and stamp of the scan's own files as they are now; other files do not matter."""
    return {"path": scan.ct, "stamp": scans.volume_stamp(scan.ct, scan.ct_files)}


def settings_of(folder: str) -> dict:
    """Reads the settings of the job that wrote the label maps of a folder.

    Raises:
      InputError: There are none, or serving.predict did not write them.
    """
    path = files.join(folder, FILE_NAME)
    settings = json_files.read(path)
    models = settings.get("models") if isinstance(settings, dict) else None
    if not isinstance(models, list) or not all(isinstance(one, str) for one in models):
        raise InputError(
            f"{path}: expected the settings that serving.predict writes, found something else; "
            "choose another folder"
        )
    return settings
