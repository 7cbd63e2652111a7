"""The lock of a folder: one holder, none after a kill, no trace."""

import errno
import os
import signal
import time

import pytest
from programs import start

from segthor import locks
from segthor.errors import InputError

HOLD = "from segthor import locks\nimport sys, time\nwith locks.lock_folder(sys.argv[1]):\n"
HOLD += "    print('held', flush=True)\n    time.sleep(60)"


def holder(folder):
    child = start(["-c", HOLD, folder])
    assert child.stdout.readline() == "held\n"
    return child


def test_a_second_process_is_refused_and_one_after_a_kill_is_not(tmp_path):
    folder = tmp_path / "new" / "output"
    child = holder(folder)
    began = time.monotonic()
    with pytest.raises(InputError, match="another process is writing there"):
        with locks.lock_folder(str(folder)):
            pass
    assert time.monotonic() - began < 30
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with locks.lock_folder(str(folder)):
        pass
    assert os.listdir(folder) == []


def test_other_folders_are_free_and_the_block_gives_the_lock_back(tmp_path):
    with locks.lock_folder(str(tmp_path / "a")), locks.lock_folder(str(tmp_path / "b")):
        pass
    with locks.lock_folder(str(tmp_path / "a")):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF])
def test_a_file_system_without_locks_is_written_to_with_a_warning(
    tmp_path, monkeypatch, capsys, number
):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with locks.lock_folder(str(tmp_path / "out")):
        pass
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {tmp_path}/out: this file system has no locks (")
    assert said.endswith("make sure that no other process writes there\n")
