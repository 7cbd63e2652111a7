"""Passes standard input on to standard error, TensorFlow's start-up notes aside.

A program of its own that imports nothing else: see `segthor.startup`.
"""

import os
import re
import signal

# Each is whole: a line that differs in anything but time, thread and line number is passed on.
_PREFIX = rb"[IWE]\d{4} \d\d:\d\d:\d+\.\d+ +\d+ "
_NOTES = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR$"
    rb"|To enable the following instructions: .* rebuild TensorFlow with the appropriate compiler"
    rb"|"
    + _PREFIX
    + rb"("
    + rb"|".join(
        [
            rb"port\.cc:\d+\] oneDNN custom operations are on",
            rb"cudart_stub\.cc:\d+\] Could not find cuda drivers on your machine",
            rb"cpu_feature_guard\.cc:\d+\] This TensorFlow binary is optimized to use",
            # What a machine without a GPU answers; `segthor.startup` tells where one is there.
            rb"cuda_platform\.cc:\d+\] failed call to cuInit: .*UNKNOWN ERROR \(303\)",
            # Of the trainer's input, which devices share.
            rb"dataset\.cc:\d+\] Input of GeneratorDatasetOp::Dataset will not be optimized",
        ]
    )
    + rb")"
)


def main() -> None:
    """Reads until the last writer is gone; each line is passed on when it is whole."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rest = b""
    while piece := os.read(0, 1 << 16):
        *lines, rest = (rest + piece).split(b"\n")
        _write(b"".join(line + b"\n" for line in lines if not _NOTES.match(line)))
    _write(rest)


def _write(content: bytes) -> None:
    while content:
        content = content[os.write(2, content) :]


if __name__ == "__main__":
    main()
