"""The build from end to end: laws of re-runs, workers, kills, and of what is refused."""

import dataclasses
import json
import random
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import programs
import pytest
from cases import TINY_RECIPE, save, save_patient, save_patients, tiny_patient, touch
from programs import ROOT

from beam_jobs import checks, pipeline, shards
from beam_jobs.driver import REJECTED_STATUS, Settings, build
from beam_jobs.job import Job
from beam_jobs.plan import ShardPlan
from segthor import inputs, json_files, nifti, scans
from segthor.errors import InputError
from segthor.manifest import TRAIN, VALIDATION, Dataset
from segthor.organs import SEGTHOR, Organs
from segthor.recipe import Recipe
from tests import file_order


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    return save_patients(tmp_path_factory.mktemp("twelve"), 12)


@pytest.fixture(scope="module")
def built(twelve, tmp_path_factory):
    """(folder, dataset) of the twelve; who writes there takes a copy."""
    output = tmp_path_factory.mktemp("built") / "out"
    return output, run(twelve, output, "--direct_num_workers=1")[1]


def run(source, output, *beam, context=3, **values):
    """Builds in this process; returns (exit status, dataset)."""
    recipe = Recipe(**{**TINY_RECIPE, **values.pop("recipe", {})}, context=context)
    status = build(Settings(str(source), str(output), recipe, **{"organs": SEGTHOR} | values), beam)
    return status, Dataset.load(str(output))


def shell(*arguments, **options):
    return programs.run(["-m", "beam_jobs.build", *arguments], **options)


def tiny_flags():
    return [f"--{name}={value}" for name, value in TINY_RECIPE.items()]


def shard_bytes(output):
    return {path.name: path.read_bytes() for path in (Path(output) / "shards").iterdir()}


def modified(output):
    return {path.name: path.stat().st_mtime_ns for path in (Path(output) / "shards").iterdir()}


def copy(source, target):
    shutil.copytree(source, target)
    return target


def shard_files(dataset):
    """Patient to the file that holds it."""
    return {name: shard.file for shard in dataset.shards for name in shard.patients}


def codes_of(patient):
    return {finding.code for finding in patient.audit.findings}


def check(output):
    """The dataset is what its manifest says, and nothing else lies there."""
    checks.verify(str(output))
    left = [str(path) for path in Path(output).rglob(".*")]
    assert not left


def test_a_folder_becomes_a_dataset_that_its_manifest_describes(twelve, tmp_path, capsys):
    status, dataset = run(twelve, tmp_path / "out")
    assert status == 0
    assert {patient.patient for patient in dataset.patients} == {
        f"Patient_{number:02d}" for number in range(1, 13)
    }
    assert dataset.recipe == Recipe(**TINY_RECIPE)
    held_out = {one.patient for one in dataset.patients if one.split == VALIDATION}
    assert held_out == {"Patient_01", "Patient_03", "Patient_12"}
    listed = [name for shard in dataset.shards for name in shard.patients]
    assert sorted(listed) == [patient.patient for patient in dataset.patients]
    for patient in dataset.patients:
        shard = dataset.shard_of(patient.patient)
        assert (patient.split, patient.fold) == (shard.split, shard.fold)
    assert dataset.statistics.slices["all"] == 12 * 16
    check(tmp_path / "out")
    said = capsys.readouterr().out
    assert "Split original: 9 for training, 3 held out" in said
    assert "Wrote 192 slices of 12 patients" in said and "python -m trainer.main" in said


def test_statistics_are_those_of_the_prepared_patients(twelve, built):
    _, dataset = built
    from segthor.recipe import prepare

    heart, with_heart = [], 0
    for source in inputs.find(twelve, organs=SEGTHOR):
        ct, contours = nifti.read(source.ct), scans.read_labels(source.labels, organs=SEGTHOR)
        prepared = prepare(ct, dataset.recipe, contours)
        hu = np.stack([*prepared.placement.image_to_model(ct.zyx)])
        heart.append(hu[prepared.labels == 2])
        with_heart += np.count_nonzero((prepared.labels == 2).any((1, 2)))
    assert dataset.statistics.slices["heart"] == with_heart
    found = dataset.statistics.hu_percentiles["heart"]
    for percent, value in found.items():
        expected = np.percentile(np.concatenate(heart), float(percent), method="inverted_cdf")
        assert value <= expected < value + 4  # bins of 4 HU, named by their lower edge


