"""How programs fail, seen from outside: real processes, their stderr and exit status."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segthor.errors import hint, message_line

PROGRAM = '''"""Adds a number.

A second paragraph.
"""
import os, signal, sys
from absl import app, flags
from segthor.errors import InputError, run

SEED = flags.DEFINE_integer("seed", 3, "Where the numbers start.", lower_bound=0)
INPUT = flags.DEFINE_string("input", None, "Folder of patients.", required=True)
WET = flags.DEFINE_boolean("wet", False, "Whether it rains.")

def main(argv):
    if INPUT.value == "bad":
        raise InputError("patients/: expected a folder,\\n  found a file")
    if INPUT.value == "usage":
        raise app.UsageError("--a and --b exclude one another")
    if INPUT.value == "refused":
        raise PermissionError(13, "Permission denied", "out/scan.nii.gz")
    if INPUT.value == "interrupt":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a shell ignores it
        os.kill(os.getpid(), signal.SIGINT)
    if INPUT.value == "memory":
        raise MemoryError
    if INPUT.value == "disk":
        raise OSError(5, "Input/output error", "data/a.nii")
    if INPUT.value == "bucket":
        raise FileNotFoundError("The specified bucket does not exist")
    if INPUT.value == "credentials":
        of_botocore = {"__module__": "botocore.exceptions"}
        raise type("NoCredentialsError", (Exception,), of_botocore)("Who?")
    if INPUT.value == "too_long":
        open("x" * 300, "w")
    if INPUT.value.startswith("name:"):
        print("[1/2]", INPUT.value, flush=True)
        print("at a line's start", end="\\r")
        raise InputError(INPUT.value)
    if INPUT.value == "fault":
        {}["fault"]
    print("seed", SEED.value, "rest", argv[1:])

if __name__ == "__main__":
    run(main, known_only=os.environ.get("KNOWN_ONLY") == "1")
'''


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(PROGRAM)

    def call(*args, stdout=subprocess.PIPE, binary=False, **env):
        return subprocess.run(
            [sys.executable, str(path), *args],
            env={**os.environ, "PYTHONPATH": os.getcwd(), **env},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=not binary,
        )

    return call


def test_good_flags_reach_main(program):
    done = program("--input=x", "--seed=5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "seed 5 rest []\n", "")


@pytest.mark.parametrize(
    "args, words",
    [
        (["--input=bad"], ["patients/: expected a folder, found a file"]),
        (["--input=usage"], ["--a and --b exclude one another"]),
        (["--input=refused"], ["out/scan.nii.gz", "Permission denied"]),
        (["--input=too_long"], ["xxx: File name too long"]),
        (["--input=memory"], ["no memory left"]),
        (["--input=disk"], ["data/a.nii: Input/output error"]),
        (["--input=bucket"], ["The specified bucket does not exist"]),
        (["--input=credentials"], ["another file system: Who?"]),
        (["--input=x", "--sede=5"], ["sede", "seed"]),
        (["--input=x", "--seed=five"], ["--seed", "five"]),
        (["--input=x", "--seed=-1"], ["--seed", "-1"]),
        (["--seed=1"], ["--input"]),
        (["--input"], ["input"]),
        (["--input=x", "stray"], ["unexpected argument 'stray'"]),
        (["--input=x", "--flagfile=nowhere.flags"], ["nowhere.flags"]),
        (["--input=x", f"--flagfile={sys.executable}"], ["--flagfile", "UTF-8"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(program, args, words):
    done = program(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words), line
    assert "::" not in line


def test_an_interrupt_is_one_line_and_status_130(program):
    done = program("--input=interrupt")
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "error: interrupted\n")


def test_a_fault_of_the_program_keeps_its_traceback(program):
    done = program("--input=fault")
    assert done.returncode == 1
    assert "KeyError: 'fault'" in done.stderr


def test_known_only_hands_foreign_arguments_to_main(program):
    done = program("--runner=Flink", "--input=x", "--parallelism", "2", KNOWN_ONLY="1")
    assert done.returncode == 0
    assert done.stdout == "seed 3 rest ['--runner=Flink', '--parallelism', '2']\n"


def test_known_only_still_refuses_a_bad_value(program):
    done = program("--input=x", "--seed=five", KNOWN_ONLY="1")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_seen_enough_ends_it_quietly(program):
    read, write = os.pipe()
    os.close(read)
    done = program("--help", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_help_shows_the_docstring_and_this_programs_flags_alone(program):
    done = program("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Adds a number.\n\nA second paragraph.\n")
    shown = [word for word in done.stdout.split() if word.startswith("--") and "=..." in word]
    assert shown == ["--seed=...", "--input=..."]
    assert "--[no]wet" in done.stdout
    assert "(default: 3)" in " ".join(done.stdout.split())
    assert "verbosity" not in done.stdout


def test_helpfull_shows_every_flag(program):
    assert "verbosity" in program("--helpfull").stdout


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202egnp.nii", "a\\u202egnp.nii"),
        ("a\rb", "a\\rb"),
        ("\udcff.nii", "\\udcff.nii"),
        ("M\u00fcller \u5fc3 \U0001fac0", "M\u00fcller \u5fc3 \U0001fac0"),
    ],
)
def test_what_stands_in_a_name_never_reaches_the_terminal_as_a_command(program, name, shown):
    done = program(f"--input=name:{name}", PYTHONUTF8="1", binary=True)
    assert done.stdout.decode() == f"[1/2] name:{shown}\nat a line's start\r"
    shown = "a b" if name == "a\rb" else shown  # an error is one line, whatever it quotes
    assert done.stderr.decode() == f"error: name:{shown}\n"


def test_a_terminal_without_these_letters_gets_their_codes(program):
    done = program("--input=name:M\u00fcller", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (2, "error: name:M\\xfcller\n")


def test_a_hint_is_what_a_shell_reads_back():
    paths = ["plain", "a b", "it's", "$(reboot)", "~/x", "--flag", "\u00e9;ls"]
    line = hint("serving.report", predictions="a b", labels=None, model=paths)
    words = shlex.split(line)
    assert words[:4] == ["Next:", "python", "-m", "serving.report"]
    assert words[4:] == ["--predictions=a b", "--model=" + ",".join(paths)]
    assert hint("trainer.main", data="data/x") == "Next: python -m trainer.main --data=data/x"


@pytest.mark.parametrize(
    "message, first, last",
    [
        ("one", "one", "one"),
        ("\n  one\ntwo \n\n", "one", "two"),
        ("", "OSError", "OSError"),
        (" \n ", "OSError", "OSError"),
    ],
)
def test_one_line_of_any_message_is_there_even_of_an_empty_one(message, first, last):
    error = OSError(message)
    assert (message_line(error), message_line(error, -1)) == (first, last)


def test_no_module_takes_a_line_of_a_message_by_itself():
    """`str(error).splitlines()[0]` raises IndexError where a library's message is empty."""
    folders = ("segthor", "beam_jobs", "trainer", "serving")
    sources = [path for folder in folders for path in Path(folder).rglob("*.py")]
    assert len(sources) > 100
    taken = re.compile(r"\.splitlines\(\)( or \[.*?\]\))?\[")
    assert [path for path in sources if taken.search(path.read_text())] == []
