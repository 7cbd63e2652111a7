"""Programs answer before they load TensorFlow or Beam; TensorFlow's start-up notes stay away."""

import os
import signal
import time

import programs
import pytest
import slices
from programs import ROOT
from test_walls import PACKAGES, _is_entry, _modules

PROGRAMS = sorted(
    name.removesuffix(".__main__")
    for name, tree in _modules(ROOT).items()
    if _is_entry(tree) and name != "segthor.startup_filter"
)
# One of each package is started in a new interpreter, which takes most of a second.
COLD = ("beam_jobs.build", "segthor.phantom", "serving.predict", "trainer.main")
# Runs a program as `python -m` does, then says which slow libraries it has loaded.
LOADED = """
import runpy, sys
name, sys.argv = sys.argv[1], sys.argv[1:]
status = 0
try:
    runpy.run_module(name, run_name="__main__", alter_sys=True)
except SystemExit as end:
    status = end.code
print("loaded:", *({"tensorflow", "apache_beam"} & set(sys.modules)), file=sys.__stderr__)
sys.exit(status)
"""


def run(code, *arguments, **environment):
    """In a new interpreter, whose start is what these tests are about."""
    return programs.run(["-c", code, *arguments], cold=True, environment=environment)


def run_light(program, *flags):
    """Runs it where neither TensorFlow nor Beam is loaded; says on stderr which it has loaded."""
    return programs.run(["-c", LOADED, program, *flags], light=True)


def test_all_programs_are_found():
    assert {"trainer.main", "serving.export", "beam_jobs.build", "segthor.phantom"} < set(PROGRAMS)
    assert {name.partition(".")[0] for name in PROGRAMS} == set(PACKAGES)


@pytest.mark.parametrize(
    "program, cold",
    [
        *((program, program in COLD) for program in PROGRAMS),
        *(pytest.param(p, True, marks=pytest.mark.thorough) for p in PROGRAMS if p not in COLD),
    ],
)
def test_help_loads_neither_tensorflow_nor_beam(program, cold):
    done = programs.run(["-c", LOADED, program, "--help"], cold=cold, light=not cold)
    assert done.returncode == 0 and "Flags:" in done.stdout
    assert done.stderr == "loaded:\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_unknown_flag_is_told_before_tensorflow_is_loaded(program, tmp_path):
    required = {
        "serving.export": ["--workdir=x", "--output=x"],
        "serving.node": ["--spool=x"],
        "serving.predict": ["--model=x", "--input=x", "--output=x"],
        "trainer.cross_validate": ["--workdir=x", "--data=nowhere"],  # it hands flags on
    }
    done = run_light(program, "--no_such_flag=1", *required.get(program, ()))
    error, loaded = done.stderr.splitlines()
    assert done.returncode == 2 and error.startswith("error: ")
    # Only Beam knows which options are its own.
    assert loaded.split()[1:] in ([], ["apache_beam"] if program == "beam_jobs.build" else [])


MISSING = {
    "beam_jobs.build": ["--input=nowhere", "--output=OUT"],
    "beam_jobs.inspect": ["--data=nowhere"],
    "beam_jobs.verify": ["--data=nowhere"],
    "serving.calibrate": ["--runs=nowhere", "--data=nowhere", "--output=OUT"],
    "serving.convert": ["--predictions=nowhere", "--scans=SCAN", "--output=OUT"],
    "serving.evaluate": ["--predictions=nowhere", "--labels=nowhere", "--output=OUT"],
    "serving.export": ["--workdir=nowhere", "--output=OUT"],
    "serving.follow": ["--drafts=nowhere", "--approved=nowhere", "--output=OUT"],
    "serving.node": ["--spool=OUT", "--rules=nowhere", "--peers=nowhere"],
    "serving.predict": ["--model=nowhere", "--input=SCAN", "--output=OUT"],
    "serving.report": ["--predictions=nowhere", "--scans=nowhere", "--output=OUT"],
    "serving.submission": ["--predictions=nowhere", "--scans=nowhere", "--output=OUT.zip"],
    "serving.suspects": ["--runs=nowhere", "--data=nowhere", "--output=OUT"],
    "serving.tune": ["--predictions=nowhere", "--labels=nowhere", "--model=nowhere"],
    "trainer.cross_validate": ["--data=nowhere", "--workdir=OUT"],
    "trainer.doctor": ["--data=nowhere"],
    "trainer.learning_curve": [
        *("--data=nowhere", "--workdir=OUT", "--sizes=1,2,4", "--steps=1"),
    ],
    "trainer.main": ["--data=nowhere", "--workdir=OUT"],
    "trainer.preview": ["--data=nowhere"],
}


def test_every_program_that_reads_something_is_tried():
    assert set(MISSING) == {*PROGRAMS} - {"segthor.phantom", "segthor.doctor"}


