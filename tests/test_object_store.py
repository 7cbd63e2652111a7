"""Data job and serving on an object store: an S3 server on the loopback, nothing but URLs."""

import os

import numpy as np
import pytest
from cases import save, tiny_patient
from programs import run, run_entry
from structure_cases import write_patient
from tiny_models import coded_scan, save_coded

from segthor import files, json_files, phantom
from segthor.manifest import Dataset
from segthor.volume import Grid
from tests import file_order

pytest.importorskip("s3fs", reason="s3:// needs s3fs: pip install -e '.[test]'")
server = pytest.importorskip("moto.server", reason="the S3 server is moto's")

FLAGS = ["--crop_mm=240", "--pixel_mm=7.5", "--split=hash", "--validation_fraction=0.4"]


@pytest.fixture(scope="module")
def store():
    """Environment that leads s3:// to a server of our own, with the bucket 'clinic'."""
    started = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    settings = {
        "FSSPEC_S3_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = dict(os.environ)
    os.environ.update(settings)
    import fsspec

    fsspec.config.set_conf_env(fsspec.config.conf)
    fsspec.filesystem("s3", use_listings_cache=False).mkdir("clinic")
    yield
    started.stop()
    os.environ.clear()
    os.environ.update(before)
    fsspec.config.conf.pop("s3", None)


def build(source, output, *more):
    command = ["-m", "beam_jobs.build", f"--input={source}", f"--output={output}"]
    return run([*command, *FLAGS, *more])


def upload(local, url):
    for folder, _, names in os.walk(local):
        for name in names:
            path = os.path.join(folder, name)
            with files.atomic_write(f"{url}/{os.path.relpath(path, local)}") as stream:
                stream.write(files.read_bytes(path))


def test_shards_built_on_an_object_store_are_those_built_on_a_disk(store, tmp_path):
    local = str(tmp_path / "patients")
    phantom.write_dataset(local, 4, 1, "tiny", 3, report=lambda line: None)
    upload(local, "s3://clinic/raw")
    on_disk = build(local, tmp_path / "dataset")
    workers = "--direct_num_workers=2"
    on_store = build("s3://clinic/raw", "s3://clinic/dataset", workers)
    assert (on_disk.returncode, on_store.returncode) == (0, 0), on_disk.stderr + on_store.stderr
    expected = Dataset.load(str(tmp_path / "dataset"))
    found = Dataset.load("s3://clinic/dataset")
    assert found.shards == expected.shards
    assert {row.patient for row in found.unlabelled} == {"Patient_41"}
    for shard in found.shards:
        assert files.sha256(f"s3://clinic/dataset/{shard.file}") == shard.sha256
    done = run_entry("beam_jobs.verify", data="s3://clinic/dataset")
    assert done.returncode == 0 and "agree with the manifest" in done.stdout, done.stderr
    again = build("s3://clinic/raw", "s3://clinic/dataset")
    count = len(found.shards)
    assert again.returncode == 0, again.stderr
    assert f"in {count} shards, {count} of them up to date" in again.stdout


def test_a_dicom_tree_on_an_object_store_gives_the_shards_of_one_on_a_disk(store, tmp_path):
    for name in "AB":
        names = dict.fromkeys(("patient", "study", "series", "frame"), name)
        write_patient(tmp_path / "tree" / name, tiny_patient(ord(name)), enhanced=True, **names)
    upload(tmp_path / "tree", "s3://clinic/tree")
    on_disk = build(tmp_path / "tree", tmp_path / "dataset")
    on_store = build("s3://clinic/tree", "s3://clinic/dicom", "--direct_num_workers=2")
    assert (on_disk.returncode, on_store.returncode) == (0, 0), on_disk.stderr + on_store.stderr
    expected = Dataset.load(str(tmp_path / "dataset"))
    assert Dataset.load("s3://clinic/dicom").shards == expected.shards
    assert len(expected.patients) == 2
    again = build("s3://clinic/tree", "s3://clinic/dicom")
    assert f"{len(expected.shards)} of them up to date" in again.stdout, again.stderr


def test_model_scans_predictions_and_scores_may_lie_on_an_object_store(store, tmp_path):
    labels = np.zeros((20, 24, 12), np.uint8)
    for label in (1, 2, 3, 4):
        labels[4 * label : 4 * label + 3, 6:15, 3:9] = label
    grid = Grid(labels.shape, np.diag([1.5, 1.5, 3, 1]))
    for number in (1, 2):
        save(tmp_path / f"scans/Patient_{number:02d}.nii.gz", coded_scan(labels), grid=grid)
        save(tmp_path / f"labels/Patient_{number:02d}.nii.gz", labels, grid=grid)
    upload(str(tmp_path), "s3://clinic/cases")
    save_coded("s3://clinic/model")
    here = {name: f"s3://clinic/{name}" for name in ("model", "predictions", "scores", "page")}
    scans, truth = "s3://clinic/cases/scans", "s3://clinic/cases/labels"
    done = run_entry(
        "serving.predict", model=here["model"], input=scans, output=here["predictions"]
    )
    assert done.returncode == 0 and "2 label maps written" in done.stdout, done.stderr
    found = file_order.read(here["predictions"] + "/Patient_02.nii.gz")
    np.testing.assert_array_equal(found.array, labels)
    both = {"predictions": here["predictions"], "labels": truth, "scans": scans}
    done = run_entry("serving.evaluate", **both, output=here["scores"])
    assert done.returncode == 0, done.stderr
    scores = json_files.read(here["scores"] + "/scores.json")["patients"]
    assert {organ["dice"] for one in scores.values() for organ in one.values()} == {1.0}
    done = run_entry("serving.report", **both, output=here["page"])
    assert done.returncode == 0, done.stderr
    assert b"Patient_02" in files.read_bytes(here["page"] + "/report.html")


def test_the_start_of_a_large_file_is_fetched_without_its_rest(store):
    with files.atomic_write("s3://clinic/large.dcm") as stream:
        stream.write(bytes(2_000_000))
    with files.open_read("s3://clinic/large.dcm", 1 << 16) as stream:
        assert stream.read(132) == bytes(132)
        assert 0 < stream.cache.total_requested_bytes < 100_000
