"""Times prediction from file to file and the network's forward pass, in one process.

Run from the project's root: python -m benchmarks.predict [NUMBER OF ORGANS, 4 unless told] [ENGINE,
tensorflow unless told]

network  the model's forward pass on the prepared slices, nothing else
predict  serving.predict's walk: read, audit, prepare, network, way back, post-process, write
evidence what reviews go by, in processor time: the walk's with it minus the walk's without
The network is a Unet-resnet34 of random weights; to give the way back and the post-processing
shapes of true size, its output is mixed with four fixed discs, cut into sectors where there are
more organs. The peak of memory is that of
`python -m serving.predict` in a process of its own.

Page faults are printed, too, since they do not depend on the machine's load. With `given_back` as
the last argument freed memory is returned to the system, which is the C library's default; without
it, a separate process measures this at the end.
"""

import trainer  # noqa: F401, I001  before tensorflow: sets up its environment
import functools
import os
import subprocess
import sys
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path
from unittest import mock

import numpy as np
import tensorflow as tf

from benchmarks.peak import peak_bytes
from segthor import inputs, memory, nifti, phantom
from segthor.organs import SEGTHOR, Organ, Organs
from segthor.recipe import Recipe, prepare
from serving.prediction import bundle, predictor, walk
from serving.prediction.case import predict_case
from serving.prediction.engine import BATCH_SLICES, BATCHES_AT_ONCE, TENSORFLOW
from serving.prediction.plan import Plan
from serving.prediction.worker import Worker
from serving.review import evidence
from trainer import model
from trainer.config import Config

FOLDER = Path("build/benchmark/predict")
SLICES, ROUNDS, MOST = 284, 3, 1.10
MOST_EVIDENCE = 0.05  # of the network's processor time
MOST_BYTES = 3 << 30
GIVEN_BACK = "given_back"
# Row and column of the centre and radius, as shares of the side: about the organs' true areas.
DISCS = ((0.62, 0.5, 0.025), (0.45, 0.55, 0.14), (0.55, 0.5, 0.03), (0.6, 0.58, 0.04))


def main(number: str = "4", engine: str = TENSORFLOW, memory_is: str = "kept"):
    if memory_is != GIVEN_BACK:  # as in every program of the project
        memory.keep_freed()
    organs = int(number)
    scan, folder = _scan(), model_folder(organs)
    loaded = bundle.load(folder, engine)
    given = predictor.Input(loaded.recipe, prepare(nifti.read(str(scan)), loaded.recipe))
    batch = BATCH_SLICES[engine]
    batches = [
        given.batch(range(start, min(start + batch, SLICES))) for start in range(0, SLICES, batch)
    ]
    output = str(FOLDER / f"out_{organs}_{engine}")
    worker = Worker(Plan(output, (folder,), engine=engine))
    (case,) = inputs.find(str(scan), organs=SEGTHOR)
    one, many = [case], [case] * 3
    loaded.probabilities(batches[0])
    rows = []
    for round_ in range(1, ROUNDS + 1):
        counts = [memory.page_faults()]
        network = _network(loaded, batches)
        counts.append(memory.page_faults())
        alone = _walk(worker, one)
        counts.append(memory.page_faults())
        steady = _walk(worker, many) / len(many)
        counts.append(memory.page_faults())
        faults = np.diff(counts) // (1, 1, len(many))
        rows.append((network, alone, steady, *faults))
        print(f"round {round_}: network {network:.2f} s, one scan {alone:.2f} s, "
              f"each of three {steady:.2f} s; page faults {', '.join(map(str, faults))}",
              flush=True)  # fmt: skip
    # Whatever else the machine does only adds: of each, the quietest round counts.
    network, alone, steady, *faults = (min(column) for column in zip(*rows, strict=True))
    ratios = alone / network, steady / network
    peak = _peak_bytes(folder, scan, engine)
    print(f"\n{engine}, batches of {batch}; freed memory is {memory_is.replace('_', ' ')}")
    print(f"{organs} organs, {SLICES} slices of {loaded.recipe.size_px}x{loaded.recipe.size_px}, "
          f"{os.cpu_count()} cores")  # fmt: skip
    said = (
        f"{SLICES / network:5.1f} slices/s",
        *(f"{ratio:.3f} of the network's time" for ratio in ratios),
    )
    lines = ("network alone", "one scan, file to file", "each of three scans")
    for line, seconds, words, count in zip(lines, (network, alone, steady), said, faults,
                                           strict=True):  # fmt: skip
        print(f"{line:22} {seconds:6.2f} s  {words}, {count} page faults")
    print(f"peak memory            {peak / 1e9:6.2f} GB")
    extra = _evidence(loaded, batches, worker, one)
    print(f"evidence               {extra:.3f} of the network's processor time")
    if memory_is != GIVEN_BACK:
        command = [sys.executable, "-m", "benchmarks.predict", number, engine, GIVEN_BACK]
        subprocess.run(command, check=False)
    return int(max(ratios) > MOST or peak > MOST_BYTES or extra > MOST_EVIDENCE)


