"""Starts every program, and ends it with one line and a status when an error is the user's."""

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

# Errors of the system that the user has to resolve, like bad input: it refuses a file, ...
_REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
_REFUSALS |= {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_REFUSALS |= {errno.EFBIG}  # a limit of the shell (ulimit -f)
_REFUSALS |= {errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EBUSY, errno.ENOLCK}
# ... or a disk or network fails. None: libraries for remote file systems set no number.
_REFUSALS |= {errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN}
_REFUSALS |= {errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH, None}
_REMOTE = {"aiohttp", "botocore", "gcsfs", "google", "requests", "s3fs", "urllib3"}


class InputError(Exception):
    """Bad input. The message names it, says what was expected and found, and what to do."""


class ReadError(InputError):
    """A scan or contours that cannot be read; `code` is one of `segthor.findings.CODES`."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


def run(main, known_only=False):
    """Parses the flags, calls `main(argv)` and exits the process.

    Bad flags, `InputError`, too little memory and files that the system or another file system
    refuses end the process with one line `error: ...` on stderr and status 2, an interrupt with
    status 130, a closed pipe with 141. Any other exception is a fault of the program and prints its
    traceback.

    Args:
      main: Takes argv (program name first, flags removed); returns an exit status or None.
      known_only: Whether unknown arguments are left in argv, for a program that passes them on.
        Otherwise they are errors.
    """
    memory.keep_freed()  # every program allocates large arrays of the same sizes again and again
    sys.stdout, sys.stderr = _printable(sys.stdout), _printable(sys.stderr)
    app.run(lambda argv: _guard(main, argv), flags_parser=lambda argv: _parse(argv, known_only))


def hint(program: str, **flags) -> str:
    """'Next: python -m PROGRAM --flag=value ...', quoted for a shell.

    flags: Values as text, or lists of texts; None leaves the flag out.
    """
    words = ["Next: python -m", program]
    for name, value in flags.items():
        if value is not None:
            text = value if isinstance(value, str) else _format_list(value)
            words.append(f"--{name}={shlex.quote(text)}")
    return " ".join(words)


def _format_list(values) -> str:
    """The values as absl reads a list: separated by commas, quoted where they contain one."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def message_line(message: object, number: int = 0) -> str:
    """One line of an error's message: the first one, or the last one with -1.

    The type of the error where the message is empty, as in some of TensorFlow's and numpy's.
    """
    lines = [line.strip() for line in str(message).splitlines() if line.strip()]
    return lines[number] if lines else type(message).__name__


def printable(text: str) -> str:
    """The text with control and invisible characters written as escapes (\\x1b)."""
    if text.isprintable():
        return text
    inner = "".join(
        one if one.isprintable() or one in "\n\t\r" else one.encode("unicode_escape").decode()
        for one in text
    )
    # \r at an end is for progress lines; within a name it would hide what precedes it.
    return re.sub(r"(?<!^)\r(?!\n|\Z)", r"\\r", inner)


def _parse(argv, known_only):
    if "--help" in argv or "-help" in argv:
        sys.exit(_guard(lambda _: print(_help()), argv))
    try:
        rest = flags.FLAGS(configs.expand_flagfiles(argv), known_only=known_only)
    except (flags.Error, RecursionError) as error:
        _fail(error)
    except UnicodeDecodeError as error:
        _fail(f"--flagfile: expected text in UTF-8, found something else ({error})")
    except OSError as error:
        _fail(f"--flagfile={error.filename}: {error.strerror}")
    if rest[1:] and not known_only:
        _fail(f"unexpected argument {rest[1]!r}; every option is a flag: --name=value")
    return rest


class _Printable(io.TextIOWrapper):
    """A text stream that escapes control characters, which names of files may contain."""

    def write(self, text):
        return super().write(printable(text))


def _printable(stream):
    """The same stream with escapes; line-buffered, so that a log shows each line at once."""
    return _Printable(
        stream.buffer, stream.encoding, errors="backslashreplace", line_buffering=True
    )


def _guard(main, argv):
    try:
        return main(argv)
    except (InputError, app.UsageError, flags.Error) as error:
        message, status = str(error), 2
    except BrokenPipeError:  # as of `| head`; what is still buffered is discarded
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        reason = error.strerror or message_line(error)
        message, status = f"{error.filename or 'reading or writing'}: {reason}", 2
    except MemoryError:
        message, status = "no memory left; expected more, or fewer programs beside this one", 2
    except KeyboardInterrupt:
        message, status = "interrupted", 128 + signal.SIGINT
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _REMOTE:
            raise
        message, status = f"another file system: {message_line(error)}", 2
    # Outside of `except`, so that the exception's frames are freed: a thread of TensorFlow that
    # still reads input when the interpreter ends would crash it.
    _fail(message, status)


def _fail(message, status=2):
    line = " ".join(str(message).split()).removeprefix("ERROR:: ")
    print(f"error: {line}", file=sys.stderr)
    sys.exit(status)


def _help():
    """The program's docstring and its own flags, without those of absl."""
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
