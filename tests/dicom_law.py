"""The law of a DICOM tree: every CT file is in a volume, left aside by name, or refused by name.

Which files are CT is decided here by pydicom alone, as far as a file can be read.
"""

from pathlib import Path

import pydicom

from segthor.dicom import index, trees

CT_CLASSES = {f"1.2.840.10008.5.1.4.1.1.2{part}" for part in ("", ".1", ".2")}


def ct_files(root) -> set[str]:
    """Paths of all files of a CT class that pydicom can read the header of; not of hidden files."""
    found = set()
    for path in Path(root).rglob("*"):
        is_hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.is_file() and not path.is_symlink() and not is_hidden:
            try:
                dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
                is_ct = str(dataset.get("SOPClassUID", "")) in CT_CLASSES
            except Exception:  # damaged beyond what pydicom reads: not counted as CT
                is_ct = False
            found |= {str(path)} if is_ct else set()
    return found


def check_law(root) -> index.Index:
    """Raises where a CT file of a tree is in none of the three, or in two of them."""
    tree = index.index_folder(str(root))
    used, refused = [], []
    for patient in tree.patients:
        for volume in patient.volumes:
            (refused if volume.problem else used).extend(set(volume.paths))
    aside = {path for _, path in tree.left_aside}
    every = [*used, *refused, *aside]
    assert len(every) == len(set(every)), "a file in two places"
    lacking = ct_files(root) - set(every)
    assert not lacking, sorted(lacking)
    check_programs_name_all(root, tree)
    return tree


def check_programs_name_all(root, tree) -> None:
    """Each volume is a case of a prediction, unless its patient is refused by name."""
    if not tree.patients:
        return
    cases = trees.patients(str(root), ())
    names = [case.name for case in cases]
    assert len(names) == len(set(names)), names
    for patient in tree.patients:
        own = [case for case in cases if case.name.partition("_")[0] and _is_of(case, patient)]
        assert own, patient.name
        taken = {case.series for case in own if case.series}
        wanted = {volume.name for volume in trees.predictable(patient.volumes)}
        assert wanted <= taken or any(case.fault for case in own), (patient.name, wanted, taken)


def _is_of(case, patient) -> bool:
    volumes = {f"{patient.name}_{volume.name}" for volume in patient.volumes}
    return case.name in {patient.name, *volumes}
