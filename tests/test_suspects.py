"""Label suspects: what counts as disputed, planted errors first, and the program on real folds."""

import csv
import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import slices
from programs import as_flags, finish, run, start
from test_trainer import NETWORK
from tiny_models import killed_while_writing

from benchmarks import planted
from segthor import organs, phantom, records
from segthor.manifest import Dataset
from segthor.organs import SEGTHOR
from serving.prediction import out_of_fold
from serving.scoring import suspicion
from tests import file_order

MM = (3.0, 1.5, 1.0)
ORGAN = organs.Organ("a", 1, (9, 9, 9), tolerance_mm=2.0)
TABLE = organs.Organs((ORGAN, organs.Organ("b", 2, (8, 8, 8))))


def measure(truth, predicted, sure=None, spacing_mm=MM):
    sure = np.ones(truth.shape, bool) if sure is None else sure
    prediction = out_of_fold.SurePrediction(predicted, sure)
    contours = file_order.on_grid(truth, spacing_mm, TABLE)
    return suspicion.measure("P", contours, prediction, ORGAN, TABLE)


def block(z=(2, 8), y=(5, 15), x=(4, 16), label=1):
    labels = np.zeros((10, 20, 24), np.uint8)
    labels[slice(*z), slice(*y), slice(*x)] = label
    return labels


def test_equal_maps_edges_and_doubt_are_no_dispute():
    assert measure(block(), block()) == suspicion.Dispute("P", "a", 0.0)
    assert measure(block(x=(4, 18)), block()).share == 0  # two columns of 1 mm are within 2 mm
    doubtful = np.zeros(block().shape, bool)
    assert measure(block(), np.zeros_like(block()), doubtful).share == 0
    assert measure(np.zeros_like(block()), np.zeros_like(block())).share == 0


def test_what_is_missed_invented_and_moved_is_told_apart_by_slice():
    gap = measure(block() - block(z=(4, 6)), block())
    assert gap.empty == (4, 5) and gap.slices == (4, 5)
    assert gap.share == pytest.approx(2 / 6)
    more = measure(block(), block() - block(z=(2, 3)))
    assert more.superfluous == (2,) and more.share == pytest.approx(1 / 6)
    moved = measure(block(), block(x=(12, 24)))
    assert moved.moved == tuple(range(2, 8)) and not moved.empty and not moved.superfluous
    # Of 12 columns 8 are not shared on either side, two of which are within 2 mm.
    assert moved.share == pytest.approx((6 + 6) / 20)


def test_a_swap_is_called_by_its_name():
    swapped = measure(block(), block(label=2))
    assert swapped.called == "b" and swapped.share == 1
    assert measure(block(), np.zeros_like(block())).called == ""


@pytest.mark.parametrize("seed", range(3))
def test_shares_equal_brute_force(seed):
    rng = np.random.default_rng(seed)
    truth, predicted = (rng.random((2, 4, 9, 8)) < 0.25).astype(np.uint8)
    predicted[2] = 0
    sure = rng.random(truth.shape) < 0.8
    disputed = 0
    for z, y, x in np.argwhere((truth != predicted) & sure):
        other = np.argwhere((predicted if truth[z, y, x] else truth)[z])
        disputed += all(math.hypot((a - y) * MM[1], (b - x) * MM[2]) > 2.0 for a, b in other)
    expected = disputed / (truth | predicted).sum()
    assert measure(truth, predicted, sure).share == pytest.approx(expected) and expected > 0


def test_the_ranking_goes_by_what_is_more_than_usual_for_the_organ():
    shares = {"a": [0.4, 0.4, 0.45], "b": [0.0, 0.01, 0.2]}
    disputes = [
        suspicion.Dispute(f"P{number}", organ, share)
        for organ, values in shares.items()
        for number, share in enumerate(values)
    ]
    ranked = suspicion.rank(disputes)
    assert [(s.dispute.organ, s.dispute.patient) for s in ranked[:2]] == [("b", "P2"), ("a", "P2")]
    assert len(ranked) == 6 and ranked[0].score == pytest.approx(0.19)


