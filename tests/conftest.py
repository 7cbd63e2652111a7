"""What all tests share: the environment of TensorFlow, and the real CT beside the project."""

import os
from pathlib import Path

import pytest

import trainer  # noqa: F401  before tensorflow, which reads trainer's environment variables
from segthor import children

REAL_CT = Path(__file__).resolve().parents[2] / "shared" / "data"
# As many tests run at once as there are cores: more threads would only wait for each other.
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
os.environ |= {name: os.environ.get(name, "1") for name in THREADS}

if "PYTEST_XDIST_WORKER" in os.environ:
    children.end_with(os.getppid())


@pytest.fixture(scope="session")
def real_ct():
    """The folder of real CT; it is no part of the project, so a test that needs it may skip."""
    if not REAL_CT.is_dir():
        pytest.skip("no real CT: ../shared/data is absent")
    return REAL_CT
