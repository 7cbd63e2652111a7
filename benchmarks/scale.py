"""Time and memory of the data job's driver with 100 000 patients.

Run from the project's root: python -m benchmarks.scale [--patients=100000]

Every patient is a folder with two files of a few bytes. The driver runs in a separate process, with
the real search for patients, plans, Beam's pipeline, audit and manifest. Only the worker is
replaced: each shard has a few bytes, and its part file repeats the report of a real worker about
one phantom. Then the same build runs again, with nothing left to do, and the manifest is read as
the trainer reads it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from unittest import mock

from absl import app, flags

from beam_jobs import audit_page, dataset, driver, pipeline, plan, same_scan, shards
from beam_jobs.examine import examine
from beam_jobs.job import Job
from beam_jobs.thumbnail import encode_png
from segthor import fields, files, inputs, json_files, manifest, phantom
from segthor.findings import Finding
from segthor.manifest import Built
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe

_PATIENTS = flags.DEFINE_integer("patients", 100_000, "How many.", lower_bound=1)
_FOLDER = flags.DEFINE_string("folder", None, "Where (default: a temporary folder).")
_STEPS = flags.DEFINE_string("steps", None, "Used by the program itself: a run of the driver.")

MOST_MB, MOST_PLANNING_S = 1000, 120
PLANNING = ("find", "deal", "repeated", "plan", "outdated")
_WARNED = 20  # every so many-th patient has a finding and a picture in the report


def main(_):
    """Makes the patients, runs the driver twice, prints the results and compares them."""
    if _STEPS.value:
        print(json.dumps(_drive(_FOLDER.value, _STEPS.value == "read")))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = _FOLDER.value or temporary
        started = time.monotonic()
        _make_template(folder)
        _make_patients(folder, _PATIENTS.value)
        print(f"{_PATIENTS.value} patients made in {time.monotonic() - started:.0f} s", flush=True)
        runs = {name: _child(folder, name) for name in ("first run", "second run", "read")}
        size = files.size(files.join(folder, "dataset", manifest.FILE_NAME))
        print(f"dataset.json: {size / 1e6:.0f} MB")
    return 0 if _judge(runs) else 1


def _make_patients(folder: str, count: int) -> None:
    for number in range(count):
        place = f"{folder}/patients/Patient_{number:06d}"
        os.makedirs(place)
        for name in (f"Patient_{number:06d}.nii.gz", "GT.nii.gz"):
            with open(f"{place}/{name}", "wb") as stream:
                stream.write(b"CT")


def _make_template(folder: str) -> None:
    """A worker's report on a shard of one small phantom, and a picture."""
    phantom.write_dataset(f"{folder}/template", 1, 0, "small", 0, report=lambda line: None)
    found = inputs.find(f"{folder}/template", organs=SEGTHOR)[0]
    job = Job(f"{folder}/template_out", Recipe(), organs=SEGTHOR)
    part = shards.write(plan.ShardPlan("one", manifest.TRAIN, 0, (found,)), job)
    value = {"part": part, "picture": encode_png(examine(found, job), organs=SEGTHOR)}
    json_files.write(f"{folder}/template.json", value)


def _child(folder: str, name: str) -> dict:
    """Runs the driver in a separate process: step -> (seconds, peak in MB)."""
    command = [sys.executable, "-m", "benchmarks.scale", f"--folder={folder}", f"--steps={name}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    steps = json.loads(done.stdout.splitlines()[-1])
    print(f"\n{name:<12}{'seconds':>10}{'peak MB':>10}")
    for step, (seconds, peak_mb) in steps.items():
        print(f"{step:<12}{seconds:10.1f}{peak_mb:10.0f}", flush=True)
    return steps


def _judge(runs: dict) -> bool:
    planning_s = sum(runs["first run"][step][0] for step in PLANNING)
    peak_mb = max(peak for steps in runs.values() for _, peak in steps.values())
    print(f"\nplanning {planning_s:.0f} s (at most {MOST_PLANNING_S})")
    print(f"peak of the driver {peak_mb:.0f} MB (at most {MOST_MB})")
    return planning_s <= MOST_PLANNING_S and peak_mb <= MOST_MB


def _drive(folder: str, read_only: bool) -> dict:
    """One run of the driver with measured steps."""
    watch = _Watch()
    output = f"{folder}/dataset"
    if read_only:
        watch.step("read", manifest.Dataset.load)(output)
        return watch.steps
    patched = [
        mock.patch.object(shards, "write", _made_up(folder)),
        *(
            mock.patch.object(module, function, watch.step(step, getattr(module, function)))
            for step, module, function in (
                ("find", driver, "_find_patients"),
                (("deal", driver, "_assign_splits")),
                ("repeated", same_scan, "assign_same_scan"),
                ("plan", plan, "plan_shards"),
                ("outdated", dataset, "remove_outdated"),
                ("pipeline", pipeline, "_run"),
                ("audit", audit_page, "write"),
                ("manifest", pipeline, "write_manifest"),
            )
        ),
    ]
    for one in patched:
        one.start()
    driver.build(driver.Settings(f"{folder}/patients", output, organs=SEGTHOR))
    return watch.steps


class _Watch:
    """Seconds and peak memory of steps; a step that is called twice adds up."""

    def __init__(self):
        self.steps = {}

    def step(self, name, function):
        def watched(*arguments, **named):
            with open("/proc/self/clear_refs", "w") as stream:
                stream.write("5")  # forget the peak so far
            started = time.monotonic()
            result = function(*arguments, **named)
            seconds, peak_mb = self.steps.get(name, (0.0, 0.0))
            seconds += time.monotonic() - started
            self.steps[name] = seconds, max(peak_mb, _peak_mb())
            return result

        return watched


def _peak_mb() -> float:
    with open("/proc/self/status") as stream:
        line = next(line for line in stream if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6  # the kernel counts in KiB


def _made_up(folder: str):
    """A replacement of `shards.write` that reports the template's values for each patient."""
    stored = json_files.read(f"{folder}/template.json")
    picture = stored["picture"]
    template = fields.from_json(shards.Part, stored["part"], "template")
    row = template.patients[0]
    metal = Finding("metal", "warn", "metal of 3071 HU")

    def built(source, one: plan.ShardPlan, warned: bool) -> Built:
        audit = replace(row.audit, findings=(metal,) * warned)
        own = {"patient": source.name, "ct": source.ct, "labels": source.labels}
        return replace(row, **own, split=one.split, fold=one.fold, audit=audit)

    def write(one: plan.ShardPlan, job: Job) -> shards.Part:
        file = f"{shards.SHARDS}/{one.name}-00000000.tfrecord"
        with files.atomic_write(files.join(job.output, file), durable=False) as stream:
            stream.write(b"shard")
        names = tuple(source.name for source in one.patients)
        warned = [name for name in names if int(name[-6:]) % _WARNED == 0]
        place = {"split": one.split, "fold": one.fold}
        part = replace(
            template,
            key=shards.digest_plan(one, job),
            shard=replace(template.shard, **place, file=file, patients=names, bytes=5),
            patients=tuple(built(source, one, source.name in warned) for source in one.patients),
            scans={
                source.name: same_scan.ScanReport(same_scan.stamp_files(source), source.name, True)
                for source in one.patients
            },
            thumbnails={name: picture for name in warned},
        )
        part.save(job.output, one.name)
        return part

    return write


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(main(argv)))