def test_runs_of_neighbours():
    assert suspicion.group_runs([]) == []
    assert suspicion.group_runs([1, 2, 3, 7, 9, 10]) == [(1, 3), (7, 7), (9, 10)]


PLANTED = {"P02": "gap", "P04": "third", "P07": "swap", "P08": "shift"}


def test_planted_errors_are_the_first_suspects_with_their_slices_and_reason():
    """The network outlines all patients alike: off by noise at the edges, where it is unsure."""
    disputes, wanted, true_slices = [], set(), {}
    for number in range(10):
        name = f"P{number:02d}"
        made = phantom.make(number, "small", SEGTHOR, axcodes="LPS")
        spacing_mm = tuple(np.linalg.norm(made.affine[:3, :3], axis=0)[::-1])
        network = made.labels.transpose(2, 1, 0)
        rng = np.random.default_rng(number)
        network = np.where(rng.random(network.shape) < 0.1, np.roll(network, 1, 2), network)
        edges = sum(np.roll(network, step, axis) != network for step in (-1, 1) for axis in (1, 2))
        truth = made.labels.transpose(2, 1, 0)
        if name in PLANTED:
            truth, wrong = planted.plant(truth, PLANTED[name], spacing_mm, SEGTHOR.numbers)
            wanted |= {(name, organ) for organ in wrong}
            changed = (truth != made.labels.transpose(2, 1, 0)).any((1, 2))
            true_slices[name] = set(np.flatnonzero(changed).tolist())
        prediction = out_of_fold.SurePrediction(network, edges == 0)
        contours = file_order.on_grid(truth, spacing_mm)
        disputes += [
            suspicion.measure(name, contours, prediction, organ, SEGTHOR) for organ in SEGTHOR
        ]
    ranked = suspicion.rank(disputes)
    assert len(wanted) == 5  # the swap is two contours: the esophagus, and the aorta that is gone
    first = {(one.dispute.patient, one.dispute.organ): one for one in ranked[:5]}
    assert set(first) == wanted
    for (name, _), suspect in first.items():
        assert set(suspect.dispute.slices) <= true_slices[name]
    assert set(first["P02", "esophagus"].dispute.empty) == true_slices["P02"]
    assert "no contour in 5 slices where one is expected" in first["P02", "esophagus"].reason
    assert "most of it is called aorta" in first["P07", "esophagus"].reason
    assert "another outline in" in first["P08", "aorta"].reason
    assert ranked[5].score < 0.5 * ranked[4].score


