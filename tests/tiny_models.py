"""Model directories without training: networks that read the answer off the grey levels."""

import contextlib
import signal
import subprocess

import numpy as np
import programs
import tensorflow as tf

from segthor import organs
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe
from serving.prediction import bundle

# HU of background tissue and of the organs 1 to 4 in scans that carry their labels as intensities.
CODED_HU = np.array([-40, 0, 40, 80, 120], np.int16)
CODED_RECIPE = Recipe(crop_mm=64, pixel_mm=0, context=1, window_width_hu=255, window_level="40")


def reads_codes(recipe=CODED_RECIPE, names=organs.SEGTHOR.names, level_hu=40.0):
    """(network, variables): each pixel of the middle channel to the organ whose HU is nearest."""
    values = bundle.label_values(names, organs=SEGTHOR)
    grey = (CODED_HU[values] - level_hu) * 255 / recipe.window_width_hu + 127.5
    centres = tf.Variable(grey.astype(np.float32))

    def network(images):
        middle = images[..., recipe.context // 2, None]
        return {"probabilities": tf.nn.softmax(-tf.abs(middle - centres))}

    return network, [centres]


def save_coded(folder, recipe=CODED_RECIPE, names=organs.SEGTHOR.names, training=None) -> str:
    """A model directory that finds the labels of `coded_scan` again, voxel for voxel."""
    network, variables = reads_codes(recipe, names)
    contents = bundle.Contents(recipe, names, SEGTHOR, training or {})
    return bundle.save(str(folder), network, variables, contents)


def coded_scan(labels: np.ndarray) -> np.ndarray:
    """int16 HU that tell the labels: a body of -40 HU in air, organs inside."""
    hu = np.full(labels.shape, -1000, np.int16)
    hu[4:-4, 4:-4] = hu[4:-4, :, 4:-4] = hu[:, 4:-4, 4:-4] = CODED_HU[0]
    return np.where(labels > 0, CODED_HU[labels], hu)


def killed_while_writing(path) -> None:
    """Leaves what a process leaves that is killed in the middle of writing `path`."""
    code = (
        "import os, signal, sys\n"
        "from segthor import files\n"
        "with files.atomic_write(sys.argv[1]) as stream:\n"
        "    stream.write(b'half')\n"
        "    stream.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = programs.run(["-c", code, path])
    assert done.returncode == -signal.SIGKILL


@contextlib.contextmanager
def at_work_in(folder):
    """Another process that holds the lock of a folder while the block runs."""
    code = (
        "import sys\n"
        "from segthor import locks\n"
        "with locks.lock_folder(sys.argv[1]):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with programs.start(["-c", code, folder], stdin=subprocess.PIPE) as child:
        assert child.stdout.readline() == "held\n"
        yield
        child.stdin.close()
