"""The one door for outputs: every program, every path that it must not write to."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from programs import ROOT, run

from segthor import csv_files, drawing, json_files, outputs, plots
from segthor.errors import InputError

# Program -> flag of the output, what it writes ('' for a folder), flags of what it reads, others.
PROGRAMS = {
    "beam_jobs.build": ("output", "", ("input", "level_masks"), ()),
    "beam_jobs.inspect": ("output", "", ("data",), ()),
    "segthor.phantom": ("output", "", (), ("--patients=1", "--test_patients=0")),
    "serving.calibrate": ("output", "", ("runs", "data", "model"), ()),
    "serving.convert": ("output", "", ("predictions", "scans"), ()),
    "serving.evaluate": ("output", "", ("predictions", "labels", "scans", "compare"), ()),
    "serving.export": ("output", "", ("workdir",), ()),
    "serving.follow": ("output", "", ("drafts", "approved"), ()),
    "serving.node": ("spool", "", ("rules", "peers", "watch"), ()),
    "serving.predict": ("output", "", ("model", "input", "gate", "level_model"), ()),
    "serving.report": ("output", "", ("predictions", "scans", "labels"), ()),
    "serving.submission": ("output", "entry.zip", ("predictions", "scans"), ()),
    "serving.suspects": ("output", "", ("runs", "data"), ()),
    "trainer.cross_validate": ("workdir", "", ("data",), ()),
    "trainer.learning_curve": ("workdir", "", ("data",), ("--steps=1",)),
    "trainer.main": ("workdir", "", ("data",), ()),
    "trainer.preview": ("output", "preview.png", ("data",), ()),
}
RESULTS = {  # whole folders, each by the file that marks it
    outputs.DATASET: ("dataset/dataset.json", '{\n"format": 3,\n"recipe": {},\n"shards": []\n}\n'),
    outputs.RUN: ("run/run.json", '{\n"config": {},\n"recipe": {}\n}\n'),
    outputs.PREDICTIONS: ("label_maps/predictions.json", '{\n"format": 1,\n"models": ["0"]\n}\n'),
    outputs.PHANTOMS: (
        "phantoms/phantoms.json",
        '{\n"version": 1,\n"size": "small",\n"seed": 0,\n"patients": 1\n}\n',
    ),
    outputs.MODEL: ("model/1/saved_model.pb", "a graph"),
}
OWN = {
    "beam_jobs.build": outputs.DATASET,
    "segthor.phantom": outputs.PHANTOMS,
    "serving.export": outputs.MODEL,
    "serving.predict": outputs.PREDICTIONS,
    "trainer.main": outputs.RUN,
}
# Files of the names that programs write, by somebody else.
FOREIGN = (
    *("approved.csv", "follow.csv", "follow.html", "months.csv", "unchanged.csv"),
    *("audit.csv", "audit.html", "comparison.json", "cross_validation.csv", "dataset.json"),
    *("entry.zip", "histograms.png", "learning_curve.csv", "learning_curve.png", "letter.txt"),
    *("overlay.png", "patients.csv", "phantoms.json", "predictions.csv", "predictions.json"),
    *("preview.png", "reliability.png", "report.html", "run.json", "scores.csv", "scores.json"),
    *("scan_rtstruct.dcm", "slices.png", "suspects.csv", "suspects.html"),
)


def bad_outputs(program: str, folder: Path) -> dict[str, str]:
    """Name of a case to the output's path."""
    flag, file, reads, _ = PROGRAMS[program]
    cases = {
        "too long": "x/" * 3000,
        "empty": "",
        "blank": " ",
        "foreign": str(folder / "mine" / file).rstrip("/"),
    }
    cases["a file" if not file else "a folder"] = str(folder / ("letter" if not file else "mine"))
    for name in () if file else reads:  # a file may lie beside the scans
        cases[name] = str(folder / f"read_{name}")
        cases[f"linked to {name}"] = str(folder / f"link_{name}")
    for result, (path, _) in RESULTS.items():
        if result != OWN.get(program):
            cases[result] = str(folder / path.split("/")[0] / file).rstrip("/")
    cases["in a run"] = str(folder / "run" / "new" / file).rstrip("/")
    return cases