FOLDS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset of six patients and two real folds, trained for two steps."""
    folder = tmp_path_factory.mktemp("suspects")
    slices.make(folder / "data", size=96, folds=FOLDS, contoured={"Patient_02": ("heart",)})
    command = ["-m", "trainer.cross_validate", f"--data={folder / 'data'}", *NETWORK]
    flags = ["--steps=2", "--organs=heart,aorta", f"--workdir={folder / 'runs'}"]
    finish([start([*command, *flags, *slices.NO_AUGMENTATION], tiny=True)])
    return folder


def suspects(folder, output="out", **flags):
    given = {"runs": folder / "runs", "data": folder / "data", "output": folder / output}
    return run(["-m", "serving.suspects", *as_flags(**given | flags)], tiny=True)


def rows(folder, output="out"):
    with open(folder / output / "suspects.csv") as stream:
        return list(csv.DictReader(stream))


def test_every_contour_is_ranked_by_a_network_that_did_not_see_it_and_nothing_is_predicted_twice(
    folder,
):
    done = suspects(folder)
    assert done.returncode == 0, done.stderr
    found = rows(folder)
    # Six patients of two organs, of whom one has the heart alone.
    assert len(found) == 11 and len({(row["patient"], row["organ"]) for row in found}) == 11
    scores = [float(row["score"]) for row in found]
    assert scores == sorted(scores, reverse=True)
    assert done.stdout.splitlines()[-1].startswith("Next: python -m beam_jobs.build")
    assert "[3/3]" in done.stdout

    kept = sorted((folder / "out" / "out_of_fold").iterdir())
    assert [path.stem for path in kept] == [f"Patient_{n:02d}" for n in range(1, 7)]
    stamps = {path: path.stat().st_mtime_ns for path in kept}
    kept[0].unlink()
    kept[1].write_bytes(kept[1].read_bytes()[:-50])
    killed_while_writing(kept[2])
    before = (folder / "out" / "suspects.csv").read_bytes()
    assert suspects(folder).returncode == 0
    assert (folder / "out" / "suspects.csv").read_bytes() == before
    assert sorted((folder / "out" / "out_of_fold").iterdir()) == kept
    same = [path.stat().st_mtime_ns == stamps[path] for path in kept]
    assert same == [False, False, True, True, True, True]


def read_all(folder, dataset):
    return [one for s in dataset.shards for one in out_of_fold.read(str(folder), dataset, s)]


def test_a_shard_of_many_patients_is_decoded_once(tmp_path, monkeypatch):
    dataset = slices.make(tmp_path)
    alone = {row.patient: stored for row, stored in read_all(tmp_path, dataset)}
    merged = tmp_path / "merged.tfrecord"
    merged.write_bytes(b"".join((tmp_path / shard.file).read_bytes() for shard in dataset.shards))
    names = tuple(alone)[:-1]  # a patient of another shard in this file is passed over
    shard = dataclasses.replace(dataset.shards[0], file=merged.name, patients=names)

    decoded = []
    decode = records.decode
    monkeypatch.setattr(records, "decode", lambda data: decoded.append(1) or decode(data))
    together = list(out_of_fold.read(str(tmp_path), dataset, shard))
    assert len(decoded) == sum(row.slices for row in dataset.patients)
    assert [row.patient for row, _ in together] == list(names)
    for row, stored in together:
        other = alone[row.patient]
        np.testing.assert_array_equal(stored.images, other.images)
        np.testing.assert_array_equal(stored.labels.zyx, other.labels.zyx)
        np.testing.assert_array_equal(stored.labels.grid.affine, other.labels.grid.affine)
        assert stored.labels.organs == other.labels.organs == dataset.organs
        assert (stored.level_hu, stored.width_hu) == (other.level_hu, other.width_hu)

    (row, _), *rest = together
    rows = [dataclasses.replace(one, slices=99) if one == row else one for one in dataset.patients]
    short = dataclasses.replace(dataset, patients=tuple(rows))
    (_, problem), *others = out_of_fold.read(str(tmp_path), short, shard)
    assert f"expected 99 slices of {row.patient}" in str(problem)
    assert [stored.images.shape for _, stored in others] == [s.images.shape for _, s in rest]


def by_hand(folder, output, key, wrong):
    """Predictions as sure as can be: the truth, but for one patient whose aorta is elsewhere."""
    dataset = Dataset.load(str(folder / "data"))
    for patient, stored in read_all(folder / "data", dataset):
        truth = stored.labels.zyx
        if patient.patient == wrong:
            truth = np.where(truth == 4, 0, truth).astype(np.uint8)
            truth[:, :8, :8][truth[:, :8, :8] == 0] = 4
        found = out_of_fold.SurePrediction(truth, np.ones(truth.shape, bool))
        out_of_fold.save(str(folder / output), patient.patient, key(patient), found)


def test_one_contour_that_a_sure_network_contradicts_leads_table_and_page(folder):
    assert suspects(folder, "hand").returncode == 0  # leaves predictions, whose keys are taken over

    def key(patient):
        with np.load(folder / "hand" / "out_of_fold" / f"{patient.patient}.npz") as kept:
            return str(kept["key"])

    by_hand(folder, "hand", key, wrong="Patient_04")
    done = suspects(folder, "hand", shown=2)
    assert done.returncode == 0, done.stderr
    first, second, *_ = rows(folder, "hand")
    assert (first["patient"], first["organ"]) == ("Patient_04", "aorta")
    assert float(first["score"]) > 0.5 and "in dispute, usually 0%" in first["reason"]
    assert first["slices"] and float(second["score"]) == 0
    html = (folder / "hand" / "suspects.html").read_text()
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    entry, _ = data["patients"]  # as many as were asked for
    assert entry["name"] == "Patient_04" and str(folder) not in html
    question, *_ = entry["questions"]
    assert question["organ"] == "aorta" and question["reason"] == first["reason"]
    shown = [f"{low + 1 + entry['first']}-{high + 1 + entry['first']}".replace("-", "-", 1)
             if high > low else f"{low + 1 + entry['first']}"
             for low, high in question["slices"]]  # fmt: skip
    assert " ".join(shown) == first["slices"]
    assert [organ["name"] for organ in data["organs"]] == ["heart", "aorta"]


def test_a_damaged_shard_costs_its_patient_alone(folder, tmp_path):
    dataset = Dataset.load(str(folder / "data"))
    shard = dataset.shard_of("Patient_03")
    path = folder / "data" / shard.file
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-7])
        done = suspects(folder, "damaged")
    finally:
        path.write_bytes(content)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "FAILED: Patient_03: " in done.stdout and shard.file in done.stdout
    assert {row["patient"] for row in rows(folder, "damaged")} == {
        f"Patient_{number:02d}" for number in (1, 2, 4, 5, 6)
    }


def test_runs_of_another_dataset_or_fold_are_refused_in_one_line(folder, tmp_path):
    def refused(message, **flags):
        done = suspects(folder, tmp_path / "out", **flags)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ") and message in line, line
        assert not (tmp_path / "out").exists()

    slices.make(tmp_path / "other", size=96, folds=FOLDS, seed=1)
    refused("its network may have been trained on", data=tmp_path / "other")
    (tmp_path / "runs").mkdir()
    for fold in range(FOLDS):  # the folds exchanged
        (tmp_path / "runs" / f"fold_{fold}").symlink_to(folder / "runs" / f"fold_{1 - fold}")
    refused("is not a run of fold 0", runs=tmp_path / "runs")
    refused("expected a run of trainer.main", runs=tmp_path / "nowhere")
    done = suspects(folder, "data")
    assert done.returncode == 2 and "--data is read there" in done.stderr


DAMAGED = [
    ("run.json", b""),
    ("run.json", b"[[1], [2]]"),
    ("run.json", b'{"config": []}'),
    ("run.json", None),
    ("summary.json", b"[1]"),
    ("summary.json", b"{"),
    ("best/checkpoint", None),
    ("best/checkpoint", b""),
    ("best/checkpoint", b"\xff\xfe: 1"),
    ("best/checkpoint", b'model_checkpoint_path: "nothing"'),
]


@pytest.mark.parametrize("program", ["serving.suspects", "serving.calibrate"])
def test_a_damaged_run_is_one_line(folder, tmp_path, program):
    """Also for the program that calibrates, whose model must not have seen the patients either."""
    shutil.copytree(folder / "runs", tmp_path / "runs")
    given = {"runs": tmp_path / "runs", "data": folder / "data", "output": tmp_path / "out"}

    def refuse(message):
        done = run(["-m", program, *as_flags(**given)], tiny=True)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ") and message in line, line

    for name, content in DAMAGED:
        path = tmp_path / "runs" / "fold_1" / name
        healthy = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        refuse(str(path.parent))
        path.write_bytes(healthy)
    given["data"] = tmp_path / "other"
    slices.make(tmp_path / "other", size=96, folds=FOLDS, seed=1)
    refuse("is not a run of fold 0")
    if program == "serving.calibrate":
        given["data"] = folder / "data"
        (tmp_path / "runs" / "fold_1" / "summary.json").unlink()
        refuse("expected a finished run of every fold")
