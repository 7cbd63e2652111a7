"""What all tests share: the trainer's environment and the real CT beside the project."""

from pathlib import Path

import pytest

import trainer  # noqa: F401  before tensorflow, which reads trainer's environment variables

REAL_CT = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_ct():
    """The folder of real CT; it is no part of the project, so a test that needs it may skip."""
    if not REAL_CT.is_dir():
        pytest.skip("no real CT: ../shared/data is absent")
    return REAL_CT