def test_a_second_run_writes_nothing(twelve, built, tmp_path, capsys):
    copy(built[0], tmp_path / "out")
    before, manifest = modified(tmp_path / "out"), (tmp_path / "out/dataset.json").read_bytes()
    run(twelve, tmp_path / "out")
    assert modified(tmp_path / "out") == before
    assert (tmp_path / "out/dataset.json").read_bytes() == manifest
    count = len(before)
    assert f"12 patients in {count} shards, {count} of them up to date" in capsys.readouterr().out


def test_an_added_changed_or_removed_patient_touches_its_shard_alone(twelve, tmp_path):
    source, output = copy(twelve, tmp_path / "in"), tmp_path / "out"
    run(source, output)
    steps = (
        ("Patient_13", lambda: save_patient(source, "Patient_13", tiny_patient(13))),
        ("Patient_04", lambda: save_patient(source, "Patient_04", tiny_patient(99))),
        ("Patient_07", lambda: shutil.rmtree(source / "train" / "Patient_07")),
    )
    for number, (name, change) in enumerate(steps):
        before = modified(output)
        old = shard_files(Dataset.load(str(output)))
        change()
        _, dataset = run(source, output)
        new = shard_files(dataset)
        touched = {Path(place[name]).name for place in (old, new) if name in place}
        after = modified(output)
        changed = {one for one in before | after if before.get(one) != after.get(one)}
        mates = {  # the shard that the patient joins or leaves has another name afterwards
            Path(place[one]).name
            for place in (old, new)
            for one in place
            if {Path(p[one]).name for p in (old, new) if one in p} & touched
        }
        assert changed <= touched | mates and touched <= changed, name
        _, fresh = run(source, tmp_path / f"fresh{number}")
        assert shard_bytes(output) == shard_bytes(tmp_path / f"fresh{number}")
        assert dataset == fresh
        check(output)


def test_another_recipe_rewrites_everything_and_leaves_nothing_behind(twelve, built, tmp_path):
    copy(built[0], tmp_path / "out")
    run(twelve, tmp_path / "out", context=1)
    run(twelve, tmp_path / "fresh", context=1)
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "fresh")
    check(tmp_path / "out")


@pytest.mark.parametrize(
    "workers",
    [
        ("--direct_num_workers=2",),
        ("--direct_num_workers=3", "--direct_running_mode=multi_threading"),
    ],
)
def test_the_number_of_workers_changes_no_byte(twelve, built, tmp_path, workers):
    _, together = run(twelve, tmp_path / "many", *workers)
    assert shard_bytes(built[0]) == shard_bytes(tmp_path / "many")
    assert built[1] == together


def test_the_order_of_discovery_changes_no_byte(twelve, built, tmp_path):
    found = inputs.find(twelve, organs=SEGTHOR)
    shuffled = list(found)
    random.Random(5).shuffle(shuffled)
    csv = tmp_path / "shuffled.csv"
    rows = [f"{one.name},{one.ct},{one.labels}" for one in shuffled]
    csv.write_text("\n".join(["patient,ct,labels", *rows]))
    _, dataset = run(csv, tmp_path / "shuffled")
    assert shard_bytes(built[0]) == shard_bytes(tmp_path / "shuffled")
    assert dataset == built[1]


