"""Lists what a DICOM tree holds, in plain text, without anything that identifies a patient."""

from collections import Counter

from segthor import guard
from segthor.dicom import elements, index, matching, rois, structures
from segthor.dicom.index import relative
from segthor.dicom.volumes import SeriesVolume
from segthor.findings import CODES, REJECT
from segthor.organs import Organs

_MOST_PATHS = 3  # examples for each reason why files are left aside


def list_folder(root: str, organs: Organs, roi_names=(), descriptions: bool = False) -> str:
    """Patients with their volumes and structure sets, which of them are used, and other files.

    Args:
      root: The folder.
      organs: The table of organs, for the names of ROIs.
      roi_names: (organ, ROI name) pairs in addition to the table's synonyms.
      descriptions: Whether to list the description of each series, a free text that may contain
        the patient's name.
    """
    read = index.index_folder(root)
    lines = [f"{len(read.patients)} patients in {read.root}"]
    for patient in read.patients:
        lines += [patient.name, f"  one patient by: {', '.join(patient.person.reasons)}"]
        order = _acquisition_order(patient.volumes)
        for volume in patient.volumes:
            lines += [f"  series {volume.name}: {one}" for one in _volume(volume, order)]
            if descriptions:
                lines.append(f"  series {volume.name}: described as {_description(volume)!r}")
        for header in patient.structure_sets:
            lines.append(f"  structure set {relative(header.path, read.root)}")
        lines += [f"  {_outcome(case, read.root)}" for case in patient.cases]
        lines += [f"  damaged: {relative(path, read.root)}" for path, _ in patient.damaged]
    lines += _left_aside(read)
    for patient in read.patients:
        for case in patient.cases:
            if case.structures:
                for text in _organs(case, organs, roi_names):
                    lines.append(f"organs of {patient.name}: {text}")
    return "\n".join(lines)


def _volume(volume: SeriesVolume, order: dict[str, int]):
    if volume.problem:
        files = f"{len(volume.paths)} files, " if volume.paths else ""
        yield f"refused, {files}{volume.problem.code}: {volume.problem}"
        return
    stack, traits = volume.stack, volume.traits
    voxels = " x ".join(map(str, stack.shape))
    step_mm = sum(float(mm) ** 2 for mm in stack.affine[:3, 2]) ** 0.5
    step = f"{step_mm:.3g} mm" if stack.offsets_mm is None else stack.grid.planes.step_range
    spacing = " x ".join([*(f"{mm:.3g}" for mm in stack.pixel_spacing_mm[::-1]), step])
    parts = [f"{voxels} voxels of {spacing}", f"{len(stack.paths)} files"]
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
        verdict = "refused" if CODES[code][0] == REJECT else "warned"
        yield f"{verdict}, {code}: {message}"


def _acquisition_order(volumes) -> dict[str, int]:
    """Name of a volume to its number in the order of acquisition; 0 where that is not known."""
    times = sorted({volume.traits.acquired for volume in volumes} - {""})
    ranks = {time: number for number, time in enumerate(times, 1)}
    return {volume.name: ranks.get(volume.traits.acquired, 0) for volume in volumes}


def _description(volume: SeriesVolume) -> str:
    dataset = elements.read_dataset(volume.paths[0], ["SeriesDescription"])
    return str(dataset.get("SeriesDescription", ""))


def _outcome(case: matching.Case, root: str) -> str:
    name = f" series {case.volume.name}," if case.volume else ""
    if case.problem:
        return f"refused, {case.problem.code}:{name} {case.problem}"
    drawn = relative(case.structures.path, root) if case.structures else "no structure set"
    return f"used:{name} {drawn}"


def _left_aside(read: index.Index) -> list[str]:
    counts = Counter(reason for reason, _ in read.left_aside)
    lines = ["left aside"] if counts else []
    for reason, count in sorted(counts.items()):
        paths = [relative(path, read.root) for other, path in read.left_aside if other == reason]
        more = ", ..." if count > _MOST_PATHS else ""
        lines.append(f"  {count} {reason}: {', '.join(paths[:_MOST_PATHS])}{more}")
    return lines


def _organs(case: matching.Case, organs: Organs, roi_names):
    """Yields lines about the organs of a structure set and the findings about its contours.

    The names of other ROIs are not listed, because they might identify the patient.
    """
    path = case.structures.path
    try:
        drawn = rois.read(path)
        names = {organ.name: roi.name for organ, roi in rois.match(drawn, organs, roi_names)}
        missing = [name for name in organs.names if name not in names]
        parts = [", ".join(f"{organ} ({name})" for organ, name in names.items()) or "none"]
        parts += [f"no ROI for {', '.join(missing)}"] if missing else []
        others = len(drawn.rois) - len(names)
        yield "; ".join(parts + ([f"{others} other ROIs"] if others else []))
        if names and case.stack:
            for finding in structures.read(path, case.stack, organs, roi_names).findings:
                yield f"warned, {finding.code}: {finding.message}"
    except Exception as error:  # one patient's error must not stop the others
        error = guard.read_error(path, error)
        yield f"refused, {error.code}: {error}"
