"""The node between real neighbours: Orthanc, and DCMTK's storescu and storescp."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import nodes
import programs
import pydicom
import pytest
from nodes import wait_for, wait_for_jobs
from structure_cases import needs_dciodvfy, validated
from test_predict_dicom import model, save_series  # noqa: F401  a fixture

from segthor import children
from serving.node.spool import FAILED, SENT, Spool

needs_orthanc = pytest.mark.skipif(
    not shutil.which("Orthanc"), reason="Orthanc is not installed (Debian: orthanc)"
)
needs_dcmtk = pytest.mark.skipif(
    not shutil.which("storescp"), reason="DCMTK is not installed (Debian: dcmtk)"
)


class Web:
    """An Orthanc, by its REST API."""

    def __init__(self, port: int):
        self.root = f"http://127.0.0.1:{port}"

    def answers(self) -> bool:
        try:
            return bool(self.ask("/system"))
        except OSError:
            return False

    def ask(self, path: str, content: bytes | None = None):
        request = urllib.request.Request(self.root + path, content)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def file(self, instance: str) -> bytes:
        with urllib.request.urlopen(f"{self.root}/instances/{instance}/file", timeout=30) as answer:
            return answer.read()

    def series_of(self, modality: str) -> list[dict]:
        series = [self.ask(f"/series/{one}") for one in self.ask("/series")]
        return [one for one in series if one["MainDicomTags"]["Modality"] == modality]


def documented_commands(changes: dict[str, str]) -> tuple[str, list[str], list[str]]:
    """The page's commands that set up Orthanc and a node: those that write files, and two words
    lists of those that start programs."""
    page = (programs.ROOT / "docs" / "node.md").read_text()
    block = page.partition("## Orthanc as the neighbour")[2].partition("```bash\n")[2]
    block = block.partition("```")[0]
    for old, new in changes.items():
        assert old in block, old
        block = block.replace(old, new)
    *files, orthanc, node = block.strip().splitlines()
    return "\n".join(files), shlex.split(orthanc.partition(">")[0]), shlex.split(node[:-1])


@contextlib.contextmanager
def serve(tmp_path, model, port, peers, *rules):  # noqa: F811
    """`python -m serving.node` as a program; gives its spool."""
    flags = programs.as_flags(
        spool=tmp_path / "spool",
        rules=nodes.write_rules(tmp_path / "rules.csv", *({"model": model, **r} for r in rules)),
        peers=nodes.write_peers(tmp_path / "peers.csv", *peers),
        port=port,
        quiet=0.5,
        least_free_gb=0,
    )
    with running(["-m", "serving.node", *flags]):
        yield Spool(str(tmp_path / "spool"))


@contextlib.contextmanager
def running(command):
    """A node that listens; it is killed at the end of the block."""
    with programs.start(command) as program:
        try:
            line = program.stdout.readline()
            assert "listens" in line, line + program.stdout.read()
            yield
        finally:
            program.kill()


@needs_orthanc
@needs_dciodvfy
def test_orthanc_passes_a_series_on_and_gets_its_structure_set_back(tmp_path, model):  # noqa: F811
    save_series(tmp_path / "in", "hfs")
    slices = sorted((tmp_path / "in" / "hfs").iterdir())
    ports = {number: str(nodes.free_port()) for number in ("4242", "8042", "11112")}
    changes = {**ports, "MODEL": model, '"StableAge": 60': '"StableAge": 1'}
    files, orthanc_words, node_words = documented_commands(changes)
    (tmp_path / "here").mkdir()
    subprocess.run(["bash", "-ec", files], cwd=tmp_path / "here", check=True)
    assert node_words[:3] == ["python", "-m", "serving.node"]
    flags = [word.replace("=", f"={tmp_path}/here/", 1) for word in node_words[3:-1]]
    command = [*node_words[1:3], *flags, node_words[-1], "--quiet=0.5", "--least_free_gb=0"]
    program = children.start(orthanc_words, cwd=tmp_path / "here", stdout=-3, stderr=-3)
    web = Web(int(ports["8042"]))
    try:
        with running(command):
            wait_for(web.answers)
            stored = [web.ask("/instances", path.read_bytes()) for path in slices]
            wait_for(lambda: web.series_of("RTSTRUCT") and web.series_of("SEG"), 60)
            spool = Spool(str(tmp_path / "here" / "spool"))
            ((_, name),) = wait_for_jobs(spool, 1)
        assert_results_refer_to(slices, stored[0]["ParentStudy"], web, spool.read(SENT, name))
    finally:
        program.kill()
        program.wait()
    assert_label_map_is_that_of_predict(tmp_path, model, spool, name)


def assert_results_refer_to(slices, study, web, job):
    images = {pydicom.dcmread(path).SOPInstanceUID for path in slices}
    uids = set()
    for modality in ("RTSTRUCT", "SEG"):
        (series,) = web.series_of(modality)
        assert series["ParentStudy"] == study
        path = slices[0].parents[2] / f"{modality}.dcm"
        path.write_bytes(web.file(series["Instances"][0]))
        assert validated(path) == []
        dataset = pydicom.dcmread(path)
        assert references(dataset) == images
        uids.add(dataset.SOPInstanceUID)
    assert {one.uid for one in job.objects if one.uid} == uids


def references(dataset) -> set[str]:
    """Every ReferencedSOPInstanceUID of images, wherever it stands in an object."""
    uids = set()

    def look(_, element):
        if element.keyword == "ReferencedSOPInstanceUID":
            uids.add(element.value)

    dataset.walk(look)
    return {uid for uid in uids if uid != dataset.StudyInstanceUID}


def assert_label_map_is_that_of_predict(tmp_path, model, spool, name):  # noqa: F811
    flags = {"model": model, "input": tmp_path / "in", "output": tmp_path / "out"}
    done = programs.run_entry("serving.predict", **flags)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = (tmp_path / "out" / "hfs.nii.gz").read_bytes()
    assert Path(spool.folder(SENT, name, "predictions", f"{name}.nii.gz")).read_bytes() == expected


@needs_dcmtk
def test_storescu_sends_a_series_and_storescp_gets_the_result(tmp_path, model):  # noqa: F811
    save_series(tmp_path / "in", "hfs")
    slices = sorted((tmp_path / "in" / "hfs").iterdir())
    (tmp_path / "store").mkdir()
    port, store = nodes.free_port(), nodes.free_port()
    command = ["storescp", "-aet", "PACS", "-od", str(tmp_path / "store"), str(store)]
    receiver = children.start(command, stdout=-3, stderr=-3)
    peers = [("STORESCU", "127.0.0.1", ""), ("PACS", "127.0.0.1", store)]
    try:
        with serve(tmp_path, model, port, peers, {"destination": "PACS"}) as spool:
            at = ["127.0.0.1", str(port)]
            subprocess.run(["echoscu", "-aec", nodes.TITLE, "-aet", "STORESCU", *at], check=True)
            command = ["storescu", "-aec", nodes.TITLE, "-aet", "STORESCU", *at]
            subprocess.run([*command, *map(str, slices)], check=True)
            ((state, name),) = wait_for_jobs(spool, 1)
        assert state == SENT
        (path,) = (tmp_path / "store").iterdir()
        uids = [one.uid for one in spool.read(SENT, name).objects]
        assert [pydicom.dcmread(path).SOPInstanceUID] == uids
    finally:
        receiver.kill()
        receiver.wait()
    assert_label_map_is_that_of_predict(tmp_path, model, spool, name)


def test_a_series_that_cannot_be_predicted_sends_a_document_that_says_why(tmp_path, model):  # noqa: F811
    save_series(tmp_path / "in", "hfs")
    slices = sorted((tmp_path / "in" / "hfs").iterdir())
    content = slices[5].read_bytes()
    slices[5].write_bytes(content[:-600])
    port = nodes.free_port()
    row = {"refusal": "yes", "destination": f"folder:{tmp_path / 'results'}"}
    with serve(tmp_path, model, port, [(nodes.SENDER, "127.0.0.1", "")], row) as spool:
        nodes.send(port, list(map(str, slices)))
        ((state, name),) = wait_for_jobs(spool, 1)
    job = spool.read(state, name)
    assert state == FAILED and "Secret" not in job.reason and "\n" not in job.reason
    (path,) = (tmp_path / "results").iterdir()
    document = pydicom.dcmread(path)
    assert document.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.11"
    assert job.reason in document.ContentSequence[0].TextValue
    assert document.StudyInstanceUID == pydicom.dcmread(slices[0]).StudyInstanceUID
    assert document.SOPInstanceUID == job.objects[0].uid
    if shutil.which("dciodvfy"):
        assert validated(path) == []


def test_the_module_of_mercure_takes_a_series_and_leaves_dicom(tmp_path, model):  # noqa: F811
    save_series(tmp_path, "in")
    (tmp_path / "out").mkdir()
    script = programs.ROOT / "scripts" / "mercure_module.sh"
    page = (programs.ROOT / "docs" / "node.md").read_text()
    assert script.read_text().partition("pipefail\n")[2] in page
    places = {"MERCURE_IN_DIR": tmp_path / "in", "MERCURE_OUT_DIR": tmp_path / "out"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"SEGTHOR_MODEL": model, "PATH": path, **map_texts(places)}
    subprocess.run([script], env=environment, cwd=programs.ROOT, check=True)
    assert sorted(one.name.rpartition("_")[2] for one in (tmp_path / "out").iterdir()) == [
        "rtstruct.dcm",
        "seg.dcm",
    ]


def map_texts(places):
    return {name: str(place) for name, place in places.items()}