def test_killed_at_any_moment_the_next_run_completes_it_identically(twelve, built, tmp_path):
    command = ["-m", "beam_jobs.build", f"--input={twelve}", *tiny_flags()]
    command.append(f"--output={tmp_path / 'out'}")
    interrupted = 0
    for wanted in (1, 4, 7):  # kill once so many shards are there
        process = programs.start(command, stdout=subprocess.DEVNULL)
        folder = tmp_path / "out" / "shards"
        while process.poll() is None:
            if folder.is_dir() and len(list(folder.iterdir())) >= wanted:
                process.send_signal(signal.SIGKILL)
                interrupted += 1
                break
            time.sleep(0.002)
        process.wait()
    assert interrupted
    (tmp_path / "out" / "shards" / ".partial-0-train-fold0").write_bytes(b"half")
    run(twelve, tmp_path / "out")
    assert shard_bytes(tmp_path / "out") == shard_bytes(built[0])
    check(tmp_path / "out")


def test_the_old_dataset_stays_whole_until_the_new_one_is(twelve, built, tmp_path, monkeypatch):
    copy(built[0], tmp_path / "out")
    old = shard_bytes(tmp_path / "out")

    def crash(*_):
        raise RuntimeError("crash")

    monkeypatch.setattr("beam_jobs.pipeline.write_manifest", crash)
    with pytest.raises(RuntimeError):
        run(twelve, tmp_path / "out", context=1)
    assert Dataset.load(str(tmp_path / "out")).recipe.context == 3
    assert old.items() <= shard_bytes(tmp_path / "out").items()


def test_a_shard_or_a_part_that_was_cut_off_or_removed_is_written_again(twelve, built, tmp_path):
    copy(built[0], tmp_path / "out")
    paths = [tmp_path / "out" / shard.file for shard in built[1].shards]
    paths[0].write_bytes(paths[0].read_bytes()[:-5])
    paths[1].unlink()
    parts = {path: path.read_bytes() for path in sorted((tmp_path / "out/parts").iterdir())}
    contents = (b"", b"{", b"[1]", b'{"key": 7}')
    for part, content in zip(list(parts)[-len(contents) :], contents, strict=True):
        part.write_bytes(content)
    run(twelve, tmp_path / "out")
    assert shard_bytes(tmp_path / "out") == shard_bytes(built[0])
    assert {path: path.read_bytes() for path in parts} == parts


def test_a_part_of_other_rules_is_not_taken_for_this_runs(twelve, tmp_path):
    """As the workers of an engine write it whose driver was killed."""
    plan = ShardPlan("train-fold0", "train", 0, inputs.find(str(twelve), organs=SEGTHOR)[:2])
    job = Job(str(tmp_path), Recipe(**TINY_RECIPE), organs=SEGTHOR)
    other = dataclasses.replace(job, recipe=Recipe(**TINY_RECIPE, context=1))
    shards.write(plan, other)
    assert shards.load_finished(plan, job) is None and shards.load_finished(plan, other)
    pipeline._write(plan, job)
    assert shards.load_finished(plan, job)


