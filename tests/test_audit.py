"""The audit: each damage is found under its code, healthy patients raise no reject."""

import ast
from pathlib import Path

import dicom_damage
import numpy as np
import pytest
from damage import CT, DAMAGES, GT, _header, check_findings, healthy
from scipy import ndimage

from beam_jobs.examine import examine
from beam_jobs.job import Job
from segthor import audit, figures, findings, nifti, organ_table, phantom, relabel
from segthor.errors import InputError
from segthor.figures import OrganFigures
from segthor.organs import SEGTHOR, Organ, Organs
from segthor.patients import Patient
from segthor.recipe import Recipe, prepare
from segthor.volume import Grid, LabelMap
from tests import file_order

JOB = Job("unused", Recipe(crop_mm=288, pixel_mm=9), organs=SEGTHOR)
# Those that need more than one patient, one moment or one list of organs; tested elsewhere.
ELSEWHERE = {
    "roi_names_unmatched",
    "bad_name",
    "unforeseen",
    "file_changed",
    "same_scan",
    "organ_not_declared",
    "organ_cut",
    "cannot_prepare",
}


def examined(folder, **changes):
    source = Patient(
        "P",
        str(folder / "ct.nii.gz"),
        str(folder / "gt.nii.gz"),
        **{"organs": SEGTHOR.names} | changes,
    )
    return examine(source, JOB)


def codes(found):
    return {finding.code for finding in found.findings}


def test_the_undamaged_patient_raises_nothing(tmp_path):
    healthy(tmp_path)
    assert examined(tmp_path).findings == ()


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_found_under_its_code(tmp_path, name):
    code, spoil = DAMAGES[name]
    healthy(tmp_path)
    spoil(tmp_path)
    check_findings(examined(tmp_path), code)


def test_both_corpora_together_hold_every_code():
    assert len(DAMAGES) >= 40 and len(dicom_damage.DAMAGES) >= 40
    found = [code for code, _ in (*DAMAGES.values(), *dicom_damage.DAMAGES.values())]
    assert {*found} | ELSEWHERE == set(findings.CODES)


def test_an_organ_that_was_not_declared_is_named(tmp_path):
    healthy(tmp_path)
    assert codes(examined(tmp_path, organs=("heart",))) == {"organ_not_declared"}


def test_a_file_that_changes_while_it_is_read_is_rejected(tmp_path, monkeypatch):
    healthy(tmp_path)
    read = nifti.read

    def slowly(path, *rest):
        scan = read(path, *rest)
        with open(path, "ab") as stream:
            stream.write(b"\0")
        return scan

    monkeypatch.setattr("segthor.nifti.read", slowly)
    assert codes(examined(tmp_path)) == {"file_changed"}


@pytest.mark.parametrize(("unit", "word", "mm"), [(3, "micron", "0.0065x"), (1, "meter", "6500x")])
def test_a_unit_that_does_not_fit_the_numbers_is_named(tmp_path, unit, word, mm):
    healthy(tmp_path)
    for name in (CT, GT):
        _header(tmp_path, name, xyzt_units=unit)
    (said,) = [f.message for f in examined(tmp_path).findings if f.code == "spacing_absurd"]
    assert f"the header's unit is {word}" in said and mm in said
    scan = nifti.read(str(tmp_path / CT))
    if word == "micron":  # as prediction meets it, which audits no grid
        with pytest.raises(InputError, match="no body found.*0.0095 x 0.0065 x 0.0065 mm"):
            prepare(scan, Recipe())


def test_a_unit_of_micron_with_the_smallest_voxels_is_no_broken_affine(tmp_path):
    affine = np.diag([-0.3, -0.3, 0.5, 1])
    file_order.write(str(tmp_path / "x.nii"), np.zeros((4, 4, 4)), Grid((4,) * 3, affine))
    content = bytearray((tmp_path / "x.nii").read_bytes())
    content[123] = 3  # xyzt_units
    (tmp_path / "x.nii").write_bytes(content)
    assert file_order.read(str(tmp_path / "x.nii")).grid.spacing_mm == pytest.approx(
        (5e-4, 3e-4, 3e-4)
    )


def test_air_alone_cannot_be_prepared(tmp_path):
    healthy(tmp_path)
    job = Job(
        "unused",
        JOB.recipe,
        severities=(("hu_scale", "ignore"), ("organ_hu", "ignore")),
        organs=SEGTHOR,
    )
    path = str(tmp_path / "ct.nii.gz")
    ct = file_order.read(path)
    air = np.where(ct.array % 2, -1000, -900).astype(np.int16)
    file_order.write(path, air, ct.grid)
    source = Patient("P", path, str(tmp_path / "gt.nii.gz"), organs=SEGTHOR.names)
    assert "cannot_prepare" in codes(examine(source, job))


