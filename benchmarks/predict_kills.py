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
        _finish(_command(folder, "undisturbed"))
        # Each kill falls between the first case and the last; the moment within a case is random.
        moments = sorted(chance.sample(range(1, CASES), KILLS))
        print("killed with   finished   half-written")
        halves = 0
        for moment in moments:
            process = subprocess.Popen(_command(folder, "killed"), stdout=subprocess.DEVNULL)
            while len(_results(folder / "killed")) < moment and process.poll() is None:
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.05))
            seen = len(_results(folder / "killed"))
            assert process.poll() is None, "it ended before it could be killed"
            process.send_signal(signal.SIGKILL)
            process.wait()
            found = _results(folder / "killed")
            broken = sum(not _readable(path) for path in found)
            halves += broken
            print(f"{seen:11d}   {len(found):8d}   {broken:12d}", flush=True)
        _finish(_command(folder, "killed"))
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


def _finish(command) -> None:
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0


def _results(folder: Path) -> list[Path]:
    return list(folder.glob("*.nii.gz"))


def _readable(path: Path) -> bool:
    try:
        return np.asarray(nibabel.load(path).dataobj).size > 0
    except Exception as error:  # whatever is wrong with it, it is half-written
        print(f"{path.name}: {error}")
        return False


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in _results(folder)}


if __name__ == "__main__":
    sys.exit(main())