def test_damaged_patients_are_named_and_the_others_built(twelve, tmp_path, capsys):
    source = copy(twelve, tmp_path / "in")
    cut = source / "train/Patient_02/Patient_02.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-1000])
    other = file_order.read(str(source / "train/Patient_05/GT.nii.gz"))
    save(source / "train/Patient_05/GT.nii.gz", other.array[1:], other.grid.affine)
    status, dataset = run(source, tmp_path / "out")
    assert status == REJECTED_STATUS
    codes = {one.patient: one.findings[0].code for one in dataset.rejected}
    assert codes == {"Patient_02": "file_truncated", "Patient_05": "shape_mismatch"}
    assert len(dataset.patients) == 10
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1] == "2 of 12 patients were rejected"
    assert any("Patient_02" in line and "truncated" in line for line in said)
    table = (tmp_path / "out/audit.csv").read_text().splitlines()
    assert sum(",rejected," in line for line in table) == 2 and len(table) == 13
    page = (tmp_path / "out/audit.html").read_text()
    assert "Patient_05" in page and "shape_mismatch" in page and "data:image/png;base64" in page
    with pytest.raises(InputError, match=r"2 patients were rejected \(--strict\)"):
        run(source, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict/dataset.json").exists()


def test_where_nothing_can_be_built_there_is_no_dataset(tmp_path):
    source = save_patients(tmp_path / "in", 2)
    for path in Path(source).rglob("GT.nii.gz"):
        path.write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"every patient was rejected \(2\).*GT.nii.gz"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out/dataset.json").exists()
    assert "file_not_nifti" in (tmp_path / "out/audit.csv").read_text()


def test_severities_can_be_changed(tmp_path):
    source = save_patients(tmp_path / "in", 2)
    path = str(Path(source) / "train/Patient_01/GT.nii.gz")
    contours = file_order.read(path)
    file_order.write(path, np.where(contours.array == 4, 0, contours.array), contours.grid)
    status, dataset = run(source, tmp_path / "a")
    assert status == 3 and dataset.rejected[0].findings[0].code == "organ_missing"
    status, dataset = run(source, tmp_path / "b", severities=(("organ_missing", "warn"),))
    assert status == 0
    assert {"organ_missing"} == codes_of(dataset.patients[0]) - codes_of(dataset.patients[1])
    _, dataset = run(source, tmp_path / "c", severities=(("organ_missing", "ignore"),))
    assert codes_of(dataset.patients[0]) == codes_of(dataset.patients[1])


def test_one_scan_under_two_names_is_kept_once(tmp_path):
    source = Path(save_patients(tmp_path / "in", 4))
    second = source / "train/Patient_09"
    scan = file_order.read(str(source / "train/Patient_03/Patient_03.nii.gz"))
    contours = file_order.read(str(source / "train/Patient_03/GT.nii.gz"))
    # Stored the other way round and uncompressed: other bytes, the same patient.
    flip = scan.grid.affine @ np.diag([-1, 1, 1, 1.0])
    flip[:3, 3] += scan.grid.affine[:3, 0] * (scan.array.shape[0] - 1)
    save(second / "Patient_09.nii", scan.array[::-1], flip)
    save(second / "GT.nii", contours.array[::-1], flip)
    status, dataset = run(source, tmp_path / "out")
    assert status == 3
    assert [one.patient for one in dataset.rejected] == ["Patient_09"]
    assert dataset.rejected[0].findings[0].code == "same_scan"
    assert "Patient_03" in dataset.rejected[0].findings[0].message
    before = modified(tmp_path / "out")
    run(source, tmp_path / "out")
    assert modified(tmp_path / "out") == before
    # Where the first is no good, the second is taken; alone it repeats nothing.
    (source / "train/Patient_03/GT.nii.gz").write_bytes(b"")
    _, dataset = run(source, tmp_path / "out")
    assert [one.patient for one in dataset.rejected] == ["Patient_03"]
    shutil.rmtree(source / "train/Patient_03")
    status, dataset = run(source, tmp_path / "out")
    assert status == 0 and "Patient_09" in {one.patient for one in dataset.patients}


def test_of_two_names_the_kept_one_does_not_change_from_run_to_run(tmp_path):
    """The first lacks the organ that gives the level; without it, nothing else would be amiss."""
    made = tiny_patient(1)
    save_patient(tmp_path / "in", "A", made)
    save_patient(tmp_path / "in", "B", made)
    save_patient(tmp_path / "in", "C", tiny_patient(2))
    esophagus = np.where(made.labels == 1, 1, 0).astype(np.uint8)
    save(tmp_path / "in/train/A/GT.nii.gz", esophagus, made.affine)
    rows = [f"{name},train/{name}/{name}.nii.gz,train/{name}/GT.nii.gz" for name in "ABC"]
    rows = [f"{row},{'esophagus' if row[0] == 'A' else ''}" for row in rows]
    csv = tmp_path / "in" / "patients.csv"
    csv.write_text("\n".join(["patient,ct,labels,organs", *rows]) + "\n")
    for _ in range(3):
        _, dataset = run(csv, tmp_path / "out", recipe={"window_level": "median:heart"})
        assert [one.patient for one in dataset.patients] == ["B", "C"]
        codes = {finding.code for finding in dataset.rejected[0].findings}
        assert codes >= {"cannot_prepare", "same_scan"}


def test_patients_without_contours_are_listed_and_never_sharded(twelve, tmp_path):
    source = copy(twelve, tmp_path / "in")
    (source / "train/Patient_05/GT.nii.gz").unlink()
    made = tiny_patient(41)
    save(source / "test/Patient_41.nii.gz", made.hu, made.affine)
    _, dataset = run(source, tmp_path / "out")
    assert [one.patient for one in dataset.unlabelled] == ["Patient_05", "Patient_41"]
    assert "Patient_05" not in {one.patient for one in dataset.patients}
    assert all(len(shard.patients) for shard in dataset.shards)
    table = (tmp_path / "out/audit.csv").read_text()
    assert "Patient_41,good,unlabelled," in table or "Patient_41,warned,unlabelled," in table


def test_patients_without_contours_are_audited_too(twelve, tmp_path):
    source = copy(twelve, tmp_path / "in")
    made = tiny_patient(3)
    for number, one in ((41, made), (42, tiny_patient(42)), (43, tiny_patient(43))):
        save(source / f"test/Patient_{number}.nii.gz", one.hu, one.affine)
    cut = (source / "test/Patient_43.nii.gz").read_bytes()[:-2000]
    (source / "test/Patient_43.nii.gz").write_bytes(cut)
    train = source / "train/Patient_03/Patient_03.nii.gz"
    save(train, made.hu, made.affine)
    save(source / "train/Patient_03/GT.nii.gz", made.labels, made.affine)
    status, dataset = run(source, tmp_path / "out")
    assert status == REJECTED_STATUS
    assert [one.patient for one in dataset.unlabelled] == ["Patient_42"]
    assert {one.patient: one.findings[0].code for one in dataset.rejected} == {
        "Patient_41": "same_scan",  # the one with contours stays
        "Patient_43": "file_truncated",
    }
    before = modified(tmp_path / "out")
    run(source, tmp_path / "out")
    assert modified(tmp_path / "out") == before


def test_an_earlier_models_masks_give_the_level_of_a_patient_without_contours(tmp_path):
    save_patients(tmp_path / "in", 2)
    made = tiny_patient(41)
    save(tmp_path / "in/test/Patient_41.nii.gz", made.hu, made.affine)
    own = {"recipe": {"window_level": "median:heart"}}
    _, dataset = run(tmp_path / "in", tmp_path / "out", **own)
    assert [one.level_hu for one in dataset.unlabelled] == [None]
    save(tmp_path / "masks/Patient_41.nii.gz", made.labels, made.affine)
    own = {"recipe": {"window_level": "median:heart"}, "level_masks": str(tmp_path / "masks")}
    _, dataset = run(tmp_path / "in", tmp_path / "out", **own)
    assert dataset.unlabelled[0].level_hu == np.median(made.hu[made.labels == 2])
    swapped = {"esophagus": 2, "heart": 1}
    rows = [(one, swapped.get(one.name, one.label)) for one in SEGTHOR]
    table = Organs(tuple(dataclasses.replace(one, label=label) for one, label in rows))
    noted = {"format": 1, "models": ["0"], "organs": table.to_json()}
    json_files.write(str(tmp_path / "masks/predictions.json"), noted)
    with pytest.raises(InputError, match="esophagus has the label 2, in the table of organs 1"):
        run(tmp_path / "in", tmp_path / "out", **own)


def test_nnunets_layout_gives_the_same_shards(tmp_path):
    names = {"esophagus": 3, "heart": 1, "trachea": 2, "aorta": 9}
    for number in (1, 2, 3):
        made, name = tiny_patient(number), f"Patient_{number:02d}"
        save_patient(tmp_path / "a", name, made)
        other = np.zeros_like(made.labels)
        for label, value in enumerate(names.values(), 1):
            other[made.labels == label] = value
        save(tmp_path / f"b/imagesTr/{name}_0000.nii.gz", made.hu, made.affine)
        save(tmp_path / f"b/labelsTr/{name}.nii.gz", other, made.affine)
    (tmp_path / "b/dataset.json").write_text(json.dumps({"labels": {"background": 0, **names}}))
    for folder in ("a", "b"):
        run(tmp_path / folder, tmp_path / f"out_{folder}", split="original")
    assert shard_bytes(tmp_path / "out_a") == shard_bytes(tmp_path / "out_b")


def test_organs_left_out_of_labels_are_background_and_not_contoured(twelve, tmp_path):
    _, dataset = run(twelve, tmp_path / "out", label_values=(("heart", 2), ("aorta", 4)))
    assert {one.organs for one in dataset.patients} == {("heart", "aorta")}
    assert set(dataset.statistics.hu_percentiles) == {"heart", "aorta"}
    check(tmp_path / "out")


def test_cross_validation_reads_other_shards_of_the_same_dataset(twelve, tmp_path):
    _, dataset = run(twelve, tmp_path / "out", folds=3)
    held_out = [set() for _ in range(3)]
    for fold in range(3):
        for shard in dataset.shards_of(VALIDATION, fold):
            held_out[fold] |= set(shard.patients)
        trained = {name for s in dataset.shards_of(TRAIN, fold) for name in s.patients}
        assert not trained & held_out[fold] and len(trained | held_out[fold]) == 12
    assert sum(map(len, held_out)) == 12 and all(held_out)


@pytest.mark.parametrize("name", ["notes.txt", "shards/notes.txt", "shards/train-0.tfrecord"])
def test_a_folder_that_holds_anything_else_is_refused(twelve, tmp_path, name):
    stranger = tmp_path / "out" / name
    stranger.parent.mkdir(parents=True)
    stranger.write_text("mine")
    with pytest.raises(InputError, match=stranger.name):
        run(twelve, tmp_path / "out")
    assert stranger.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pixel=1"], "unknown option '--pixel=1'"),
        (["stray"], "unknown option 'stray'"),
        (["--pixel_mm=wide"], "pixel_mm"),
        (["--split=thirds"], "split"),
        (["--window_level=median:liver"], "window_level"),
        (["--severity=nonsense=warn"], "nonsense"),
        (["--severity=metal"], "severity: expected NAME=VALUE"),
        (["--severity=file_damaged=warn"], "expected reject, since"),
        (["--label_values=heart=two"], "label_values: expected ORGAN=VALUE"),
        (["--labels=heart=1"], "--label_values"),
        (
            ["--input=/nowhere"],
            "/nowhere: expected a folder, a scan (.nii.gz) or a .csv, found nothing",
        ),
    ],
)
def test_a_wrong_flag_ends_in_one_line(tmp_path, arguments, said):
    output = tmp_path / "out"
    done = shell(f"--input={tmp_path}", f"--output={output}", *arguments)
    assert done.returncode == 2 and said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
    assert not output.exists()


