"""Memory has a limit, and a scan beyond it is one patient's finding."""

import gzip
import platform
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import programs
import pytest
import slices
from cases import TINY_RECIPE, save_patients

from segthor import memory, nifti
from segthor.manifest import Dataset

ROOT = Path(__file__).resolve().parents[1]
GB = 10**9


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("group", "files", "left"),
    [
        ("", {}, 8 * GB),
        ("0::/", {"memory.max": "max", "memory.current": "5"}, 8 * GB),
        (
            "0::/",
            {"memory.max": 3 * GB, "memory.current": GB, "memory.stat": f"inactive_file {GB // 2}"},
            5 * GB // 2,
        ),
        # The limit of a group above holds, too, and one that is not visible from inside does not.
        (
            "0::/a/b",
            {"a/memory.max": GB, "a/memory.current": 0, "a/b/memory.max": "max",
             "a/b/memory.current": 0},
            GB,
        ),
        ("0::/elsewhere", {"memory.max": 2 * GB, "memory.current": GB}, GB),
        (
            "11:cpu:/x\n4:memory:/docker/17",
            {"memory/memory.limit_in_bytes": 4 * GB, "memory/memory.usage_in_bytes": GB},
            3 * GB,
        ),
        ("0::/", {"memory.max": GB, "memory.current": 2 * GB}, 0),
    ],
)  # fmt: skip
def test_what_is_left_is_the_least_of_machine_and_container(tmp_path, group, files, left):
    write(tmp_path / "proc/meminfo", f"MemTotal: 99 kB\nMemAvailable: {8 * GB // 1024} kB\n")
    write(tmp_path / "proc/self/cgroup", f"{group}\n" if group else "")
    for name, content in files.items():
        write(tmp_path / "sys/fs/cgroup" / name, f"{content}\n")
    assert memory.available_bytes(str(tmp_path)) == pytest.approx(left, abs=1024)


def test_this_machine_has_memory_and_several_processes_share_it():
    # Other programs take and leave memory between two looks.
    before = memory.available_bytes()
    alone = memory.scan_limit()
    assert 0 < 3 * alone <= max(before, memory.available_bytes()) + 4 * GB
    assert memory.scan_limit(4) <= memory.scan_limit() or alone < memory.available_bytes() // 3


