"""CSV files as spreadsheets write them, by every reader of one."""

import functools

import pytest

from segthor import csv_files, organ_table
from segthor.errors import InputError
from segthor.inputs import find, find_contours
from segthor.organs import SEGTHOR

PATIENTS = "patient,ct,labels,split,organs\nA,a.nii,a_gt.nii,train,heart\nB,b.nii,b_gt.nii,,\n"
TABLE = "# of one clinic, in 2026\nname,label,rgb\nliver,9,1 2 3\ngut,4,\n"
ROIS = "organ,name\nheart,Cor\naorta,Ao\n"


def by_read_table(path):
    return csv_files.read_table(path)


READERS = {
    "find": (PATIENTS, functools.partial(find, organs=SEGTHOR)),
    "find_contours": (PATIENTS, functools.partial(find_contours, organs=SEGTHOR)),
    "organ_table": (TABLE, organ_table.read),
    "roi_names": (ROIS, lambda path: organ_table.read_roi_names(path, SEGTHOR)),
    "own": (PATIENTS, by_read_table),
}


def with_empty_columns(text):
    return "".join(f"{line},,\n" for line in text.splitlines())


def with_short_rows(text):
    """The header has two empty columns, rows one or none."""
    head, *rows = (line for line in text.splitlines() if not line.startswith("#"))
    return "\n".join([f"{head},,", *(f"{row}," for row in rows[:1]), *rows[1:], ",,,,,,,", ""])


def with_an_empty_column_inside(text):
    return "".join(line.replace(",", ",,", 1) + "\n" for line in text.splitlines())


def with_semicolons(text):
    return "".join(
        line if line.startswith("#") else line.replace(",", ";")
        for line in text.splitlines(keepends=True)
    )


SPELLINGS = [with_empty_columns, with_short_rows, with_an_empty_column_inside, with_semicolons]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("reader", READERS)
def test_a_table_reads_alike_however_a_spreadsheet_saved_it(reader, spelling, tmp_path):
    text, read = READERS[reader]
    path = tmp_path / "table.csv"
    path.write_text(text)
    expected = read(str(path))
    path.write_bytes(spelling(text).replace("\n", "\r\n").encode("utf-8-sig"))
    read_again = read(str(path))
    if reader == "own":  # without a comment, the numbers of the lines are alike as well
        assert [row for _, row in read_again] == [row for _, row in expected]
    else:
        assert read_again == expected


@pytest.mark.parametrize("reader", READERS)
def test_a_value_in_a_column_without_a_name_is_refused(reader, tmp_path):
    text, read = READERS[reader]
    path = tmp_path / "table.csv"
    rows = with_an_empty_column_inside(text).splitlines()
    rows[-1] = rows[-1].replace(",,", ",surprise,", 1)
    path.write_text("\n".join(rows))
    with pytest.raises(InputError, match=f"line {len(rows)}: .*column 2, .*no name.*'surprise'"):
        read(str(path))
    path.write_text(text.rstrip("\n") + ",,surprise\n")
    with pytest.raises(InputError, match=f"line {len(rows)}: expected . values, found ."):
        read(str(path))
