"""Kills serving.predict ten times at random moments, then lets it finish, and compares.

Run from the project's root: python -m benchmarks.predict_kills [SEED]

What must hold: no half-written label map at any time, every case done in the end, and the same
bytes as a run that nobody disturbed.
"""

import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np

sys.path.insert(0, "tests")
import tiny_models

KILLS, CASES = 10, 60


def main():
    chance = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        _make(folder)
        work_s = _work_seconds(_command(folder, "undisturbed"))
        print(f"undisturbed: {CASES} cases in {work_s:.1f} s after the start")
        print("kill after   finished   half-written")
        halves = 0
        for _ in range(KILLS):
            process = _started(_command(folder, "killed"))
            after_s = chance.uniform(0, work_s / KILLS)
            time.sleep(after_s)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            found = list((folder / "killed").glob("*.nii.gz"))
            broken = sum(not _readable(path) for path in found)
            halves += broken
            print(f"{after_s:8.2f} s   {len(found):8d}   {broken:12d}", flush=True)
        _work_seconds(_command(folder, "killed"))
        same = _digests(folder / "killed") == _digests(folder / "undisturbed")
        complete = len(_digests(folder / "killed")) == CASES
        print(f"complete: {complete}; identical to the undisturbed run: {same}")
        return int(halves > 0 or not complete or not same)


def _make(folder: Path) -> None:
    (folder / "scans").mkdir()
    tiny_models.save_coded(folder / "model")
    for number in range(CASES):
        labels = np.zeros((160, 150, 40), np.uint8)
        labels[20 + number : 100 + number // 2, 30:50, 10:30] = 1 + number % 4
        image = nibabel.Nifti1Image(tiny_models.coded_scan(labels), np.diag([-1, -1, 2.5, 1]))
        nibabel.save(image, folder / "scans" / f"Patient_{number:02d}.nii.gz")


def _command(folder: Path, output: str) -> list[str]:
    command = [sys.executable, "-m", "serving.predict", f"--model={folder / 'model'}"]
    return [*command, f"--input={folder / 'scans'}", f"--output={folder / output}"]


def _started(command) -> subprocess.Popen:
    """The process once its models are loaded and its first case is under way."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "done before" in line:
            return process
    raise RuntimeError(f"{' '.join(command)} ended with {process.wait()}")


def _work_seconds(command) -> float:
    process = _started(command)
    began = time.monotonic()
    process.communicate()
    assert process.returncode == 0
    return time.monotonic() - began


def _readable(path: Path) -> bool:
    try:
        return np.asarray(nibabel.load(path).dataobj).size > 0
    except Exception as error:  # whatever is wrong with it, it is half-written
        print(f"{path.name}: {error}")
        return False


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.nii.gz")
    }


if __name__ == "__main__":
    sys.exit(main())