def bomb(path, shape=(4096, 4096, 512), dtype=np.int16):
    """A file of some 17 MB that holds zeros without end; gzip's members may follow one another."""
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    header.set_sform(np.diag([-1.0, -1.0, 2.0, 1.0]), code=1)
    header["vox_offset"] = 352
    size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    piece = 1 << 26
    with open(path, "wb") as stream:
        stream.write(gzip.compress(header.binaryblock + bytes(4)))
        member = gzip.compress(bytes(piece), 9)
        for _ in range(size // piece):
            stream.write(member)
        stream.write(gzip.compress(bytes(size % piece)))
    return str(path)


def test_a_small_file_of_many_zeros_is_too_large_and_the_flag_is_named(tmp_path):
    path = bomb(tmp_path / "x.nii.gz")
    assert Path(path).stat().st_size < 20e6
    with pytest.raises(nifti.NiftiError, match="17.18 GB.*at most 1 GB.*--most_scan_gb") as caught:
        nifti.read(path, most_bytes=GB)
    assert caught.value.code == "file_too_large"


def test_what_a_scan_needs_counts_its_scaled_values_too(tmp_path):
    array = np.zeros((10, 10, 10), np.uint8)
    image = nibabel.Nifti1Image(array, np.eye(4))
    image.header.set_slope_inter(0.5, 0)
    image.to_filename(tmp_path / "x.nii")
    assert nifti.read(str(tmp_path / "x.nii"), most_bytes=5000).zyx.dtype == np.float32
    with pytest.raises(nifti.NiftiError) as caught:
        nifti.read(str(tmp_path / "x.nii"), most_bytes=4999)
    assert caught.value.code == "file_too_large"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_promise_that_the_file_cannot_hold_takes_no_memory(tmp_path, suffix):
    path = str(tmp_path / f"x{suffix}")
    nibabel.Nifti1Image(np.zeros((8, 8, 8), np.int16), np.eye(4)).to_filename(path)
    opened = gzip.open if suffix.endswith("gz") else open
    with opened(path, "rb") as stream:
        content = bytearray(stream.read())
    header = nibabel.Nifti1Header(bytes(content[:348]))
    header["dim"] = [3, 1000, 1000, 1000, 1, 1, 1, 1]
    content[:348] = header.binaryblock
    with opened(path, "wb") as stream:
        stream.write(content)
    tracemalloc.start()
    with pytest.raises(nifti.NiftiError, match="2000000000 bytes.*can hold") as caught:
        nifti.read(path, most_bytes=4 * GB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code == "file_truncated" and peak < 50e6


def build(source, output, most_scan_gb):
    """The command of a build."""
    command = ["-m", "beam_jobs.build", f"--input={source}", f"--output={output}"]
    command += [f"--{name}={value}" for name, value in TINY_RECIPE.items()]
    return [*command, f"--most_scan_gb={most_scan_gb}"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bomb_costs_its_own_patient_alone_and_is_tried_again(tmp_path, workers):
    source = Path(save_patients(tmp_path / "in", 3))
    bomb(source / "train/Patient_02/Patient_02.nii.gz")
    for most in ("0.5", "0.4"):
        command = build(source, tmp_path / "out", most)
        done = programs.run([*command, f"--direct_num_workers={workers}"])
        assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
        dataset = Dataset.load(str(tmp_path / "out"))
        assert [one.patient for one in dataset.patients] == ["Patient_01", "Patient_03"]
        assert f"at most {most} GB" in dataset.rejected[0].reason


def test_a_refused_allocation_costs_its_own_patient_alone(tmp_path):
    source = Path(save_patients(tmp_path / "in", 3))
    bomb(source / "train/Patient_02/Patient_02.nii.gz")

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (8 * GB, 8 * GB))

    command = [sys.executable, *build(source, tmp_path / "out", 100)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    dataset = Dataset.load(str(tmp_path / "out"))
    assert [one.patient for one in dataset.patients] == ["Patient_01", "Patient_03"]
    assert "no memory left" in dataset.rejected[0].reason


GLIBC = platform.libc_ver()[0] == "glibc"
FAULTS = """
import sys, threading
from segthor import errors, memory, startup

def numpy_arrays():
    import numpy as np
    return lambda: [np.ones(60_000_000, np.uint8) for _ in range(2)]

def training():
    import trainer
    startup.load_tensorflow()
    import tensorflow as tf
    from tests import tiny_network
    from trainer import devices, loop, sources
    from trainer.config import Config
    from trainer.learner import Learner
    from trainer.strengths import Strengths
    tiny_network.install()
    source = sources.open_source(DATA, None)
    config = Config(decoder="pspnet", backbone="resnet18", shuffle_buffer=16, batch_size=12,
                    augment=Strengths.none(), ema=0.0)
    config = config.of_table(source.organs)
    learner = Learner(config, source, devices.strategy(), 100)
    iterator = iter(loop.distribute_inputs(config, source, learner.strategy, 0)[0])
    return lambda: learner.train(iterator, tf.constant(1))

def in_threads():
    work = numpy_arrays()
    def both():
        threads = [threading.Thread(target=work) for _ in range(2)]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
    return both

def main(_):
    work = {"numpy": numpy_arrays, "training": training, "threads": in_threads}[KIND]()
    for _ in range(20):
        work()
    before = memory.page_faults()
    for _ in range(10):
        work()
    print((memory.page_faults() - before) / 10)

DATA, KIND, memory_is = (sys.argv.pop(1) for _ in range(3))
if memory_is == "given_back":
    memory.keep_freed = lambda: None
errors.run(main)
"""


@pytest.mark.skipif(not GLIBC, reason="another C library decides for itself")
@pytest.mark.parametrize("kind", ["numpy", "training", "threads"])
def test_a_program_asks_for_its_pages_once(kind, tmp_path):
    if kind == "training":
        slices.make(tmp_path, size=192)

    def faults(memory_is):
        # Huge pages, where the system has some free, would make the count one of 2 MB each; numpy
        # reads this when it is loaded.
        usual_pages = {"NUMPY_MADVISE_HUGEPAGE": "0"}
        command = ["-c", FAULTS, tmp_path, kind, memory_is]
        done = programs.run(command, cold=kind != "training", environment=usual_pages)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    assert faults("kept") < 500 < 1000 < faults("given_back")


def test_where_the_c_library_has_no_such_choice_nothing_happens():
    """As on musl: a C library without mallopt. That of a Mac is not asked at all."""
    code = (
        "import ctypes, sys\n"
        "from segthor import memory\n"
        "ctypes.CDLL = lambda name: object()\n"
        "memory.keep_freed()\n"
        "del ctypes.CDLL\n"
        "sys.platform = 'darwin'\n"
        "memory.keep_freed()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