@pytest.mark.parametrize("size", ["tiny", "small"])
@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_healthy_phantoms_raise_no_reject(size, seed):
    for number in range(seed, seed + (4 if size == "tiny" else 1)):
        made = phantom.make(number, size)
        found = (
            audit.grid_findings(made.volume.grid)
            + audit.image_findings(figures.measure_image(made.volume.zyx))
            + audit.organ_findings(
                figures.measure_organs(made.volume, made.label_map), SEGTHOR.names, organs=SEGTHOR
            )
        )
        assert not findings.is_rejected(found), (number, found)


def test_real_ct_raises_no_reject(real_ct):
    for name, contoured in (
        ("lung1_002", ("esophagus", "heart")),
        ("aorta_dissection_crop", ("heart", "aorta")),
    ):
        ct = nifti.read(str(real_ct / name / "ct.nii.gz"))
        contours = nifti.read(str(real_ct / name / "labels.nii.gz"))
        labels = LabelMap(contours.zyx, contours.grid, SEGTHOR)
        measured = figures.measure_organs(ct, labels)
        found = audit.grid_findings(ct.grid) + audit.pair_findings(ct.grid, contours.grid)
        found += audit.image_findings(figures.measure_image(ct.zyx))
        found += audit.organ_findings(measured, contoured, organs=SEGTHOR)
        assert not findings.is_rejected(found), found
        assert name != "lung1_002" or not found


@pytest.mark.parametrize("seed", range(3))
def test_both_altered_copies_that_circulate_are_rejected(seed):
    """A heart turned by 27 degrees and shifted by (50, 40, 15) voxels; an aorta within label 1."""
    made = phantom.make(seed, "small", axcodes="LPS", oblique_deg=0.0)
    spacing = np.linalg.norm(made.affine[:3, :3], axis=0)
    # The copy's voxels are those of a full-size scan: about 0.98 x 0.98 x 2.5 mm.
    shift = np.rint(np.array([50, 40, 15]) * (0.98, 0.98, 2.5) / spacing).astype(int)
    for signs in ((1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)):
        for degrees in (27, -27):
            heart = ndimage.rotate(made.labels == 2, degrees, (0, 1), reshape=False, order=0)
            heart = ndimage.shift(heart, shift * signs, order=0)
            labels = np.where(made.labels == 2, 0, made.labels)
            labels[heart] = 2
            measured = figures.measure_organs(
                made.volume, file_order.label_map(labels, made.affine)
            )
            assert findings.is_rejected(
                audit.organ_findings(measured, SEGTHOR.names, organs=SEGTHOR)
            ), (
                signs,
                degrees,
            )
    merged = np.where(made.labels == 4, 1, made.labels).astype(np.uint8)
    measured = figures.measure_organs(made.volume, file_order.label_map(merged, made.affine))
    found = audit.organ_findings(measured, SEGTHOR.names, organs=SEGTHOR)
    assert {"organ_missing", "organ_volume"} <= {one.code for one in found}


THORAX = organ_table.read("configs/organs/thorax.csv")


def mirrored(places, organs=THORAX):
    """What the audit says of organs with these centres, which are else as they should be."""
    measured = {name: OrganFigures(1, 1, 1, 1, 0, place) for name, place in places.items()}
    found = audit.organ_findings(measured, [], organs)
    return [one.message for one in found if one.code == "anatomy_mirrored"]


@pytest.mark.parametrize(
    "places, said",
    [
        ({"lung_left": (60, 0, 0), "lung_right": (-60, 0, 0)}, []),
        ({"lung_left": (-60, 0, 0), "lung_right": (60, 0, 0)}, ["left lies 120 mm right of the"]),
        ({"lung_left": (-3, 0, 0), "lung_right": (0, 0, 0)}, []),
        ({"lung_right": (30, 0, 0), "spinal_cord": (0, 0, 0)}, ["right lies 30 mm left of the sp"]),
        ({"lung_right": (30, 0, 0)}, []),
        ({"heart": (-9, 0, 0), "trachea": (0, 0, 9), "esophagus": (-20, 9, 0)}, ["9 mm right"]),
        ({"heart": (9, 0, 9), "trachea": (0, 0, 0)}, ["heart lies 9 mm above the trachea, expec"]),
        ({"heart": (9, 9, 0), "esophagus": (0, 0, 0)}, ["9 mm behind the esophagus, expected in"]),
    ],
)
def test_organs_lie_beside_one_another_as_the_table_says(places, said):
    found = mirrored(places)
    assert len(found) == len(said)
    assert all(words in message for words, message in zip(said, found, strict=True))
    assert not mirrored(places, Organs(tuple(Organ(o.name, o.label, o.rgb) for o in THORAX)))


