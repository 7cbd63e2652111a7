"""Times the node's receiving beside DCMTK's storescp, and prints its memory over 200 studies.

Run from the project's root: python -m benchmarks.node
Both receive the same files from DCMTK's storescu on the loopback. storescp does not sync its files
to the disk before it answers; the node does.
"""

import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, "tests")  # the writer of DICOM phantoms, models without training

import dicom_phantoms
import nodes
from tiny_models import coded_scan, save_coded

from segthor import children
from serving.node.spool import SENT, Spool

FOLDER = Path("build/benchmark/node")
SLICES, SIZE, REPEATS, GOAL = 115, 512, 5, 1.5
STUDIES, GOAL_GROWTH_MB = 200, 50.0
WARM = 40  # studies until caches are filled


def main() -> int:
    """Prints times and memory; 1 where a goal is missed."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    model = save_coded(FOLDER / "model")
    ratio = _time_receiving(model)
    growth_mb = _measure_memory(model)
    return int(ratio > GOAL or growth_mb > GOAL_GROWTH_MB)


def _time_receiving(model) -> float:
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 1000, (SIZE, SIZE, SLICES), dtype=np.int16)
    port = nodes.free_port()
    (FOLDER / "store").mkdir()
    command = ["storescp", "-od", str(FOLDER / "store"), str(port)]
    store = children.start(command, stdout=subprocess.DEVNULL)
    program, node_port = _start_node("timed", model)
    seconds = {"storescp": [], "node": []}
    try:
        time.sleep(1)
        for k in range(REPEATS):
            folder = FOLDER / f"series{k}"
            names = dict.fromkeys(("patient", "study", "series", "frame"), f"t{k}")
            paths = dicom_phantoms.write_series(folder, hu, nodes.AFFINE, **names)
            seconds["storescp"].append(_send(port, paths))
            seconds["node"].append(_send(node_port, paths))
    finally:
        program.kill()
        store.kill()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["node"] / medians["storescp"]
    print(f"{SLICES} slices of {SIZE} x {SIZE}, median of {REPEATS}:")
    for name, median in medians.items():
        print(f"  {name:10}{median:7.2f} s")
    print(f"  ratio {ratio:.2f} (goal: at most {GOAL})", flush=True)
    return ratio


def _measure_memory(model) -> float:
    labels = np.zeros((64, 64, 24), np.uint8)
    labels[20:30, 20:30, 5:15] = 2
    program, port = _start_node("memory", model)
    spool, held = Spool(str(FOLDER / "memory" / "spool")), {}
    try:
        for k in range(1, STUDIES + 1):
            names = dict.fromkeys(("patient", "study", "series", "frame"), f"m{k}")
            paths = dicom_phantoms.write_series(
                FOLDER / "study", coded_scan(labels), nodes.AFFINE, **names
            )
            _send(port, paths)
            nodes.wait_for(lambda k=k: len(spool.names(SENT)) == k, 60)
            shutil.rmtree(FOLDER / "study")
            if k in (1, WARM, STUDIES // 2, STUDIES):
                held[k] = _resident_mb(program.pid)
                print(f"  {held[k]:7.0f} MB after {k} studies", flush=True)
    finally:
        program.kill()
    growth_mb = held[STUDIES] - held[WARM]
    print(f"  grew by {growth_mb:.0f} MB from study {WARM} on (goal: at most {GOAL_GROWTH_MB:g})")
    return growth_mb


def _start_node(name: str, model) -> tuple[subprocess.Popen, int]:
    folder, port = FOLDER / name, nodes.free_port()
    folder.mkdir()
    flags = {
        "spool": folder / "spool",
        "rules": nodes.write_rules(folder / "rules.csv", {"model": model, "least_slices": 8}),
        "peers": nodes.write_peers(folder / "peers.csv", ("STORESCU", "127.0.0.1", "")),
        "port": port,
        "quiet": 0.3 if name == "memory" else 3600,
        "least_free_gb": 0,
    }
    words = [f"--{flag}={value}" for flag, value in flags.items()]
    command = [sys.executable, "-m", "serving.node", *words]
    program = children.start(command, stdout=subprocess.PIPE, text=True)
    while "listens" not in program.stdout.readline():
        assert program.poll() is None, "the node ended"
    # So that its pipe does not fill.
    threading.Thread(target=program.stdout.read, daemon=True).start()
    return program, port


def _send(port: int, paths) -> float:
    began = time.monotonic()
    command = ["storescu", "-aec", nodes.TITLE, "-aet", "STORESCU", "127.0.0.1", str(port)]
    subprocess.run([*command, *paths], check=True)
    return time.monotonic() - began


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1e3


if __name__ == "__main__":
    sys.exit(main())
