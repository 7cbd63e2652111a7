"""One command for all programs: `segthor build` is `python -m beam_jobs.build`."""

import re
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver
from packaging.requirements import Requirement
from programs import ROOT, run
from test_startup import PROGRAMS

from segthor import command, configs, doctor
from trainer import main  # noqa: F401  which defines flags

SEGTHOR = "import sys\nfrom segthor.command import main\nsys.exit(main())"


def segthor(*arguments, **options):
    return run(["-c", SEGTHOR, *arguments], **options)


def readme_questions():
    """(question, program) of README's table, without links and quotes."""
    rows = re.findall(r"^\| (.*\?) \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return [(question, re.sub(r" \(\[.*|`", "", cell)) for question, cell in rows]


def test_the_help_answers_the_questions_of_readme():
    packaged = [row for row in readme_questions() if not row[1].startswith("benchmarks.")]
    assert list(command.QUESTIONS) == packaged and len(packaged) > 5
    said = segthor("--help", cold=True)
    assert said.returncode == 0 and said.stderr == ""
    for question, _ in packaged:
        assert question in said.stdout
    assert "    segthor build --list\n" in said.stdout and "segthor.serving" not in said.stdout
    assert segthor().stdout == said.stdout
    assert not re.search(r"\b(serving|trainer|beam_jobs)\.", said.stdout)


def test_each_program_has_a_command():
    assert set(command.COMMANDS.values()) == set(PROGRAMS)


@pytest.mark.parametrize("name", ["build", "train", "predict", "phantom"])
def test_a_command_is_its_program(name):
    program = run(["-m", command.COMMANDS[name], "--help"])
    assert segthor(name, "--help").stdout == program.stdout != ""


def test_flags_and_status_are_those_of_the_program(tmp_path):
    done = segthor("list", f"--input={tmp_path}/nowhere")
    assert done.returncode == 2 and done.stderr.startswith("error: list: expected --input=FOLDER")
    done = segthor("predict", "--no_such=1", "--model=x", "--input=x", "--output=x")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_an_unknown_command_is_one_line_that_names_the_nearest():
    done = segthor("prdict")
    assert done.returncode == 2 and done.stderr.startswith("error: segthor: unknown command")
    assert done.stderr.endswith("did you mean predict?\n") and len(done.stderr.splitlines()) == 1


def complete(*words):
    """What bash offers for the last of the words."""
    script = (
        f'segthor() {{ "{sys.executable}" -c "$SEGTHOR" "$@"; }}\n'
        'eval "$(segthor --completion=bash)"\n'
        f"COMP_WORDS=({' '.join(words)}) COMP_CWORD={len(words) - 1}\n"
        "_segthor\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    environment = {"SEGTHOR": SEGTHOR, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], env=environment, stdout=-1, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_and_their_flags():
    assert complete("segthor", "pre") == ["preview", "predict"]
    assert complete("segthor", "phantom", "--o") == ["--output=", "--organs="]
    assert complete("segthor", "x") == []


def test_the_doctor_says_versions_devices_engines_and_extras():
    done = segthor("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("Python 3.", "memory free", "tensorflow 2.", "devices: ", "engine openvino: "):
        assert words in done.stdout
    assert "extra dicom: " in done.stdout and "extra test" not in done.stdout


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("numpy", ""),
        ("numpy>=99", r"numpy .* \(expected >=99\)"),
        ("no-such-package>1", "no-such-package"),
        ("tensorflow[and-cuda]", r"(tensorflow\[and-cuda\])?"),
    ],
)
def test_a_package_that_is_missing_or_does_not_fit_is_named(requirement, problem):
    assert re.fullmatch(problem, doctor._problem(Requirement(requirement)))


def test_the_doctor_of_a_damaged_installation_ends_with_status_1(monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "_requirements", lambda: ([Requirement("no-such")], {"x": [Requirement("gone")]})
    )
    assert doctor.main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "missing or do not fit: no-such" in said
    assert "extra x: missing: gone; pip install 'segthor[x]'" in said


def learning_rate(arguments):
    with flagsaver.flagsaver():
        flags.FLAGS(["trainer.main", *configs.expand_flagfiles(arguments)])
        return flags.FLAGS.learning_rate, flags.FLAGS.encoder_weights


def test_configurations_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    default = flags.FLAGS["learning_rate"].default
    assert learning_rate(["--flagfile=configs/joint.flags"]) == (default, "imagenet")
    assert learning_rate(["--flagfile", "configs/joint.flags"]) == (default, "imagenet")
    (tmp_path / "own.flags").write_text("# mine\n--flagfile=configs/all.flags\n--learning_rate=0.5")
    assert learning_rate(["--flagfile=own.flags"]) == (0.5, "imagenet")
    assert learning_rate(["--flagfile=own.flags", "--learning_rate=0.25"]) == (0.25, "imagenet")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "all.flags").write_text("--encoder_weights=none\n")  # the user's own
    assert learning_rate(["--flagfile=own.flags"]) == (0.5, "none")
    for arguments in (["--flagfile=configs/no_such.flags"], ["--flagfile=configs/../setup.py"]):
        with pytest.raises(flags.Error):
            learning_rate(arguments)
    assert configs.expand_flagfiles(["--", "--flagfile=own.flags"]) == [
        "--",
        "--flagfile=own.flags",
    ]
    assert configs.resolve("configs/organs/thorax.csv") == str(ROOT / "configs/organs/thorax.csv")
    assert configs.resolve("organs/thorax.csv") == "organs/thorax.csv"


def test_a_flag_file_that_includes_itself_ends(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.flags").write_text("--flagfile=b.flags\n--learning_rate=0.5\n")
    (tmp_path / "b.flags").write_text("--flagfile=a.flags\n")
    assert learning_rate(["--flagfile=a.flags"])[0] == 0.5


@pytest.mark.thorough
def test_a_wheel_works_from_any_folder(tmp_path):
    """In an environment that holds the wheel and the libraries, and no checkout."""

    def python(interpreter, *arguments, cwd=ROOT):
        done = subprocess.run(
            [interpreter, *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    source = tmp_path / "source"
    copied = ("segthor", "beam_jobs", "trainer", "serving", "configs", "setup.py", "MANIFEST.in")
    source.mkdir()
    for name in (*copied, "pyproject.toml", "LICENSE", "README.md"):
        subprocess.run(["cp", "-r", ROOT / name, source], check=True)
    wheel = (
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path / "dist",
        ".",
    )
    python(sys.executable, *wheel, cwd=source)
    (file,) = (tmp_path / "dist").glob("*.whl")
    python(sys.executable, "-m", "venv", tmp_path / "venv")
    own = tmp_path / "venv" / "bin"
    python(own / "python", "-m", "pip", "install", "--no-deps", file)
    (packages,) = (tmp_path / "venv" / "lib").glob("python3.*/site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "zz-libraries.pth").write_text("\n".join(libraries) + "\n")
    where = "import segthor; print(segthor.__file__)"
    assert str(packages) in python(own / "python", "-c", where, cwd=tmp_path)
    said = python(own / "segthor", "doctor", cwd=tmp_path)
    assert f"configurations: {packages}/segthor/config_files" in said
    patients = ("phantom", "--output=patients", "--patients=3", "--organs=thorax")
    python(own / "segthor", *patients, cwd=tmp_path)
    table = "--organ_table=configs/organs/thorax.csv"
    flagfile = "--flagfile=configs/demo_build.flags"
    build = ("build", "--input=patients", "--output=dataset", flagfile, table)
    said = python(own / "segthor", *build, cwd=tmp_path)
    assert "--flagfile=configs/smoke.flags" in said
    assert "segthor build --list" in python(own / "segthor", "--help", cwd=tmp_path)
