"""Copies standard input to standard error, without TensorFlow's notes of its start.

A separate program with few imports; see `segthor.startup`.
"""

import os
import re
import signal

# Exact texts: a line that differs in more than time, thread and line number is copied.
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
            # Printed on machines without a GPU; `segthor.startup` warns where there is one.
            rb"cuda_platform\.cc:\d+\] failed call to cuInit: .*UNKNOWN ERROR \(303\)",
            # About the trainer's input, which devices share.
            rb"dataset\.cc:\d+\] Input of GeneratorDatasetOp::Dataset will not be optimized",
        ]
    )
    + rb")"
)


def main() -> None:
    """Copies complete lines until the last writer closes the pipe."""
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
