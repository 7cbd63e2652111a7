"""What the drills share: tiny patients, the programs as processes, a small disk, comparisons."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from segthor import nifti, phantom
from segthor.recipe import Recipe

RECIPE = Recipe(crop_mm=288.0, pixel_mm=9.0)  # a matrix of 32
PATIENTS = 8
WAIT_S = 900


class Failed(Exception):
    """A drill failed."""


class Skipped(Exception):
    """A drill cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Stage:
    """The folders and files of the drills. repeats: Kills per drill."""

    folder: Path
    chance: random.Random
    repeats: int

    @property
    def patients(self) -> Path:
        """Tiny patients with contours."""
        return self.folder / "patients"

    def new(self, name: str) -> Path:
        """A folder that no other drill has; not made."""
        return self.folder / "out" / name


def holds(condition, what: str) -> None:
    """Raises Failed unless the condition holds."""
    if not condition:
        raise Failed(what)


def make_patients(folder: Path) -> None:
    """Writes PATIENTS phantoms in SegTHOR's layout."""
    for number in range(1, PATIENTS + 1):
        made, name = phantom.tiny(number), f"Patient_{number:02d}"
        place = folder / "train" / name
        nifti.write(str(place / f"{name}.nii.gz"), made.volume.zyx, made.volume.grid)
        nifti.write(str(place / "GT.nii.gz"), made.label_map.zyx, made.label_map.grid)


def build(stage: Stage, output: Path, patients: Path | None = None) -> list[str]:
    """The data job's command."""
    return [
        *(sys.executable, "-m", "beam_jobs.build", f"--input={patients or stage.patients}"),
        *(f"--output={output}", "--crop_mm=288", "--pixel_mm=9"),
    ]


def run(command: list[str], status: int = 0) -> str:
    """Runs a program to its end; returns its output. Raises Failed for another exit status."""
    return finish(start(command), status)


def start(command: list[str]) -> subprocess.Popen:
    """Starts a program in a new process group, with its output in a file."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen, status: int = 0) -> str:
    """Waits for a program; returns its output. Raises Failed for another status or a traceback."""
    output = process.communicate(timeout=WAIT_S)[0]
    last = (output.strip().splitlines() or ["nothing said"])[-1]
    holds("Traceback" not in output, f"a traceback, ending in: {last}")
    holds(process.returncode == status, f"exit status {process.returncode}: {last}")
    return output


def refused(command: list[str], *words: str) -> str:
    """Runs a program that must end with status 2 and one line that contains the words."""
    line = run(command, status=2).strip().splitlines()[-1]
    holds(line.startswith("error: "), f"no clear line, but: {line}")
    for word in words:
        holds(word in line, f"nothing of {word!r} in: {line}")
    return line


def kill_at_random(stage: Stage, command: list[str], progress, most: int) -> bool:
    """Kills a program and its children at a random moment; returns whether it still ran.

    progress: Returns how far the program is; the kill comes within half a second after a random
      value up to `most`.
    """
    process = start(command)
    reach = stage.chance.randint(min(progress(), most), most)
    while process.poll() is None and progress() < reach:
        time.sleep(0.005)
    time.sleep(stage.chance.uniform(0, 0.5))
    running = process.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return running


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
    """A disk in memory of that size. Raises Skipped where mounting is not permitted."""
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def remount(folder: Path, option: str) -> None:
    """Changes a mounted disk: 'ro', 'size=64m'."""
    _mount("-o", f"remount,{option}", str(folder))


def _mount(*arguments: str) -> None:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Skipped("there is no mount command") from error
    if done.returncode:
        raise Skipped(f"mounting is not permitted here ({done.stderr.strip().splitlines()[-1]})")


def contents(folder: Path, pattern: str = "**/*") -> dict[str, bytes]:
    """Every file's bytes, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.glob(pattern)
        if path.is_file()
    }


def flip_bit(path: Path, chance: random.Random, first: float = 0.1, last: float = 0.9) -> None:
    """Turns one bit over, somewhere in that part of the file."""
    content = bytearray(path.read_bytes())
    place = chance.randint(int(first * len(content)), int(last * len(content)))
    content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