# The program with tiny phantoms: it takes a third of a second to make a small one.
WITH_TINY_PHANTOMS = """
import runpy, sys
from segthor.phantom import dataset
make = dataset.make
dataset.make = lambda seed, size, organs: make(seed, "tiny", organs)
runpy.run_module("beam_jobs.build", run_name="__main__", alter_sys=True)
"""


def test_no_input_makes_and_builds_phantoms_without_a_network(tmp_path):
    environment = {"PYTHONPATH": ROOT, "http_proxy": "http://127.0.0.1:9"}
    environment["https_proxy"] = environment["http_proxy"]
    command = ["-c", WITH_TINY_PHANTOMS, "--runner=DirectRunner"]
    done = programs.run(command, cold=True, cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "No --input: making 24 phantoms" in done.stdout
    dataset = Dataset.load(str(tmp_path / "data/dataset"))
    assert len(dataset.patients) == 24 and len(dataset.unlabelled) == 4
    assert dataset.recipe.size_px == 96
    lines = (ROOT / "configs/demo_build.flags").read_text().splitlines()
    told = dict(line[2:].split("=") for line in lines if line.startswith("--"))
    assert dataset.recipe == Recipe(
        crop_mm=float(told["crop_mm"]),
        pixel_mm=float(told["pixel_mm"]),
        window_level=told["window_level"],
        window_width_hu=float(told["window_width"]),
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_the_local_runner_never_looks_for_the_network(twelve, tmp_path, monkeypatch, workers):
    def refuse(*arguments, **_):
        raise AssertionError(f"looked for the network: {arguments}")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("http.client.HTTPConnection.connect", refuse)
    status, _ = run(twelve, tmp_path / "out", f"--direct_num_workers={workers}")
    assert status == 0


def test_real_ct_builds_from_a_csv(real_ct, tmp_path):
    rows = [
        "patient,ct,labels,organs",
        "LUNG1-002,{0}/lung1_002/ct.nii.gz,{0}/lung1_002/labels.nii.gz,esophagus;heart",
        "AORTA,{0}/aorta_dissection_crop/ct.nii.gz,{0}/aorta_dissection_crop/labels.nii.gz,"
        "heart;aorta",
        "CHEST,{0}/chest_64/ct.nii.gz,,",
    ]
    csv = tmp_path / "real.csv"
    csv.write_text("\n".join(rows).format(real_ct))
    status, dataset = run(csv, tmp_path / "out", recipe={"crop_mm": 256.0, "pixel_mm": 2.0})
    assert status == 0
    assert [one.patient for one in dataset.patients] == ["AORTA", "LUNG1-002"]
    assert dataset.patients[1].audit.findings == ()
    assert dataset.patients[1].organs == ("esophagus", "heart")
    assert [one.patient for one in dataset.unlabelled] == ["CHEST"]
    check(tmp_path / "out")


@pytest.mark.parametrize(
    ("phantoms", "flagfile"), [(False, "configs/all.flags"), (True, "configs/smoke.flags")]
)
def test_the_hint_can_be_typed_as_it_stands(tmp_path, capsys, phantoms, flagfile):
    """It names the flags for what was built, and quotes what a shell would take apart."""
    source = save_patients(tmp_path / "in", 8)
    if phantoms:
        touch(tmp_path / "in" / "phantoms.json")
    run(source, tmp_path / "my data", split="hash", validation_fraction=0.5)
    (line,) = [row for row in capsys.readouterr().out.splitlines() if row.startswith("Next")]
    words = shlex.split(line.removeprefix("Next: "))
    assert words[:3] == ["python", "-m", "trainer.main"]
    assert words[3:] == [
        f"--flagfile={flagfile}",
        f"--data={tmp_path / 'my data'}",
        "--workdir=RUN",
    ]


def test_no_hint_is_given_for_what_cannot_be_trained(tmp_path, capsys):
    run(save_patients(tmp_path / "in", 2), tmp_path / "out", split="hash", validation_fraction=1)
    shown = capsys.readouterr()
    assert "no patient to train on" in shown.err and "Next" not in shown.out


def test_a_build_that_holds_out_no_patient_warns_of_it(tmp_path, capsys):
    run(save_patients(tmp_path / "in", 2), tmp_path / "out", split="hash", validation_fraction=0)
    shown = capsys.readouterr()
    assert "no patient is held out" in shown.err and "Next" in shown.out


def test_a_dataset_is_not_built_from_a_dataset(tmp_path):
    run(save_patients(tmp_path / "in", 2), tmp_path / "out")
    with pytest.raises(InputError, match="is a dataset that was built; name the folder or CSV"):
        run(tmp_path / "out", tmp_path / "out2")


def test_a_patient_with_a_bad_name_moves_no_other(tmp_path):
    source = save_patients(tmp_path / "in", 4)
    _, before = run(source, tmp_path / "out")
    shutil.copytree(tmp_path / "in/train/Patient_02", tmp_path / "in/train" / ("x" * 225))
    status, after = run(source, tmp_path / "out")
    assert status == 3 and after.patients == before.patients and after.shards == before.shards
    (rejected,) = after.rejected
    assert rejected.findings[0].code == "bad_name" and "225 bytes long" in rejected.reason


def test_output_within_the_input_is_passed_over_by_the_next_build(tmp_path):
    source = save_patients(tmp_path / "in", 3)
    _, first = run(source, tmp_path / "in" / "train" / "dataset")
    _, second = run(source, tmp_path / "in" / "train" / "dataset")
    assert first == second
