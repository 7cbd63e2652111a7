"""Builds every encoder with every decoder, takes a training step, exports and loads the model.

Run from the project's root: python -m benchmarks.networks [--only=resnet18-unet,vgg16-fpn]

Writes a row per network to build/networks.json, continues there when repeated, and writes the table
docs/networks.md at the end. Each network has a separate process. Times are those of one step on
this machine, not the speed of a network: the slices are the smallest that it accepts.
"""

import json
import subprocess
import sys
import tempfile
import time

from absl import app, flags

from segthor import files, json_files
from segthor.organs import SEGTHOR
from trainer.config import BACKBONES, DECODERS

ONLY = flags.DEFINE_list("only", [], "Networks as BACKBONE-DECODER; all where empty.")
ONE = flags.DEFINE_string("one", "", "For the process of one network: its name.")
DATA = flags.DEFINE_string("data", "", "For the process of one network: its dataset.")
TABLE = flags.DEFINE_string("table", "docs/networks.md", "Where the table goes; empty: nowhere.")
RESULTS, DATASETS = "build/networks.json", "build/networks"
# PSPNet's pyramid needs a multiple of 48, and the recipe one of 32; inceptionv3 at least 75.
SIZE_PX = {"pspnet": 96, "inceptionv3": 96}
SMALLEST_PX = 64
LIMIT_S = 3600


def main(_):
    if ONE.value:
        print(json.dumps(try_one(*ONE.value.split("-"), DATA.value)))
        return 0
    names = ONLY.value or [f"{b}-{d}" for b in BACKBONES for d in DECODERS]
    rows = json_files.read(RESULTS) if files.exists(RESULTS) else {}
    for number, name in enumerate(names, 1):
        if "failed" in rows.get(name, {"failed": 1}):
            rows[name] = run_one(name)
            json_files.write(RESULTS, rows)
        print(f"{number}/{len(names)} {name}: {rows[name]}", flush=True)
    if TABLE.value:
        with files.atomic_write(TABLE.value) as stream:
            stream.write(table(rows).encode())
        print(f"Wrote {TABLE.value}")
    return int(any("failed" in rows[name] for name in names))


def run_one(name):
    """One network's row, from a separate process with its own memory and settings."""
    size = max(SIZE_PX.get(part, SMALLEST_PX) for part in name.split("-"))
    command = [sys.executable, "-m", "benchmarks.networks", f"--one={name}"]
    command.append(f"--data={dataset(size)}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {LIMIT_S} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["?"])[-1][-300:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def dataset(size):
    """Three small phantoms as slices of `size` pixels, made once by the project's own programs."""
    folder, patients = f"{DATASETS}/{size}", f"{DATASETS}/patients"
    if not files.exists(f"{folder}/dataset.json"):
        if not files.exists(patients):
            program("segthor.phantom", f"--output={patients}", "--patients=3", "--test_patients=1")
        recipe = (f"--crop_mm={size * 4}", "--pixel_mm=4")
        program("beam_jobs.build", f"--input={patients}", f"--output={folder}", *recipe)
    return folder


def program(module, *arguments):
    command = [sys.executable, "-m", module, *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def try_one(backbone, decoder, folder):
    """Builds, steps twice (the first compiles), exports, loads and tries the export."""
    import tensorflow as tf

    from serving.prediction import bundle
    from trainer import data, sources
    from trainer.config import Config
    from trainer.learner import Learner

    config = Config(backbone=backbone, decoder=decoder, batch_size=2, shuffle_buffer=16)
    source = sources.open_source(folder, None)
    config = config.of_table(source.organs)
    start = time.perf_counter()
    learner = Learner(config, source, tf.distribute.get_strategy(), total_steps=10)
    built = time.perf_counter()
    batches = iter(data.per_replica(data.training(source, config, 2), 2))
    losses, _ = learner.train(batches, tf.constant(2))
    if not bool(tf.reduce_all(tf.math.is_finite(losses))):
        raise ValueError(f"loss {losses.numpy()}")
    stepped = time.perf_counter()
    with tempfile.TemporaryDirectory() as target:
        version = bundle.save(
            target,
            lambda x: {bundle.PROBABILITIES: learner.model(x, training=False)["segment"]},
            learner.model.variables,
            bundle.Contents(source.dataset.recipe, config.organs, SEGTHOR),
        )
        bundle.load(version)  # tries the stored example
    return {
        "size_px": source.size_px,
        "parameters": learner.model.count_params(),
        "build_s": round(built - start, 1),
        "step_s": round(stepped - built, 1),
        "export_s": round(time.perf_counter() - stepped, 1),
    }


def table(rows):
    """docs/networks.md: a line per backbone, a column per decoder."""
    lines = [
        "# Networks",
        "",
        "Every encoder of `--backbone` with every `--decoder` was built with five classes, trained",
        "for two steps, exported as a SavedModel and loaded, and the output of the export was",
        "compared with that of the network. `python -m benchmarks.networks` makes this table and",
        "continues where it was interrupted. Slices had 64 x 64 pixels (96 x 96 for PSPNet and",
        "inceptionv3); the machine had two CPU cores. A cell gives the parameters in millions, and",
        "the seconds of building, two steps and export.",
        "",
        "| backbone | " + " | ".join(DECODERS) + " |",
        "|---|" + "---|" * len(DECODERS),
    ]
    for backbone in BACKBONES:
        cells = [cell(rows.get(f"{backbone}-{decoder}")) for decoder in DECODERS]
        lines.append(f"| {backbone} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(row):
    if row is None:
        return "not tried"
    if "failed" in row:
        return "failed: " + row["failed"]
    seconds = row["build_s"] + row["step_s"] + row["export_s"]
    return f"{row['parameters'] / 1e6:.1f} M, {seconds:.0f} s"


if __name__ == "__main__":
    app.run(main)
