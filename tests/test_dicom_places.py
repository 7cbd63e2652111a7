"""Places of DICOM images: a tree, a folder, one series of a folder, one file; and what is none."""

import functools
import hashlib
import hmac
import shutil
from pathlib import Path

import dicom_damage
import numpy as np
import pytest
from damage import healthy_phantom

from segthor import inputs, scans
from segthor.dicom.index import series_name
from segthor.errors import InputError
from segthor.organs import SEGTHOR
from tests import dicom_phantoms


@pytest.fixture
def healthy(tmp_path):
    dicom_damage.healthy(tmp_path)
    return tmp_path


def voxels(place):
    return scans.read(place).zyx


def phantom_voxels():
    return healthy_phantom().volume.zyx


def test_one_series_of_a_folder_is_an_input_and_has_contours_where_it_was_drawn_on(healthy):
    made = healthy_phantom()
    dicom_phantoms.write_series(healthy / "ct", made.hu[::-1], made.affine, series="2")
    for series, labels in (("1", str(healthy / "rs.dcm")), ("2", "")):
        place = f"{healthy}#{series_name(dicom_phantoms.uid('series', series))}"
        (found,) = inputs.find(place, organs=SEGTHOR)
        assert (found.ct, found.labels, found.fault) == (place, labels, "")
        assert np.array_equal(voxels(place), phantom_voxels()) == (series == "1")
        (found,) = inputs.find(place, organs=None)
        assert (found.ct, found.labels) == (place, "")


def test_an_enhanced_file_is_an_input_whatever_lies_beside_it(tmp_path):
    dicom_damage.healthy(tmp_path, enhanced=True)
    (path,) = dicom_damage.slices(tmp_path)
    made = healthy_phantom()
    options = dict(enhanced=True, series="2", patient="2", frame="2")
    dicom_phantoms.write_series(tmp_path / "ct", made.hu[::-1], made.affine, **options)
    (found,) = inputs.find(str(path), organs=SEGTHOR)
    assert found.ct == str(path)
    np.testing.assert_array_equal(voxels(found.ct), phantom_voxels())


@pytest.mark.parametrize(
    "place, said",
    [
        ("gone#12345678", "no such folder or file"),
        ("gone.dcm", "no such folder or file"),
        ("ct#12345678", "expected the series 12345678, found others"),
        ("rs.dcm", "expected at least one scan, found none; left aside: 1 structure set without"),
    ],
)
def test_a_place_without_a_series_is_one_line(healthy, place, said):
    with pytest.raises(InputError, match=said) as error:
        inputs.find(f"{healthy}/{place}", organs=SEGTHOR)
    assert "\n" not in str(error.value)


def test_a_table_may_have_the_mark_of_a_series_in_its_name(healthy):
    dicom_damage.table(healthy)
    table = (healthy / "patients.csv").rename(healthy / "patients#2.csv")
    (found,) = inputs.find(str(table), organs=SEGTHOR)
    assert found.ct == str(healthy / "ct")


def test_a_single_image_is_refused_by_its_own_folder(healthy):
    dicom_damage.a_single_image(healthy)
    (found,) = inputs.find(str(healthy), organs=SEGTHOR)
    assert (found.ct, found.fault_code) == (str(healthy / "ct"), "few_slices")


def test_a_link_to_nothing_is_the_fault_of_the_patient_it_lies_with_alone(tmp_path):
    for name in "AB":
        names = dict.fromkeys(("patient", "study", "series", "frame"), name)
        dicom_damage.healthy(tmp_path / name, **names)
    (tmp_path / "A/ct/IM1").symlink_to(tmp_path / "gone")
    one, other = inputs.find(str(tmp_path), organs=SEGTHOR)
    assert (one.fault_code, other.fault) == ("file_damaged", "")
    assert str(tmp_path / "A/ct/IM1") in one.fault and scans.size(one.ct) > 0
    shutil.move(tmp_path / "A/ct/IM1", tmp_path / "IM1")  # now nobody can tell whose it is
    assert [found.fault for found in inputs.find(str(tmp_path), organs=SEGTHOR)] == ["", ""]


def test_a_patient_of_damaged_files_alone_is_not_passed_over(tmp_path):
    for name in "ABC":
        names = dict.fromkeys(("patient", "study", "series", "frame"), name)
        dicom_damage.healthy(tmp_path / name, **names)
    for path in (tmp_path / "C").rglob("*.dcm"):
        path.write_bytes(path.read_bytes()[:500])
    *healthy, lost = inputs.find(str(tmp_path), organs=SEGTHOR)
    assert [one.fault for one in healthy] == ["", ""]
    assert (lost.name, lost.fault_code, lost.ct) == ("C", "file_damaged", str(tmp_path / "C"))