@pytest.mark.parametrize("program", sorted(MISSING))
def test_a_missing_input_is_told_before_tensorflow_or_beam_is_loaded(program, tmp_path):
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(b"")
    places = {"OUT": str(tmp_path / "out"), "SCAN": str(scan)}
    flags = [
        f.replace("OUT", places["OUT"]).replace("SCAN", places["SCAN"]) for f in MISSING[program]
    ]
    done = run_light(program, *flags)
    error, loaded = done.stderr.splitlines()
    assert done.returncode == 2 and error.startswith("error: ") and "nowhere" in error
    assert loaded == "loaded:"


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--workdir={others}", "found other files"),
        ("--fold=9", "--fold"),
        ("--organs=spleen", "--organs"),
        ("--batch_size=5000", "--batch_size"),
        ("--learning_rate=0", "learning_rate"),
    ],
)
def test_the_trainer_refuses_before_tensorflow_is_loaded(tmp_path, flag, words):
    slices.make(tmp_path / "data")
    others = tmp_path / "others"
    others.mkdir()
    (others / "thesis.tex").touch()
    flags = [f"--data={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"]
    done = run_light("trainer.main", *flags, flag.format(others=others))
    error, loaded = done.stderr.splitlines()
    assert done.returncode == 2 and error.startswith("error: ") and words in error
    assert loaded == "loaded:"


LOAD = """
import os, sys
from absl import app
from segthor import startup

def main(argv):
    startup.load_tensorflow()
    import tensorflow as tf
    tf.raw_ops.PrintV2(input="from C++", output_stream="log(warning)", end="")
    os.write(2, b"straight\\n")
    print("from Python", file=sys.stderr)

app.run(main)
"""


def load(*arguments, **environment):
    done = run(LOAD, *arguments, **{"CUDA_VISIBLE_DEVICES": "", **environment})
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


@pytest.fixture
def with_gpu(tmp_path):
    """PATH of a machine that has a GPU's driver."""
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\n")
    driver.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def test_tensorflow_loads_in_silence_and_what_comes_later_is_shown(with_gpu):
    from_cpp, *others = load(PATH=with_gpu)  # a GPU that CUDA_VISIBLE_DEVICES hides
    assert from_cpp.startswith("W") and from_cpp.endswith("from C++")
    assert others == ["straight", "from Python"]


def test_with_verbosity_every_note_is_shown():
    assert any("oneDNN" in line or "cpu_feature_guard" in line for line in load("--verbosity=1"))


def test_a_gpu_that_tensorflow_cannot_use_is_told_in_one_line(with_gpu):
    # A number that no machine has: TensorFlow then finds no GPU wherever this runs.
    told = [line for line in load(PATH=with_gpu, CUDA_VISIBLE_DEVICES="99") if "GPU" in line]
    assert len(told) == 1 and told[0].startswith("warning: ") and "[and-cuda]" in told[0]


INSIDE = """
import os, signal, sys, time
from segthor import startup

with startup.quiet():
    {action}
print("after", file=sys.stderr)
"""
CUINIT = (
    "E0000 00:00:1795625606.660348   21543 cuda_platform.cc:52] failed call to cuInit: "
    "INTERNAL: CUDA error: Failed call to cuInit: "
)
NOTE = "I0000 00:00:1795625604.249459   21500 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used."  # noqa: E501


def inside(action):
    return run(INSIDE.format(action=action))


def test_only_known_lines_are_dropped_and_their_order_is_kept():
    notes = [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        NOTE,
        f"{CUINIT}UNKNOWN ERROR (303)",
    ]
    real = [
        f"{CUINIT}CUDA_ERROR_NO_DEVICE",
        "W0000 00:00:1795625606.660348   21543 port.cc:99] another",
        f"quoted: {NOTE}",
        "a last line without an end",
    ]
    text = "\n".join([real[0], *notes, real[1], notes[0], *real[2:]])
    done = inside(f"os.write(2, {text.encode()!r})")
    assert done.stderr == "\n".join(real) + "after\n"


def test_an_error_in_the_block_keeps_its_traceback():
    done = inside("raise KeyError('fault')")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "KeyError: 'fault'"


@pytest.mark.parametrize("way", ["SIGKILL", "SIGABRT", "SIGTERM"])
def test_what_was_said_before_the_process_is_killed_is_shown(way):
    done = inside(f"os.write(2, b'said\\n'); os.kill(os.getpid(), signal.{way})")
    assert done.returncode == -getattr(signal, way)
    assert done.stderr == "said\n"


def test_a_line_passes_at_once_and_ctrl_c_ends_program_and_filter():
    action = "os.write(2, b'said\\n'); signal.signal(2, signal.default_int_handler); time.sleep(60)"
    process = programs.start(
        ["-c", INSIDE.format(action=action)], cold=True, stderr=-1, start_new_session=True
    )
    began = time.monotonic()
    assert process.stderr.readline() == "said\n"  # though it sleeps within the block
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    rest = process.stderr.read()  # until the filter, too, has let go of it
    assert "KeyboardInterrupt" in rest and "after" not in rest
    assert process.wait() != 0 and time.monotonic() - began < 50
