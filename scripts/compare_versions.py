"""Prints the packages whose installed versions the lock does not name.

build/newest/bin/python scripts/compare_versions.py requirements.lock
"""

import re
import sys
from importlib import metadata
from pathlib import Path


def main(lock: str) -> None:
    """Compares the packages of this Python's environment with a lock."""
    locked = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", Path(lock).read_text(), re.M):
        locked.setdefault(name, []).append(version)  # one for each range of Python versions
    for package in sorted(metadata.distributions(), key=lambda one: one.name.lower()):
        known = locked.get(re.sub(r"[-_.]+", "-", package.name).lower())
        if known and package.version not in known:
            print(f"{package.name}: {package.version} (locked: {', '.join(known)})")


if __name__ == "__main__":
    main(sys.argv[1])
