"""Starts the project's programs for the tests: `start`, `finish`, `run` and `run_entry`.

A command is what follows `python`: "-m", module, flags; "-c", code, arguments; or a script and its
arguments. Each program is a process with its own environment, folder, output, signals and status.
It ends with pytest, in whatever way pytest ends.

On Linux most programs are forked from a server (tests/warm_server.py) that has loaded TensorFlow
and the project's modules, which takes a new interpreter some four processor seconds. A program of
which the start itself is tested (imports and their order, limits of the process, variables that
libraries read when they are loaded, the end of the interpreter) is started in a new interpreter:
`cold=True`. At least one test does so for each package, in `make test-all` for each program. A
program that ends before it has loaded TensorFlow or Beam may be forked from a server that has
loaded neither: `light=True`.
"""

import ctypes
import functools
import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

from segthor import children

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 600
# Programs that start others, each in a process of its own.
STARTS_OTHERS = (
    "trainer.cross_validate",
    "trainer.learning_curve",
    "serving.calibrate",
    "scripts/train_hosts.py",
)
_PR_SET_CHILD_SUBREAPER = 36


def start(
    command, tf_config=None, *, cold=False, light=False, tiny=False, environment=None, **options
) -> subprocess.Popen:
    """Starts `python COMMAND` at the project's root.

    tf_config: TF_CONFIG of one of several hosts.
    cold: Whether a new interpreter runs it.
    light: Whether it starts without TensorFlow, Beam and the modules of the project.
    tiny: Whether a network of two convolutions stands in for every network; see tiny_network.py.
    environment: Variables beside those of this process; None removes one.
    options: Those of Popen. Output is text and one stream, unless chosen otherwise.
    """
    variables = os.environ | {"TF_CONFIG": tf_config} | (environment or {})
    chosen = {
        "cwd": ROOT,
        "env": {name: str(value) for name, value in variables.items() if value is not None},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }
    if cold or sys.platform != "linux":
        before = [ROOT / "tests" / "tiny_network.py"] if tiny else []
        return children.start([sys.executable, *map(str, [*before, *command])], **chosen | options)
    python = [sys.executable, *map(str, command)]
    before = functools.partial(children.end_with, os.getpid())
    server = _server("light") if light else None
    return Forked(python, tiny=tiny, server=server, preexec_fn=before, **chosen | options)


def finish(programs) -> list[str]:
    """Waits for all of them, which must succeed. Returns what each printed."""
    outputs = [program.communicate(timeout=LIMIT_S)[0] for program in programs]
    for program, output in zip(programs, outputs, strict=True):
        assert program.returncode == 0, output[-4000:]
    return outputs


def run(command, **options) -> subprocess.CompletedProcess:
    """Runs `python COMMAND` to its end; takes the options of `start`. stderr is kept apart."""
    with start(command, **{"stderr": subprocess.PIPE} | options) as program:
        try:
            output, errors = program.communicate(timeout=LIMIT_S)
        except BaseException:
            program.kill()
            raise
    return subprocess.CompletedProcess(program.args, program.returncode, output, errors)


def run_entry(module, **flags) -> subprocess.CompletedProcess:
    """Runs `python -m module --flag=value ...` to its end."""
    return run(["-m", module, *as_flags(**flags)])


def as_flags(**flags) -> list[str]:
    """--name=value of each."""
    return [f"--{name}={value}" for name, value in flags.items()]


def wait_until(reached, limit_s=LIMIT_S) -> None:
    """Returns once `reached()` is true."""
    ended = time.monotonic() + limit_s
    while not reached():
        assert time.monotonic() < ended, f"not reached within {limit_s} s"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether there is such a process and it has not ended."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def adopt_orphans() -> None:
    """Linux makes processes children of this one where their own parent, below it, has ended."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


class Forked(subprocess.Popen):
    """A program that a server forks. It is a child of this process, so all else is Popen's own."""

    server = None  # where requests go; the server of this process if None

    def __init__(self, command, *, tiny=False, server=None, **options):
        self._tiny = tiny
        self._server = server or self.server
        super().__init__(command, **options)

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env,
                       startupinfo, creationflags, shell, p2cread, p2cwrite, c2pread, c2pwrite,
                       errread, errwrite, restore_signals, gid, gids, uid, umask,
                       start_new_session, *others):  # fmt: skip
        """The one place where Popen makes a child; private, and the same in Python 3.10 to 3.13."""
        pipes = (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        if args[0] != sys.executable or args[1].startswith("-I"):  # no program of the project
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env,
                                   startupinfo, creationflags, shell, *pipes, restore_signals, gid,
                                   gids, uid, umask, start_new_session, *others)  # fmt: skip
            return
        request = {
            "command": args[1:],
            "folder": os.fspath(cwd or os.getcwd()),
            "environment": dict(os.environ if env is None else env),
            "new_session": start_new_session,
            "before": preexec_fn,
            "tiny": self._tiny,
        }
        descriptors = [0 if p2cread < 0 else p2cread, 1 if c2pwrite < 0 else c2pwrite]
        descriptors.append(2 if errwrite < 0 else errwrite)
        try:
            server = self._server or _server("all")
            socket.send_fds(server, [pickle.dumps(request)], descriptors)
            self.pid = int(server.recv(64))
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)


@functools.cache
def _server(libraries: str) -> socket.socket:
    """Where a server of this process takes requests; it ends with this process.

    libraries: "all" that the programs use, or the "light" ones, which load in a moment.
    """
    adopt_orphans()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = Path(__file__).with_name("warm_server.py")
    command = [sys.executable, server, str(theirs.fileno()), libraries]
    children.start(command, cwd=ROOT, pass_fds=[theirs.fileno()])
    theirs.close()
    return ours
