"""What all tests share: the environment of TensorFlow, and the real CT beside the project."""

import gc
import os
from pathlib import Path

import pytest

import trainer  # noqa: F401  before tensorflow, which reads trainer's environment variables
from segthor import children, memory

REAL_CT = Path(__file__).resolve().parents[2] / "shared" / "data"
# As many tests run at once as there are cores: more threads would only wait for each other.
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
os.environ |= {name: os.environ.get(name, "1") for name in THREADS}

memory.keep_freed()  # as programs do: TensorFlow would take its pages again in every step

# Else each of the many programs would compile the project's modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The files that take longest, in their order: one that started last would run alone at the end.
FIRST = """
trainer flink node train_hosts object_store start build demo model startup memory programs doctor
own_organs learning_curve replicas learner cross_validate hints structures_write dicom_trees
node_chain processes viewer predict_safety dicom_build uneven_predict damaged_shards suspects export
phantom dicom_damage networks dicom_series predict predict_dicom gpu_benchmark batches placement
round_trip structures_read length dicom_phases augment decoder engine fuzz python_docs outputs
environment phantom_organs data run names
""".split()

if "PYTEST_XDIST_WORKER" in os.environ:
    children.end_with(os.getppid())


def pytest_collection_modifyitems(items):
    places = {f"test_{name}": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(FIRST)))


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # so that no collection looks at the modules of TensorFlow again


@pytest.fixture
def tiny(monkeypatch):
    """In this process, too, the trainer builds the network of tests/tiny_network.py."""
    import tiny_network

    from trainer import model

    monkeypatch.setattr(model, "_decoders", tiny_network.decoders)


@pytest.fixture(params=["tiny", pytest.param("resnet18", marks=pytest.mark.thorough)])
def network(request):
    """The network that this process builds; resnet18, which takes long to compile, is thorough."""
    if request.param == "tiny":
        request.getfixturevalue("tiny")
    return request.param


@pytest.fixture(scope="session")
def real_ct():
    """The folder of real CT; it is no part of the project, so a test that needs it may skip."""
    if not REAL_CT.is_dir():
        pytest.skip("no real CT: ../shared/data is absent")
    return REAL_CT
