"""Patients from a CSV."""

import pytest

from segthor import organs
from segthor.errors import InputError
from segthor.inputs import find
from segthor.organs import SEGTHOR, Organ, Organs
from segthor.patients import Patient


def csv(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "patients.csv"
    path.write_bytes(text.encode(encoding))
    return str(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_column_is_read(tmp_path, encoding, newline):
    lines = [
        "patient,ct,labels,split,organs",
        'Müller,b/ct.nii.gz,"b, c/gt.nii",train,heart; esophagus',
        "A,/abs/ct.nii,,Validation,",
        ",,,,",
        "S3,s3://bucket/ct.nii,s3://bucket/gt.nii,,AORTA trachea",
        "",
    ]
    root = str(tmp_path)
    assert find(csv(tmp_path, newline.join(lines), encoding), organs=SEGTHOR) == (
        Patient("A", "/abs/ct.nii", "", "validation", organs=organs.SEGTHOR.names),
        Patient("Müller", f"{root}/b/ct.nii.gz", f"{root}/b, c/gt.nii", "train",
               organs=("esophagus", "heart")),
        Patient("S3", "s3://bucket/ct.nii", "s3://bucket/gt.nii", "", organs=("trachea", "aorta")),
    )  # fmt: skip


def test_two_columns_are_enough_in_any_order(tmp_path):
    assert find(csv(tmp_path, "ct,patient\n/x.nii,P\n"), organs=SEGTHOR) == (
        Patient("P", "/x.nii", organs=SEGTHOR.names),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected the columns .*found nothing"),
        ("patient,labels\nA,b\n", "expected the columns"),
        ("patient,ct,note\nA,b,c\n", "found patient,ct,note"),
        ("patient,ct,ct\nA,b,c\n", "expected the columns"),
        ("patient,ct\n", "a line per patient"),
        ("patient,ct\nA\n", "line 2: expected 2 values, found 1"),
        ("patient,ct\nA,b,c\n", "line 2: expected 2 values, found 3"),
        ("patient,ct\n,b\n", "line 2: .*empty field"),
        ("patient,ct,split\nA,b,test\n", "line 2: split: expected train, validation"),
        ("patient,ct,organs\nA,b,liver\n", "line 2: organs: .*'liver'"),
        ("patient,ct\nA,b\nA,c\n", "two patients are named A"),
        ('patient,ct\nA,"b\n', "not a CSV"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        find(csv(tmp_path, text), organs=SEGTHOR)


def test_the_organs_are_those_of_the_table(tmp_path):
    table = Organs((Organ("liver", 9, (1, 2, 3)), Organ("gut", 4, (4, 5, 6))))
    path = csv(tmp_path, "patient,ct,organs\nA,a.nii,gut\nB,b.nii,\nC,c.nii,Gut;LIVER\n")
    assert [one.organs for one in find(path, organs=table)] == [
        ("gut",), ("liver", "gut"), ("liver", "gut"),
    ]  # fmt: skip
    with pytest.raises(InputError, match="expected some of esophagus;.*, found 'gut'"):
        find(path, organs=SEGTHOR)
    assert [one.organs for one in find(path, organs=None)] == [(), (), ()]  # nobody asks


def test_another_encoding_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="UTF-8"):
        find(csv(tmp_path, "patient,ct\nMüller,b\n", "latin-1"), organs=SEGTHOR)
    with pytest.raises(InputError, match="none.csv"):
        find(str(tmp_path / "none.csv"), organs=SEGTHOR)
