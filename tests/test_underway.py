"""What a killed process had under way is named by the next run."""

import subprocess
import sys
from pathlib import Path

from segthor import files, underway

ROOT = Path(__file__).resolve().parents[1]
KILLED = """
import os, signal, sys
from segthor import underway
with underway.keep_note(sys.argv[1], "first"):
    pass
with underway.keep_note(sys.argv[1], "B\\udcff (b.nii)"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_a_note_and_an_end_or_an_error_does_not(tmp_path, capsys):
    folder = str(tmp_path / "notes")
    subprocess.run([sys.executable, "-c", KILLED, folder], cwd=ROOT)
    try:
        with underway.keep_note(folder, "an error"):
            raise ValueError
    except ValueError:
        pass
    (tmp_path / "notes" / f"{files.TEMPORARY_PREFIX}other").touch()
    assert files.listdir(folder) == []  # readers do not meet it
    underway.warn_about_notes(folder)
    said = capsys.readouterr().err
    assert said.startswith("warning: a process was killed while it worked on B\\udcff (b.nii); ")
    assert underway.remove_notes(folder) == []
    assert underway.remove_notes(str(tmp_path / "none")) == []
