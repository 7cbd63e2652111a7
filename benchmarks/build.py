"""Times the data job and its floor: reading, decompressing and casting the same files.

Run from the project's root: python -m benchmarks.build [floor] [workers] [scaling]

floor    24 patients, six full-size phantoms under four names each: one worker's seconds per
         patient and the floor, its peak memory
workers  the same 24: two workers and one, start-up included
scaling  10, 100 and 1000 small patients and one: time per patient, and peak memory

Processor seconds are printed because wall time means little on a busy machine. Every build is a
separate process, `python -m beam_jobs.build`. The floor is compared with a build minus its
start-up, which is the time of the same command when all shards are up to date.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from isal import igzip

from segthor import inputs, phantom
from segthor.organs import SEGTHOR

FOLDER = Path("build/benchmark/build")
FULL, SCALING = 6, (10, 100, 1000)


def main(parts):
    for part in parts or ("floor", "workers", "scaling"):
        {"floor": floor_part, "workers": workers_part, "scaling": scaling_part}[part]()


def floor_part():
    """Alternates floor and build, so that a busy moment of the machine hits both."""
    sources, (csv, count) = made("full", FULL), full_table()
    floors, builds, startups, memory = [], [], [], []
    for _ in range(3):
        floors.append(floor_seconds(sources) / FULL)
        full, peak = build(csv, "--direct_num_workers=1")
        again, _ = build(csv, "--direct_num_workers=1", fresh=False)
        builds.append((full - again) / count)
        startups.append(again)
        memory.append(peak)
    floor, one, startup = (np.median(times, axis=0) for times in (floors, builds, startups))
    print(f"{count} full-size patients, one worker, medians of 3; seconds: wall, processor")
    print(f"  floor: read, ISA-L, cast   {floor[0]:6.3f} {floor[1]:6.3f} per patient")
    print(f"  beam_jobs.build            {one[0]:6.3f} {one[1]:6.3f} per patient")
    print(f"  times the floor            {one[0] / floor[0]:6.2f} {one[1] / floor[1]:6.2f}")
    print(f"  start-up                   {startup[0]:6.2f} {startup[1]:6.2f}")
    print(f"  peak memory                {max(memory):6.0f} MB")


def workers_part():
    csv, count = full_table()
    walls = {1: [], 2: []}
    for _ in range(3):
        for workers, times in walls.items():
            times.append(build(csv, f"--direct_num_workers={workers}")[0])
    one, two = (np.median(times, axis=0) for times in walls.values())
    print(f"{count} full-size patients, start-up included, medians of 3; seconds: wall, processor")
    print(f"  one worker    {one[0]:6.1f} {one[1]:6.1f}")
    print(f"  two workers   {two[0]:6.1f} {two[1]:6.1f}, {two[0] / one[0]:.2f} of the wall time")


def scaling_part():
    """One patient under many names, in turns with itself alone, whose build is the start-up."""
    (source,) = made("small", 1)
    tables = {
        count: table(f"small{count}", [(f"P{n:04d}", source) for n in range(count)])
        for count in (1, *SCALING)
    }
    arguments = ("--flagfile=configs/demo_build.flags", "--direct_num_workers=1")
    print("small patients, one worker, medians: ms for each beyond the first; peak memory")
    print("  patients     wall processor       MB   s in all  (alone: MB, s)")
    for count in SCALING:
        alone, together = [], []
        for _ in range(3 if count > 10 else 15):
            alone.append(build(tables[1], *arguments))
            together.append(build(tables[count], *arguments))
        differences = [more[0] - one[0] for one, more in zip(alone, together, strict=True)]
        wall_ms, processor_ms = np.median(differences, axis=0) / (count - 1) * 1000
        one, many = (np.median([run[0][0] for run in runs]) for runs in (alone, together))
        peaks = [max(run[1] for run in runs) for runs in (alone, together)]
        print(
            f"  {count:8} {wall_ms:8.1f} {processor_ms:9.1f} {peaks[1]:8.0f} {many:10.1f}"
            f"  ({peaks[0]:.0f}, {one:.1f})"
        )


def floor_seconds(sources) -> np.ndarray:
    """[wall, processor] seconds for all of them."""
    started, used = time.perf_counter(), time.process_time()
    for source in sources:
        for path, dtype in ((source.ct, np.int16), (source.labels, np.uint8)):
            with open(path, "rb") as stream:
                content = igzip.decompress(stream.read())
            np.frombuffer(content, np.uint8)[352:].view(dtype).astype(dtype)
    return np.array([time.perf_counter() - started, time.process_time() - used])


def build(source, *arguments, fresh=True) -> tuple[np.ndarray, float]:
    """([wall, processor] seconds, peak memory in MB) of one build."""
    output = FOLDER / "dataset"
    if fresh:
        shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "beam_jobs.build", f"--input={source}", f"--output={output}"]
    command += ["--severity=same_scan=ignore", *arguments]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak, ended = 0.0, 0
    while not ended:
        # Not the rusage's peak: that of a child starts with the parent's.
        peak = max(peak, peak_mb(process.pid))
        time.sleep(0.02)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    if status:
        raise SystemExit(f"error: {' '.join(command)} failed")
    wall = time.perf_counter() - started
    return np.array([wall, usage.ru_utime + usage.ru_stime]), peak


def peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return max([float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")] + [0])


def made(size: str, count: int):
    folder = str(FOLDER / f"{size}{count}")
    phantom.write_dataset(folder, count, 0, size, 0, report=lambda line: None)
    return inputs.find(folder, organs=SEGTHOR)


def full_table() -> tuple[Path, int]:
    """The CSV of the full-size patients, and how many it lists."""
    named = [(f"{s.name}_{n}", s) for n in range(4) for s in made("full", FULL)]
    return table(f"full{len(named)}", named), len(named)


def table(name: str, named) -> Path:
    rows = [f"{patient},{Path(s.ct).resolve()},{Path(s.labels).resolve()}" for patient, s in named]
    path = FOLDER / f"{name}.csv"
    path.write_text("\n".join(["patient,ct,labels", *rows]) + "\n")
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
