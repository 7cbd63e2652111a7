"""Trains networks of other libraries for a given time and scores them as ours are scored.

The peers are MONAI's SegResNet and nnU-Net, 2D and 3D full resolution. They run in an environment
of their own (Python 3.11 or newer). The project's environment scores them. From the project's root:

  python -m venv build/peers
  build/peers/bin/pip install -r benchmarks/peers.txt
  build/peers/bin/python -m benchmarks.peers [--peers=segresnet,nnunet_2d,nnunet_3d] [--minutes=10]

--other names a folder with train/, test/ and test_labels/, as in benchmarks.learning. The networks
learn from all patients of train/ and are not validated. --minutes counts the training steps,
including the loading and augmentation of their batches. It does not count preprocessing, planning,
the start of processes, prediction and scoring. A step that has begun is completed. The learning
rate follows the share of the time that has passed. Label maps are in FOLDER/PEER/predictions.
The last lines of the output are a Markdown table with one row per peer.
"""

import argparse
import functools
import importlib
import json
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path

# Peer -> name in the table, library, module of benchmarks that runs it, configuration.
PEERS = {
    "segresnet": ("MONAI SegResNet", "monai", "peers_segresnet", None),
    "nnunet_2d": ("nnU-Net 2D", "nnunetv2", "peers_nnunet", "2d"),
    "nnunet_3d": ("nnU-Net 3D full resolution", "nnunetv2", "peers_nnunet", "3d_fullres"),
}
ORGANS = ("esophagus", "heart", "trachea", "aorta")


def main() -> None:
    flags = parse_flags()
    rows = [run(flags, peer) for peer in flags.peers]
    heads = ["peer", *ORGANS, "mean", "seconds trained", "steps"]
    print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains and scores other libraries' networks.")
    parser.add_argument("--peers", default=",".join(PEERS), help="Peers, separated by commas.")
    parser.add_argument("--minutes", type=float, default=10, help="Training time of each peer.")
    parser.add_argument("--other", type=Path, default="../shared/data/other_phantoms")
    parser.add_argument("--folder", type=Path, default="build/peers_runs", help="For all output.")
    parser.add_argument("--python", default=".venv/bin/python", help="The project's interpreter.")
    flags = parser.parse_args()
    flags.peers = flags.peers.split(",")
    if unknown := sorted(set(flags.peers) - set(PEERS)):
        parser.error(f"--peers: expected some of {', '.join(PEERS)}; found {unknown[0]}")
    if not (any(flags.other.glob("train/*/GT.nii.gz")) and any(flags.other.glob("test/*.nii.gz"))):
        parser.error(f"--other: expected train/*/GT.nii.gz and test/*.nii.gz in {flags.other}")
    if not shutil.which(flags.python):
        parser.error(f"--python: {flags.python} is no program; name the project's interpreter")
    for peer in flags.peers:
        if (flags.folder / peer).exists():
            parser.error(f"--folder: {flags.folder / peer} exists; delete it or name a new folder")
    return flags


def run(flags: argparse.Namespace, peer: str) -> list[str]:
    """Trains, predicts and scores a peer. Returns its row of the table."""
    title, library, module, configuration = PEERS[peer]
    folder = flags.folder.absolute() / peer
    (folder / "predictions").mkdir(parents=True)
    # Late, so that nnU-Net's processes, which import this module again, start without MONAI.
    peer_module = importlib.import_module(f"benchmarks.{module}")
    train_for = functools.partial(train, 60 * flags.minutes)
    steps, seconds = peer_module.run(configuration, flags.other, folder, train_for)
    scores = evaluate(flags, folder)
    values = [scores["organs"][name]["dice"]["mean"] for name in ORGANS]
    dice = [f"{value:.3f}" for value in (*values, scores["mean"]["dice"])]
    return [f"{title} ({library} {metadata.version(library)})", *dice, f"{seconds:.0f}", f"{steps}"]


def train(limit_seconds: float, step, optimizer, learning_rate) -> tuple[int, float]:
    """Calls `step` until the time is over. Returns the number of steps and their seconds.

    learning_rate: Function of the share of the time that has passed, a number from 0 to 1.
    """
    began, steps = time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < limit_seconds:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(seconds / limit_seconds)
        step()
        steps += 1
    return steps, seconds


def evaluate(flags: argparse.Namespace, folder: Path) -> dict:
    """Scores a peer's label maps with serving.evaluate. Returns the content of scores.json."""
    paths = {
        "predictions": folder / "predictions",
        "output": folder / "evaluation",
        "labels": flags.other / "test_labels",
        "scans": flags.other / "test",
    }
    arguments = [f"--{name}={path}" for name, path in paths.items()]
    subprocess.run([flags.python, "-m", "serving.evaluate", *arguments], check=True)
    return json.loads((folder / "evaluation" / "scores.json").read_text())


if __name__ == "__main__":
    main()
