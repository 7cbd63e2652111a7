"""How every program starts and how it fails: one clear line and a status, never a traceback."""

import csv
import errno
import io
import os
import re
import shlex
import signal
import sys
import textwrap

from absl import app, flags

from segthor import configs, memory

# The machine refuses a file: the user's to mend, like bad input, and no fault in the program.
_REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
_REFUSALS |= {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_REFUSALS |= {errno.EFBIG}  # a limit of the shell (ulimit -f)


class InputError(Exception):
    """Input that the user must mend. The message says what, expected, found, and what to do."""


class ReadError(InputError):
    """A scan or contours that cannot be read; `code` names the kind, as in `segthor.findings`."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


def run(main, known_only=False):
    """Parses the flags, calls `main(argv)` and exits the process.

    Bad flags, `InputError` and a file that the machine refuses end in one line `error: ...` on
    stderr and status 2, an interrupt in status 130, a closed pipe in 141. Anything else is a fault
    of the program and keeps its traceback.

    Args:
      main: Takes argv (program name first, flags removed); returns an exit status or None.
      known_only: Whether arguments that are no flag of this program are left in argv, for a program
        that hands them on. Otherwise they are errors.
    """
    memory.keep_freed()  # every program fills the same large arrays again and again
    sys.stdout, sys.stderr = _printable(sys.stdout), _printable(sys.stderr)
    app.run(lambda argv: _guard(main, argv), flags_parser=lambda argv: _parse(argv, known_only))


def hint(program: str, **flags) -> str:
    """'Next: python -m PROGRAM --flag=value ...', to be copied into a shell as it stands.

    flags: values as given on the command line, lists of several; None leaves one out.
    """
    words = ["Next: python -m", program]
    for name, value in flags.items():
        if value is not None:
            text = value if isinstance(value, str) else _listed(value)
            words.append(f"--{name}={shlex.quote(text)}")
    return " ".join(words)


def _listed(values) -> str:
    """As absl reads a list: commas between, quotes about a value that holds one."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def message_line(message: object, number: int = 0) -> str:
    """One line of an error's message: the first, or the last with -1.

    The error's kind where its message is empty, as some of TensorFlow's and numpy's are.
    """
    lines = [line.strip() for line in str(message).splitlines() if line.strip()]
    return lines[number] if lines else type(message).__name__


def printable(text: str) -> str:
    """The text with all that a terminal would obey, or not show, written as an escape (\\x1b)."""
    if text.isprintable():
        return text
    inner = "".join(
        one if one.isprintable() or one in "\n\t\r" else one.encode("unicode_escape").decode()
        for one in text
    )
    # At an end it moves to the line's start for progress; within a name it would hide the rest.
    return re.sub(r"(?<!^)\r(?!\n|\Z)", r"\\r", inner)


def _parse(argv, known_only):
    if "--help" in argv or "-help" in argv:
        sys.exit(_guard(lambda _: print(_help()), argv))
    try:
        rest = flags.FLAGS(configs.expand_flagfiles(argv), known_only=known_only)
    except flags.Error as error:
        _fail(error)
    if rest[1:] and not known_only:
        _fail(f"unexpected argument {rest[1]!r}; every option is a flag: --name=value")
    return rest


class _Printable(io.TextIOWrapper):
    """A stream of text on which the names of a user's files can do no harm."""

    def write(self, text):
        return super().write(printable(text))


def _printable(stream):
    """The same stream; lines appear at once, so that a log shows what was done when it was done."""
    return _Printable(
        stream.buffer, stream.encoding, errors="backslashreplace", line_buffering=True
    )


def _guard(main, argv):
    try:
        return main(argv)
    except (InputError, app.UsageError, flags.Error) as error:
        message, status = str(error), 2
    except BrokenPipeError:  # `| head` has seen enough; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        message, status = f"{error.filename or 'writing'}: {error.strerror}", 2
    except KeyboardInterrupt:
        message, status = "interrupted", 128 + signal.SIGINT
    # The error is gone here, and with it all that its frames held: a thread of TensorFlow's that
    # still reads input when the interpreter ends would crash it.
    _fail(message, status)


def _fail(message, status=2):
    line = " ".join(str(message).split()).removeprefix("ERROR:: ")
    print(f"error: {line}", file=sys.stderr)
    sys.exit(status)


def _help():
    """The program's docstring and its own flags; absl's are left to --helpfull."""
    own = flags.FLAGS.flags_by_module_dict().get(sys.argv[0], [])
    lines = [(sys.modules["__main__"].__doc__ or "").strip(), "", "Flags:"]
    for flag in own:
        lines.append(f"  --[no]{flag.name}" if flag.boolean else f"  --{flag.name}=...")
        default = "" if flag.default is None else f" (default: {flag.default_as_str[1:-1]})"
        lines += textwrap.wrap(
            flag.help + default, 92, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    lines += ["", "--flagfile=FILE reads flags from a file; --helpfull lists every flag there is."]
    return "\n".join(lines)
