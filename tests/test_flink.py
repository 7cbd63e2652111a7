"""The data job and prediction on a real Flink cluster, started by the project's scripts."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from cases import TINY_RECIPE, tiny_patient
from programs import ROOT, start
from structure_cases import write_patient
from tiny_models import save_coded

from segthor import phantom

PORTS = (
    "FLINK_REST_PORT",
    "FLINK_RPC_PORT",
    "BEAM_JOB_PORT",
    "BEAM_ARTIFACT_PORT",
    "BEAM_WORKER_PORT",
)
CANNOT_BE_HAD = 3  # flink_up.sh's exit status without Java, Maven or the jars
WAIT_S = 300
PATIENTS = 6  # so that two workers have work left when the first shard is done


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment of a running cluster, on ports of its own."""
    if os.environ.get("SEGTHOR_FLINK") == "0":
        pytest.skip("SEGTHOR_FLINK=0")
    environment = os.environ | _free_ports() | {"PYTHON": sys.executable}
    environment["FLINK_RUN"] = str(tmp_path_factory.mktemp("flink"))
    up = _script("flink_up.sh", environment)
    if up.returncode == CANNOT_BE_HAD:
        pytest.skip(f"no Flink here: {up.stderr.strip().splitlines()[-1]}")
    assert up.returncode == 0, up.stderr
    yield environment
    assert _script("flink_down.sh", environment).returncode == 0


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Small patients with contours."""
    folder = tmp_path_factory.mktemp("patients")
    phantom.write_dataset(str(folder), PATIENTS, 0, "small", 1)
    return folder


@pytest.fixture(scope="module")
def expected(patients, tmp_path_factory):
    """The dataset that DirectRunner builds of them, as bytes."""
    output = tmp_path_factory.mktemp("direct") / "dataset"
    assert _build(patients, output).wait(WAIT_S) == 0
    return _bytes_of(output)


def test_the_dataset_is_the_same_as_that_of_the_direct_runner(
    cluster, patients, expected, tmp_path
):
    job = _build(patients, tmp_path / "dataset", cluster, cold=True)
    assert job.wait(WAIT_S) == 0
    assert _bytes_of(tmp_path / "dataset") == expected
    assert _last_job(cluster)["state"] == "FINISHED"


def test_a_task_manager_killed_in_mid_job_changes_nothing(cluster, patients, expected, tmp_path):
    assert _script("flink_up.sh", cluster).returncode == 0
    job = _build(patients, tmp_path / "dataset", cluster)
    _until(lambda: list(tmp_path.glob("dataset/parts/*.json")) or job.poll() is not None)
    os.kill(_pids(cluster)["taskmanager-1"], signal.SIGKILL)
    assert job.wait(WAIT_S) == 0
    assert _bytes_of(tmp_path / "dataset") == expected
    last = _last_job(cluster)
    failures = _rest(cluster, f"/jobs/{last['jid']}/exceptions")["exceptionHistory"]["entries"]
    assert last["state"] == "FINISHED"
    assert failures, "the TaskManager was killed too late to matter"


def test_label_maps_are_the_same_as_those_of_a_plain_run(cluster, patients, tmp_path):
    assert _script("flink_up.sh", cluster).returncode == 0
    model = f"--model={save_coded(tmp_path / 'model')}"
    for output, engine in (("plain", None), ("flink", cluster)):
        job = _start("serving.predict", patients / "train", tmp_path / output, engine, model)
        assert job.wait(WAIT_S) == 0
    maps = _bytes_of(tmp_path / "flink")
    assert len([name for name in maps if name.endswith(".nii.gz")]) == PATIENTS
    assert maps == _bytes_of(tmp_path / "plain")


def test_dicom_gives_the_same_dataset_with_any_workers(cluster, tmp_path):
    assert _script("flink_up.sh", cluster).returncode == 0
    tree = tmp_path / "tree"
    _write_dicom(tree)
    engines = {
        "flink": (cluster, []),
        "one": (None, ["--direct_num_workers=1"]),
        "two": (None, ["--direct_num_workers=2"]),
    }
    recipe = [f"--{name}={value}" for name, value in TINY_RECIPE.items()]
    jobs = {
        name: _start("beam_jobs.build", tree, tmp_path / name, engine, *recipe, *options)
        for name, (engine, options) in engines.items()
    }
    assert {name: job.wait(WAIT_S) for name, job in jobs.items()} == dict.fromkeys(jobs, 0)
    assert _last_job(cluster)["state"] == "FINISHED"
    one = _bytes_of(tmp_path / "one")
    assert _bytes_of(tmp_path / "two") == one and _bytes_of(tmp_path / "flink") == one
    manifest = json.loads(one["dataset.json"])
    assert len(manifest["patients"]) == 12 and len(manifest["shards"]) > 2


def test_a_second_start_brings_back_only_what_was_killed(cluster):
    assert _script("flink_up.sh", cluster).returncode == 0
    before = _pids(cluster)
    os.kill(before["taskmanager-2"], signal.SIGKILL)
    assert "Flink is up" in _script("flink_up.sh", cluster).stdout
    after = _pids(cluster)
    assert [name for name in before if after[name] != before[name]] == ["taskmanager-2"]
    assert "already up" in _script("flink_up.sh", cluster).stdout
    assert _pids(cluster) == after


def test_a_port_in_use_is_named_in_one_line_and_nothing_is_left_running(cluster, tmp_path):
    other = cluster | _free_ports() | {"FLINK_RUN": str(tmp_path)}
    other["BEAM_WORKER_PORT"] = cluster["BEAM_WORKER_PORT"]
    up = _script("flink_up.sh", other)
    assert up.returncode == 2
    assert up.stderr.count("\n") == 1 and cluster["BEAM_WORKER_PORT"] in up.stderr
    assert _pids(other) == {}
    assert len(_pids(cluster)) == 5


@pytest.mark.parametrize("engine", ["flink", "spark", "dataflow"])
def test_beam_knows_every_option_of_an_engines_flag_file(engine):
    to_the_job_server = {"--execution_mode_for_batch"} if engine == "flink" else set()
    lines = (ROOT / "configs" / f"{engine}.flags").read_text().splitlines()
    options = [line for line in lines if line.startswith("--")]
    for option in options:
        name = option.partition("=")[0]
        taken = PipelineOptions([option]).get_all_options(drop_default=True)
        assert (name[2:] in taken) != (name in to_the_job_server), option
    assert options


def _write_dicom(tree):
    """Twelve phantoms: six in folders of their own, and six side by side in one."""
    for number in range(12):
        name = f"P{number:02d}"
        names = dict.fromkeys(("patient", "study", "series", "frame"), name)
        write_patient(tree / name, tiny_patient(number), **names)
        if number >= 6:
            (tree / "together").mkdir(exist_ok=True)
            for path in list((tree / name).rglob("*.dcm")):
                path.rename(tree / "together" / f"{name}-{path.name}")


def _free_ports():
    """A port for each of the cluster's listeners; all are open at once, so they differ."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    ports = [str(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return dict(zip(PORTS, ports, strict=True))


def _script(name, environment):
    command = ["bash", str(ROOT / "scripts" / name)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def _build(patients, output, cluster=None, cold=False):
    recipe = ("--crop_mm=264", "--pixel_mm=2.75")
    return _start("beam_jobs.build", patients, output, cluster, *recipe, cold=cold)


def _start(module, patients, output, cluster, *options, cold=False):
    command = ["-m", module, f"--input={patients}", f"--output={output}", *options]
    if cluster:
        command += [
            "--flagfile=configs/flink.flags",
            f"--job_endpoint=127.0.0.1:{cluster['BEAM_JOB_PORT']}",
            f"--environment_config=127.0.0.1:{cluster['BEAM_WORKER_PORT']}",
        ]
    return start(command, cold=cold, stdout=None, stderr=None)


def _bytes_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _pids(cluster):
    return {path.stem: int(path.read_text()) for path in Path(cluster["FLINK_RUN"]).glob("*.pid")}


def _last_job(cluster):
    return max(_rest(cluster, "/jobs/overview")["jobs"], key=lambda job: job["start-time"])


def _rest(cluster, path):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{cluster['FLINK_REST_PORT']}{path}") as answer:
        return json.load(answer)


def _until(condition):
    limit = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)
