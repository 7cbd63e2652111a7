"""Shows the DICOM node at work: a phantom goes to Orthanc, and comes back with a structure set.

  python scripts/node_demo.py MODEL FOLDER

Starts an Orthanc (Debian's package orthanc) and a node in FOLDER, puts a phantom's series into
Orthanc, which passes it on to the node, waits for the structure set, and prints what it holds.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import dicom_phantoms  # noqa: E402 - the tests' writer of series, which shares nothing with ours
import pydicom  # noqa: E402

from segthor import children, phantom  # noqa: E402
from segthor.errors import InputError  # noqa: E402
from segthor.organs import SEGTHOR  # noqa: E402

LIMIT_S = 600
LUA = """function OnStableSeries(series, tags, metadata)
  if tags["Modality"] == "CT" then
    local job = { Resources = { series }, Synchronous = false }
    RestApiPost("/modalities/segthor/store", DumpJson(job, true))
  end
end
"""


def main(model: str, folder: str) -> None:
    """Runs the demo; both programs end with it."""
    if not shutil.which("Orthanc"):
        raise InputError("Orthanc is not installed; on Debian: apt-get install orthanc")
    if not Path(model).is_dir():
        raise InputError(f"{model}: no model; make demo trains one")
    place = Path(folder).absolute()
    if place.exists() and not (place / "orthanc.json").exists():
        raise InputError(f"{place}: expected a new folder or an earlier demo's")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    ports = {name: _free_port() for name in ("orthanc", "web", "node")}
    programs = [_start_orthanc(place, ports), _start_node(place, ports, Path(model).absolute())]
    try:
        web = f"http://127.0.0.1:{ports['web']}"
        _wait("Orthanc", lambda: _ask(f"{web}/system"))
        slices = _write_phantom(place / "phantom")
        print(f"[1/3] {len(slices)} slices of a phantom go to Orthanc")
        for path in slices:
            _ask(f"{web}/instances", Path(path).read_bytes())
        print("[2/3] Orthanc passes the series on, the node predicts it (log: node.log)")
        (instance,) = _wait("the structure set", lambda: _structure_sets(web))
        print("[3/3] The structure set that came back to Orthanc:")
        with urllib.request.urlopen(f"{web}/instances/{instance}/file") as answer:
            (place / "structures.dcm").write_bytes(answer.read())
        _show(pydicom.dcmread(place / "structures.dcm"))
        print(f"\nThe structure set: {place / 'structures.dcm'}; the spool: {place / 'spool'}")
    finally:
        for program in programs:
            program.kill()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _start_orthanc(place: Path, ports: dict) -> subprocess.Popen:
    (place / "orthanc.lua").write_text(LUA)
    settings = {
        "Name": "Demo",
        "DicomAet": "ORTHANC",
        "DicomPort": ports["orthanc"],
        "HttpPort": ports["web"],
        "StorageDirectory": str(place / "orthanc"),
        "IndexDirectory": str(place / "orthanc"),
        "StableAge": 2,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "LuaScripts": [str(place / "orthanc.lua")],
        "DicomModalities": {"segthor": ["SEGTHOR", "127.0.0.1", ports["node"]]},
    }
    (place / "orthanc.json").write_text(json.dumps(settings))
    with open(place / "orthanc.log", "w") as log:
        return children.start(["Orthanc", str(place / "orthanc.json")], stdout=log, stderr=log)


def _start_node(place: Path, ports: dict, model: Path) -> subprocess.Popen:
    (place / "peers.csv").write_text(f"title,address,port\nORTHANC,127.0.0.1,{ports['orthanc']}\n")
    (place / "rules.csv").write_text(f'model,formats,destination\n"{model}",rtstruct,sender\n')
    flags = {
        "spool": place / "spool",
        "rules": place / "rules.csv",
        "peers": place / "peers.csv",
        "port": ports["node"],
        "quiet": 2,
        "least_free_gb": 0,
    }
    words = [f"--{name}={value}" for name, value in flags.items()]
    command = [sys.executable, "-m", "serving.node", *words]
    with open(place / "node.log", "w") as log:
        return children.start(command, stdout=log, stderr=log, cwd=ROOT)


def _write_phantom(folder: Path) -> list[str]:
    made = phantom.make(1000, "small", SEGTHOR)
    hu = made.volume.grid.to_file(made.volume.zyx)
    hu, affine = dicom_phantoms.posed(np.rint(hu).astype(np.int16), made.volume.grid.affine)
    return dicom_phantoms.write_series(folder, hu, affine)


def _ask(url: str, content: bytes | None = None):
    with urllib.request.urlopen(urllib.request.Request(url, content), timeout=30) as answer:
        return json.loads(answer.read())


def _structure_sets(web: str) -> list[str]:
    series = [_ask(f"{web}/series/{one}") for one in _ask(f"{web}/series")]
    sets = [one for one in series if one["MainDicomTags"]["Modality"] == "RTSTRUCT"]
    return [instance for one in sets for instance in one["Instances"]]


def _wait(what: str, reached):
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        try:
            if result := reached():
                return result
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)
    raise InputError(f"{what} did not come within {LIMIT_S} s; see the logs in the demo's folder")


def _show(dataset) -> None:
    print(f"  {dataset.StructureSetLabel}, {dataset.ApprovalStatus}")
    for roi, contours in zip(
        dataset.StructureSetROISequence, dataset.ROIContourSequence, strict=True
    ):
        print(f"  {roi.ROIName:16}{len(contours.ContourSequence):5} contours")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
