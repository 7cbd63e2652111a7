"""The folder of predictions: what made it, which cases are finished, and how one is written.

  predictions.json      the models and settings behind every label map here
  Patient_41.nii.gz     a label map, named after its scan
  cases/Patient_41.json what is known about it: level, seconds, the scan's mark

A case is finished when its label map stands there, its facts beside it, and its scan is unchanged.
The facts are written first and the label map is renamed into place last, so a kill at any moment
leaves a case finished or to be done again.
"""

from segthor import files, nifti
from segthor.errors import InputError
from serving.cases import Scan

FILE_NAME = "predictions.json"
FORMAT = 1


class Results:
    """One output folder."""

    def __init__(self, folder: str, settings: dict, overwrite: bool):
        """Opens the folder for this job.

        settings: everything that decides the label maps, plain JSON values.

        Raises:
          InputError: the folder holds something that another job made, and not `overwrite`.
        """
        self.folder, self.overwrite = folder, overwrite
        head = {"format": FORMAT, **settings}
        path = files.join(folder, FILE_NAME)
        if not overwrite:
            _check_owner(folder, path, head)
        files.write_json(path, head)

    def path(self, scan: Scan) -> str:
        """Where the scan's label map goes."""
        return files.join(self.folder, scan.file)

    def is_finished(self, scan: Scan) -> bool:
        """Whether an earlier run of this job finished the scan as it is now."""
        facts = self._facts_path(scan)
        if self.overwrite or not files.exists(self.path(scan)) or not files.exists(facts):
            return False
        return files.read_json(facts).get("scan") == _mark(scan)

    def write(self, scan: Scan, labels, grid, facts: dict) -> None:
        """Writes facts, then labels uint8 [X, Y, Z] on `grid`."""
        files.write_json(self._facts_path(scan), {"scan": _mark(scan), **facts})
        nifti.write(self.path(scan), labels, grid)

    def _facts_path(self, scan: Scan) -> str:
        return files.join(self.folder, "cases", f"{scan.patient}.json")


def _mark(scan: Scan) -> dict:
    return {"path": scan.ct, "stamp": files.stamp(scan.ct)}


def _check_owner(folder: str, path: str, head: dict) -> None:
    if files.exists(path):
        found = files.read_json(path)
        differing = sorted(key for key in {*head, *found} if head.get(key) != found.get(key))
        if differing:
            raise InputError(
                f"{folder}: holds predictions made with another {', '.join(differing)}; "
                "choose another --output, or --overwrite them"
            )
    elif files.exists(folder) and files.listdir(folder):
        raise InputError(
            f"{folder}: expected an empty folder or one with {FILE_NAME}, found "
            f"{files.listdir(folder)[0]}; choose another --output"
        )
