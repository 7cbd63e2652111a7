"""Ignored voxels: voxels that are not annotated, and are left out of training and scores.

nnU-Net's dataset.json may name a label `ignore`, and so may --label_values. In memory, in records
and in label maps such a voxel has the value `LABEL`: neither organ nor background, but unknown. A
table in which an organ has this label allows no ignored voxels.
"""

from segthor.errors import InputError
from segthor.organs import MOST_LABEL, Organs

NAME = "ignore"  # stands beside the organs' names in label values
LABEL = MOST_LABEL


def value_in(label_values) -> int | None:
    """The value of ignored voxels in a file, or None. label_values: (organ or `NAME`, value)."""
    return dict(label_values).get(NAME)


def check(label_values, organs: Organs, where: str) -> None:
    """Checks that no organ has the value of ignored voxels, if there is such a value.

    where: The flag or file that gives the values; start of an error's message.

    Raises:
      InputError: An organ has this value in the file, or the label `LABEL` in the table.
    """
    value = value_in(label_values)
    if value is None:
        return
    for name, other in label_values:
        if value == 0 or (name != NAME and other == value):
            owner = "the background" if value == 0 else name
            raise InputError(f"{where}: {NAME}={value} is the value of {owner}; expected another")
    if not is_free(organs):
        owner = next(organ.name for organ in organs if organ.label == LABEL)
        raise InputError(
            f"{where}: {NAME} needs the label {LABEL}, which {owner} has in the table of organs; "
            f"give {owner} another label"
        )


def is_free(organs: Organs) -> bool:
    """Whether no organ of the table has the label `LABEL`."""
    return LABEL not in organs.numbers.values()