def test_what_the_table_gives_no_range_for_is_not_checked():
    strange = {"gut": OrganFigures(1e6, 1e6, -5000, 999, 0, (0.0, 0.0, 0.0))}
    assert not audit.organ_findings(strange, ["gut"], Organs((Organ("gut", 1, (0, 0, 0)),)))
    (found,) = audit.organ_findings(
        strange, ["gut"], Organs((Organ("gut", 1, (0, 0, 0), max_components=4),))
    )
    assert found.message == "gut: 999 pieces; plausible are 1 to 4"


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.uint16])
def test_only_the_tables_label_values_stand_for_organs(kind):
    organs = Organs((Organ("gut", 200, (0, 0, 0)), Organ("liver", 3, (0, 0, 0))))
    stored = np.array([0, 3, 200], kind).reshape(3, 1, 1)
    labels, found = relabel.to_labels(stored, organs=organs)
    assert labels.ravel().tolist() == [0, 3, 200] and labels.dtype == np.uint8 and not found
    for value in (1, 199, 201):
        stored[0] = value
        labels, found = relabel.to_labels(stored, organs=organs)
        said = f"label values [{kind(value).item()}] stand for no organ; expected 0, 3, 200"
        assert labels is None and found[0].message == said


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "ASL", "SPR"])
def test_figures_are_those_counted_voxel_by_voxel(axcodes):
    made = phantom.tiny(5, axcodes=axcodes)
    spacing = np.linalg.norm(made.affine[:3, :3], axis=0)
    z_axis = int(np.argmax(np.abs(made.affine[2, :3])))
    to_lps = np.diag([-1.0, -1, 1]) @ made.affine[:3, :3]
    measured = figures.measure_organs(made.volume, made.label_map)
    assert set(measured) == set(SEGTHOR.names)
    for label, name in enumerate(SEGTHOR.names, 1):
        voxels = np.argwhere(made.labels == label)
        one = measured[name]
        assert one.volume_cm3 == pytest.approx(len(voxels) * np.prod(spacing) / 1000, abs=0.01)
        inside = made.hu[tuple(voxels.T)]
        assert one.mean_hu == pytest.approx(inside.astype(float).mean(), abs=0.06)
        levels = np.unique(voxels[:, z_axis])
        assert one.extent_z_mm == pytest.approx((np.ptp(levels) + 1) * spacing[z_axis], abs=0.1)
        assert one.gaps == np.ptp(levels) + 1 - len(levels)
        assert one.components == ndimage.label(made.labels == label, np.ones((3, 3, 3)))[1]
    offsets = [np.array(measured[name].center_lps_mm) for name in SEGTHOR.names]
    means = [to_lps @ np.argwhere(made.labels == label).mean(0) for label in range(1, 5)]
    for one, other in zip(offsets[1:], means[1:], strict=True):
        turned = to_lps / spacing  # exact for axes along the patient's
        if np.allclose(np.abs(turned).max(0), 1, atol=1e-6):
            np.testing.assert_allclose(one - offsets[0], other - means[0], atol=0.3)


@pytest.mark.parametrize("padding_hu", [-1024, -2000, -3024])
def test_padding_about_a_round_field_of_view_is_no_finding(padding_hu):
    hu = phantom.tiny(2, padding_hu=padding_hu).volume.zyx
    assert np.count_nonzero(hu == padding_hu) > hu.size / 6
    assert audit.image_findings(figures.measure_image(hu)) == []
    hu[8, 20:23, :3] = padding_hu - 48  # streaks below it
    assert audit.image_findings(figures.measure_image(hu)) == []


def test_severities_are_checked():
    findings.check_severities({"metal": "reject", "organ_volume": "warn", "padding": "ignore"})
    for wrong in ({"nothing": "warn"}, {"metal": "fatal"}, {"shape_mismatch": "warn"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            findings.check_severities(wrong)


def test_judging_changes_severities_drops_the_ignored_and_puts_rejects_first():
    found = [
        findings.Finding.of(code, "x") for code in ("metal", "organ_hu", "padding", "organ_gap")
    ]
    judged = findings.judge(found, {"organ_gap": "reject", "padding": "ignore"})
    assert [(one.code, one.severity) for one in judged] == [
        ("organ_hu", "reject"), ("organ_gap", "reject"), ("metal", "warn"),
    ]  # fmt: skip


def test_every_code_is_used_and_listed_in_the_docs():
    root = Path(__file__).resolve().parents[1]
    modules = ("audit", "findings", "nifti", "relabel", "unpack")
    paths = [root / "beam_jobs/examine.py", *(root / f"segthor/{name}.py" for name in modules)]
    text = "".join(path.read_text() for path in (*paths, *(root / "segthor/dicom").glob("*.py")))
    strings = [n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant)]
    for code in findings.CODES:
        assert strings.count(code) >= 2 or code in ("cannot_prepare", "same_scan", "file_changed")
    docs = (root / "docs/data.md").read_text()
    for code, (severity, meaning) in findings.CODES.items():
        assert f"| `{code}` | {severity} | {meaning} |" in docs