def _network(loaded, batches) -> float:
    """Runs as many batches at once as prediction does (`serving.prediction.engine`)."""
    began = time.perf_counter()
    with ThreadPool(BATCHES_AT_ONCE[loaded.engine]) as threads:
        for _ in threads.imap(loaded.probabilities, batches):
            pass
    return time.perf_counter() - began


def _walk(worker, todo) -> float:
    began = time.perf_counter()
    for outcome in walk.walk(todo, functools.partial(predict_case, worker), 600):
        assert not outcome.reason, outcome.reason
    return time.perf_counter() - began


def _evidence(loaded, batches, worker, todo) -> float:
    """Processor time of the evidence as a share of the network's; the least of ROUNDS for each."""
    network, with_it, without = [], [], []
    for _ in range(ROUNDS):
        network.append(_processor(_network, loaded, batches))
        with_it.append(_processor(_walk, worker, todo))
        with (
            mock.patch.object(evidence.Observer, "add"),
            mock.patch.object(evidence, "scan_evidence", return_value={}),
        ):
            without.append(_processor(_walk, worker, todo))
    return (min(with_it) - min(without)) / min(network)


def _processor(function, *arguments) -> float:
    began = time.process_time()
    function(*arguments)
    return time.process_time() - began


def _scan() -> Path:
    path = FOLDER / "Patient_41.nii.gz"
    if not path.exists():
        print("Making a full-size phantom (once, some minutes)", flush=True)
        made = phantom.make(41, "full", shape=(512, 512, SLICES))
        nifti.write(str(path), made.volume.zyx, made.volume.grid)
    return path


def model_folder(number: int) -> str:
    """The folder of a model for this many organs, which is made if missing."""
    folder = FOLDER / f"model_{number}"
    if not folder.exists():
        recipe = Recipe()
        table = SEGTHOR if number == len(SEGTHOR) else _table(number)
        config = Config().of_table(table)
        network = model.build(config, recipe.size_px, recipe.context)
        discs = tf.constant(_discs(recipe.size_px, number))

        def mixed(images):
            return {
                "probabilities": 0.02 * network(images, training=False)["segment"] + 0.98 * discs
            }

        contents = bundle.Contents(recipe, table.names, table)
        bundle.save(str(folder), mixed, network.variables, contents)
    return str(folder)


def _table(number: int) -> Organs:
    """Organs without ranges: a part of an organ is no organ's size."""
    return Organs(tuple(Organ(f"part_{n}", n, (n, 255 - n, 0)) for n in range(1, number + 1)))


def _discs(size: int, number: int) -> np.ndarray:
    """float32 [1, size, size, 1 + number]: probabilities of soft-edged discs or their sectors."""
    y, x = np.mgrid[:size, :size] / size
    scores = [np.zeros((size, size))]
    for place, (row, column, radius) in enumerate(DISCS):
        parts = number // len(DISCS) + (place < number % len(DISCS))
        turn = np.arctan2(y - row, x - column) / (2 * np.pi) + 0.5
        inside = 60 * (radius - np.hypot(y - row, x - column))
        for part in range(parts):
            own = np.minimum(turn * parts, parts - 0.5).astype(int) == part
            scores.append(np.where(own, inside, -60))
    shares = np.exp(np.stack(scores, -1)[None])
    return (shares / shares.sum(-1, keepdims=True)).astype(np.float32)


def _peak_bytes(folder: str, scan: Path, engine: str) -> int:
    output = FOLDER / "out_of_entry"
    flags = (f"--model={folder}", f"--input={scan}", f"--output={output}", "--overwrite")
    flags += (f"--engine={engine}",)
    return peak_bytes("import runpy; runpy.run_module('serving.predict', None, '__main__')", *flags)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