def files_of(folder: Path) -> dict:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_program_writes_where_it_must_not(program, tmp_path):
    flag, _, reads, others = PROGRAMS[program]
    for path, text in RESULTS.values():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "letter").write_text("dear")
    (tmp_path / "mine").mkdir()
    for name in FOREIGN:
        (tmp_path / "mine" / name).write_text('{"labels": {"heart": 2}}')
    for name in reads:
        (tmp_path / f"read_{name}").mkdir()
        (tmp_path / f"read_{name}" / "scan.nii.gz").write_text("the only copy")
        (tmp_path / f"link_{name}").symlink_to(f"read_{name}")
    given = [f"--{name}={tmp_path / f'read_{name}'}" for name in reads]
    before = files_of(tmp_path)
    for case, path in bad_outputs(program, tmp_path).items():
        done = run(["-m", program, *given, *others, f"--{flag}={path}"], cwd=tmp_path)
        if (program, case) == ("serving.convert", "foreign"):  # found patient by patient
            assert done.returncode == 1 and "scan_rtstruct.dcm: exists" in done.stdout
            continue
        assert done.returncode == 2 and done.stderr.startswith("error: "), (case, done.stderr)
        assert len(done.stderr.splitlines()) == 1, (case, done.stderr)
        assert f"--{flag}" in done.stderr or case == "foreign", (case, done.stderr)
    assert files_of(tmp_path) == before


def test_every_program_with_an_output_is_tried():
    """Those that write nothing, or into the model that they are given, are named here."""
    nothing = {"beam_jobs.verify", "segthor.doctor", "serving.tune", "trainer.doctor"}
    entries = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for package in ("segthor", "beam_jobs", "trainer", "serving")
        for path in (ROOT / package).rglob("*.py")
        if 'if __name__ == "__main__":' in path.read_text() and path.stem != "startup_filter"
    }
    assert entries == set(PROGRAMS) | nothing


def test_an_input_that_a_shell_left_empty_builds_no_phantoms(tmp_path):
    done = run(["-m", "beam_jobs.build", "--input=", f"--output={tmp_path / 'out'}"])
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert done.stderr == "error: --input=: expected a folder or a CSV, found nothing\n"


def test_a_program_knows_what_it_wrote_itself(tmp_path):
    png, figure, table, facts, rows, archive = (
        str(tmp_path / name) for name in ("a.png", "b.png", "c.csv", "d.json", "e.json", "f.zip")
    )
    drawing.save_png(png, np.zeros((4, 5, 3), np.uint8))
    plots.save(plots.new_figure(figsize=(1, 1)), figure)
    csv_files.write_table(table, [{"": "fold 0", "heart": 0.5, "mean": 0.5}])
    json_files.write(facts, {"mean": {"dice": 0.9}, "organs": {}, "patients": [1, 2]})
    json_files.write(rows, [{"organ": "heart", "score": "dice", "mean": 0.5}])
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("Patient_41.nii", b"0")
    kinds = {
        png: outputs.picture,
        figure: outputs.picture,
        table: outputs.csv_with("", "mean"),
        facts: outputs.json_with("mean", "organs"),
        rows: outputs.json_rows_with("organ", "score"),
        archive: outputs.archive_of(".nii"),
    }
    for path, kind in kinds.items():
        assert [one for one in kinds if kinds[one] is kind and not kind(one)] == []
        others = [one for one in kinds if kinds[one] is not kind and kind(one)]
        assert others == [], (path, others)
    json_files.write(rows, [])
    assert outputs.json_rows_with("organ", "score")(rows)


def test_an_interrupted_or_new_folder_is_taken(tmp_path):
    for path in (tmp_path / "new", tmp_path / "new" / "deep", tmp_path):
        outputs.check_folder(str(path), {"input": str(tmp_path / "scans")}, own=outputs.DATASET)
    (tmp_path / outputs.PREDICTIONS).mkdir()
    assert outputs.result_in(str(tmp_path)) == ""


def test_on_an_object_store_as_on_a_disk(tmp_path):
    root = f"memory://{tmp_path.name}"
    json_files.write(f"{root}/data/dataset.json", {"format": 3, "recipe": {}})
    outputs.check_folder(f"{root}/data", {}, own=outputs.DATASET)
    for path, inputs in (
        (f"{root}/data", {}),
        (f"{root}/data/deep/er", {}),
        (f"{root}/scans", {"input": f"{root}/scans/"}),
    ):
        with pytest.raises(InputError, match="^--output=memory://.*name another"):
            outputs.check_folder(path, inputs, own=outputs.RUN)
