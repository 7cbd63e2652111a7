"""What lies in a DICOM tree, in plain text, without anything that tells who a patient is."""

from collections import Counter

from segthor.dicom import DicomError, elements, index, matching, rois
from segthor.dicom.index import relative
from segthor.dicom.volumes import Volume
from segthor.files import open_read
from segthor.organs import Organs

_MOST_PATHS = 3  # of a kind of files that are left aside


def of_folder(root: str, organs: Organs, roi_names=(), descriptions: bool = False) -> str:
    """Patients, their volumes and structure sets, which are used, and what is left aside.

    organs, roi_names: which ROI is which organ. descriptions: whether each series' description is
    printed too; it is free text, and may hold the patient's name.
    """
    read = index.of_folder(root)
    lines = [f"{len(read.patients)} patients in {read.root}"]
    for patient in read.patients:
        lines += [patient.name, f"  one patient by: {', '.join(patient.person.reasons)}"]
        order = _acquisition_order(patient.volumes)
        for volume in patient.volumes:
            lines += [f"  series {volume.name}: {one}" for one in _volume(volume, order)]
            if descriptions:
                lines.append(f"  series {volume.name}: described as {_description(volume)!r}")
        for structures in patient.structure_sets:
            lines.append(f"  structure set {relative(structures.path, read.root)}")
        lines += [f"  {_outcome(case, read.root)}" for case in patient.cases]
        lines += [f"  damaged: {relative(path, read.root)}" for path, _ in patient.damaged]
    lines += _left_aside(read)
    for patient in read.patients:
        for case in patient.cases:
            if case.structures:
                drawn = _organs_of(case.structures, organs, roi_names)
                lines.append(f"organs of {patient.name}: {drawn}")
    return "\n".join(lines)


def _volume(volume: Volume, order: dict[str, int]):
    if volume.problem:
        files = f"{len(volume.paths)} files, " if volume.paths else ""
        yield f"refused, {files}{volume.problem.code}: {volume.problem}"
        return
    stack, traits = volume.stack, volume.traits
    voxels = " x ".join(map(str, stack.shape))
    step_mm = sum(float(mm) ** 2 for mm in stack.affine[:3, 2]) ** 0.5
    spacing = " x ".join(f"{mm:.3g}" for mm in (*stack.pixel_spacing_mm[::-1], step_mm))
    parts = [f"{voxels} voxels of {spacing} mm", f"{len(stack.paths)} files"]
    if len(order) > 1:
        if traits.kernel:
            parts.append(f"kernel {traits.kernel}")
        parts.append("with contrast agent" if traits.has_contrast else "no contrast agent")
        if traits.phase_percent:
            parts.append(f"phase {traits.phase_percent} %")
        if volume.name in order and order[volume.name]:
            parts.append(f"acquired {order[volume.name]} of {len(order)}")
    if traits.is_projection:
        parts.append("an intensity projection")
    yield ", ".join(parts)
    for code, message in stack.findings:
        yield f"warned, {code}: {message}"


def _acquisition_order(volumes) -> dict[str, int]:
    """Name of a volume to its place in the order of acquisition; 0 where that is not known."""
    times = sorted({volume.traits.acquired for volume in volumes} - {""})
    ranks = {time: number for number, time in enumerate(times, 1)}
    return {volume.name: ranks.get(volume.traits.acquired, 0) for volume in volumes}


def _description(volume: Volume) -> str:
    path = volume.paths[0]
    with open_read(path) as stream:
        dataset = elements.open_dataset(stream, path, ["SeriesDescription"])
    return str(dataset.get("SeriesDescription", ""))


def _outcome(case: matching.Case, root: str) -> str:
    name = f" series {case.volume.name}," if case.volume else ""
    if case.problem:
        return f"refused, {case.problem.code}:{name} {case.problem}"
    drawn = relative(case.structures.path, root) if case.structures else "no structure set"
    return f"used:{name} {drawn}"


def _left_aside(read: index.Index) -> list[str]:
    counts = Counter(why for why, _ in read.left_aside)
    lines = ["left aside"] if counts else []
    for why, count in sorted(counts.items()):
        paths = [relative(path, read.root) for kind, path in read.left_aside if kind == why]
        more = ", ..." if count > _MOST_PATHS else ""
        lines.append(f"  {count} {why}: {', '.join(paths[:_MOST_PATHS])}{more}")
    return lines


def _organs_of(structures, organs: Organs, roi_names) -> str:
    """Which ROI is which organ. The names of other ROIs are not printed: they may hold anything."""
    try:
        drawn = rois.read(structures.path)
        matched = rois.match(drawn, organs, roi_names)
    except DicomError as error:
        return f"refused, {error.code}: {error}"
    names = {organ.name: roi.name for organ, roi in matched}
    lacking = [name for name in organs.names if name not in names]
    parts = [", ".join(f"{organ} ({name})" for organ, name in names.items()) or "none"]
    parts += [f"no ROI for {', '.join(lacking)}"] if lacking else []
    others = len(drawn.rois) - len(names)
    return "; ".join(parts + ([f"{others} other ROIs"] if others else []))
