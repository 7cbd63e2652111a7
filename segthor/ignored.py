"""Voxels that are not annotated: a label value of their own, left out of training and scores.

nnU-Net's dataset.json may name a label `ignore`, and so may --label_values. In memory, in records
and in every label map of this package such a voxel has the value `LABEL`. It is no organ, and it is
no background either: what lies there is not known. In a table with an organ of that value no voxel
can be ignored.
"""

from segthor.errors import InputError
from segthor.organs import MOST_LABEL, Organs

NAME = "ignore"  # among the names of label values, beside organs
LABEL = MOST_LABEL


def value_in(label_values) -> int | None:
    """The value of ignored voxels in a file; label_values: (organ or `NAME`, value) pairs."""
    return dict(label_values).get(NAME)


def check(label_values, organs: Organs, where: str) -> None:
    """Checks that the value of ignored voxels, if there is one, is theirs alone.

    where: the flag or file that names the values.

    Raises:
      InputError: an organ has this value in the file, or has the label that ignored voxels get.
    """
    value = value_in(label_values)
    if value is None:
        return
    for name, other in label_values:
        if value == 0 or (name != NAME and other == value):
            owner = "the background" if value == 0 else name
            raise InputError(f"{where}: {NAME}={value} is the value of {owner}; expected its own")
    if not is_free(organs):
        owner = next(organ.name for organ in organs if organ.label == LABEL)
        raise InputError(
            f"{where}: {NAME} needs the label {LABEL}, which {owner} has in the table of organs; "
            f"give {owner} another label"
        )


def is_free(organs: Organs) -> bool:
    """Whether no organ of the table has the label of ignored voxels."""
    return LABEL not in organs.numbers.values()