def test_a_structure_set_alone_in_its_folder_is_not_passed_over(tmp_path):
    write_patients(tmp_path, "AB")
    shutil.rmtree(tmp_path / "B/ct")
    one, lost = inputs.find(str(tmp_path), organs=SEGTHOR)
    assert (one.name, one.fault) == ("A", "")
    assert (lost.name, lost.fault_code, lost.labels) == ("B", "file_missing", "")
    assert str(tmp_path / "B/rs.dcm") in lost.fault


@pytest.mark.parametrize("syntax", ["implicit", "jpeg_ls"])
def test_finding_patients_reads_no_pixels_and_a_second_time_no_header(tmp_path, syntax):
    hu = np.random.default_rng(0).integers(-1000, 1000, (300, 300, 4)).astype(np.int16)
    paths = dicom_phantoms.write_series(tmp_path / "A", hu, np.diag([1, 1, 3, 1.0]), syntax=syntax)
    kept = str(tmp_path / "found.json")
    find = functools.partial(inputs.find, str(tmp_path / "A"), organs=SEGTHOR, cache=kept)
    find(cache="")  # modules are read, too
    found, once = bytes_read(find)
    assert once < 4 * 17e3 < 0.2 * sum(Path(path).stat().st_size for path in paths)
    again, twice = bytes_read(find)
    assert again == found and twice < 2e3
    Path(kept).write_text("{}")
    assert bytes_read(find)[0] == found
    dicom_damage.edit(paths[1], lambda dataset: setattr(dataset, "RescaleSlope", 2))
    assert bytes_read(find)[1] > 10e3
    Path(paths[1]).unlink()
    (patient,) = find()
    assert [one.code for one in scans.read(patient.ct).findings] == ["series_gap"]


def test_of_patients_in_one_folder_each_has_its_own_files_alone(tmp_path):
    write_patients(tmp_path / "tree", "AB")
    flat = flattened(tmp_path)
    for one in inputs.find(str(flat), organs=SEGTHOR):
        before = scans.stamp(one.ct, one.ct_files), scans.size(one.ct, one.ct_files)
        others = [path for path in flat.iterdir() if str(path) not in one.ct_files]
        assert len(others) == len(one.ct_files) == 25
        for path in others:
            path.rename(tmp_path / path.name)
        assert (scans.stamp(one.ct, one.ct_files), scans.size(one.ct)) == before
        alone = scans.read(one.ct, among=one.ct_files)
        for path in others:
            (tmp_path / path.name).rename(path)
        np.testing.assert_array_equal(alone.zyx, scans.read(one.ct).zyx)
    assert [one.ct_files for one in inputs.find(str(tmp_path / "tree"), organs=SEGTHOR)] == [(), ()]


def test_a_hidden_name_stays_and_does_not_follow_from_the_patients_number(tmp_path):
    write_patients(tmp_path / "tree", "AB")
    names = [one.name for one in inputs.find(str(flattened(tmp_path)), organs=SEGTHOR)]
    assert all(name.startswith("patient-") for name in names)
    for number in ("IDA", "IDB"):
        plain = hashlib.sha256(number.encode()).hexdigest()
        for guess in (
            plain,
            *(hmac.new(b"", one.encode(), "sha256").hexdigest() for one in (number, plain)),
        ):
            assert f"patient-{guess[:12]}" not in names
    write_patients(tmp_path / "tree", "C")
    assert set(names) < {one.name for one in inputs.find(str(flattened(tmp_path)), organs=SEGTHOR)}


def write_patients(folder, names):
    for name in names:
        dicom_damage.healthy(
            folder / name, **dict.fromkeys(("patient", "study", "series", "frame"), name)
        )


def flattened(folder):
    """All files of folder/tree side by side in folder/flat."""
    (folder / "flat").mkdir(exist_ok=True)
    for path in (folder / "tree").rglob("*.dcm"):
        named = path.relative_to(folder / "tree").as_posix().replace("/", "-")
        shutil.copy(path, folder / "flat" / named)
    return folder / "flat"


def bytes_read(call):
    """What a call gives, and how many bytes it had the system read."""
    counter = Path("/proc/self/io")
    if not counter.exists():
        pytest.skip("this system does not count what a process reads")

    def count():
        return int(counter.read_text().split()[1])

    before, own = count(), count()
    result = call()
    return result, count() - own - (own - before)
