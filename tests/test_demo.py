"""The commands of `make demo` on fewer patients and two steps: they work, and only they talk."""

import re
import shlex
import subprocess

from programs import ROOT, finish, start

FEWER = {
    "segthor.phantom": ["--patients=4", "--test_patients=1"],
    "trainer.main": ["--epochs=0", "--steps=2"],
}
# What TensorFlow, absl, Beam, CUDA's libraries and Python's warnings start their lines with, or
# name in them.
FOREIGN = re.compile(
    r"^[DIWEF]\d{4} |^\d{4}-\d\d-\d\d |WARNING|ERROR|INFO:|Warning:|Traceback|cuda|"
    r"tensorflow/|site-packages|absl::|oneDNN",
    re.IGNORECASE,
)


def commands(folder) -> list[list[str]]:
    """The programs that the Makefile's demo runs, with its flags."""
    make = ["make", "--dry-run", "--always-make", "demo", f"DEMO={folder}"]
    told = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [shlex.split(line) for line in told.replace("\\\n", " ").splitlines()]
    parts = [line[line.index("-m") :] for line in lines if "-m" in line]
    return [
        part
        for part in parts
        if part[1].split(".")[0] in ("segthor", "beam_jobs", "trainer", "serving")
    ]


def test_what_is_foreign():
    for line in (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "E0000 00:00:1732600000.000000    8310 cuda_dnn.cc:8310] Unable to register cuDNN factory",
        "2026-11-26 11:00:00.000000: I tensorflow/core/util/port.cc:153] oneDNN custom operations",
        "lib/python3.11/site-packages/keras/layer.py:12: UserWarning: no input shape",
    ):
        assert FOREIGN.search(line)
    assert not FOREIGN.search("step 50/800  loss 0.7624  rate 6.86e-04  25.5 slices/s  left 4 min")


def test_the_demo_says_nothing_that_is_not_its_own(tmp_path, network):
    """Each program in a new interpreter, as make starts it."""
    programs = commands(tmp_path / "demo")
    assert [program[1] for program in programs] == [
        "segthor.phantom",
        "beam_jobs.build",
        "trainer.main",
        "serving.export",
        "serving.predict",
        "serving.evaluate",
    ]
    said = []
    for program in programs:
        command = [*program, *FEWER.get(program[1], [])]
        said += finish([start(command, cold=True, tiny=network == "tiny")])[0].splitlines()
    assert len(said) > 20
    own = "no voxel is labelled"  # a warning of serving.evaluate: two steps teach little
    assert [line for line in said if FOREIGN.search(line) and not line.endswith(own)] == []
    assert (tmp_path / "demo/evaluation/overlay.png").exists()
