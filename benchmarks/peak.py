"""Peak memory of a separate process, on Linux."""

import subprocess
import sys

# Not ru_maxrss: a process begins with that of the one that started it, and benchmarks are large.
_AT_EXIT = """
import atexit, re
atexit.register(lambda: print(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[0]))
"""


def peak_bytes(code: str, *arguments: str) -> int:
    """Peak memory of Python code with these arguments; raises CalledProcessError if it fails."""
    command = [sys.executable, "-c", _AT_EXIT + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) * 1024
