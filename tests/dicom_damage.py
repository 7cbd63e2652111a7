"""What can be wrong with a patient's DICOM files, and what may be unusual about them.

Both start from a folder with a healthy phantom's ct/*.dcm and rs.dcm. `DAMAGES` maps a name to
(code that the data job must find, function that does the damage), as `tests.damage` does for NIfTI.
`UNUSUAL` maps a name to (codes of the warnings that are due, function): the voxels stay the same.
A function may leave a patients.csv in the folder, which is then the job's input.
"""

import shutil
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from segthor.organs import SEGTHOR
from segthor.volume import Grid
from tests import dicom_phantoms, file_order, structure_cases
from tests.damage import healthy_phantom

DAMAGES, UNUSUAL = {}, {}
MIDDLE, STEP_MM = 12, 9.5
_PLAN, _DICOMDIR = "1.2.840.10008.5.1.4.1.1.481.5", "1.2.840.10008.1.3.10"


def healthy(folder, **options) -> None:
    """ct/*.dcm and rs.dcm in place of what is there; options: of `structure_cases.write_patient`"""
    shutil.rmtree(Path(folder) / "ct", ignore_errors=True)
    structure_cases.copy_patient(folder, healthy_phantom, 3, **options)


def damage(code):
    def register(function):
        DAMAGES[function.__name__] = (code, function)
        return function

    return register


def unusual(*codes):
    def register(function):
        UNUSUAL[function.__name__] = (codes, function)
        return function

    return register


def slices(folder) -> list[Path]:
    return sorted((Path(folder) / "ct").glob("*.dcm"))


def edit(path, change) -> None:
    """Calls `change` with a file's data set, and writes it back."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def every(folder, change, chosen=slice(None)) -> None:
    """`edit` of all slices, or some."""
    for path in slices(folder)[chosen]:
        edit(path, change)


def field(folder, chosen=slice(None), **values) -> None:
    """Sets elements of slices; None leaves one out."""

    def change(dataset):
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
            if value is None:
                delattr(dataset, keyword)

    every(folder, change, chosen)


def drawing(folder, change) -> None:
    """`edit` of the structure set."""
    edit(Path(folder) / "rs.dcm", change)


def heart(dataset):
    """The contours of the heart's ROI."""
    return contours_of(dataset, "Heart")


def contours_of(dataset, name):
    """The contours of the ROI of this name."""
    (number,) = [i.ROINumber for i in dataset.StructureSetROISequence if i.ROIName == name]
    (item,) = [i for i in dataset.ROIContourSequence if i.ReferencedROINumber == number]
    return item.ContourSequence


def moved(folder, offset_mm, share=1.0) -> None:
    """Moves that share of the heart's contours."""

    def change(dataset):
        drawn = heart(dataset)
        for item in drawn[: int(np.ceil(share * len(drawn)))]:
            shift(item, offset_mm)

    drawing(folder, change)


def shift(item, offset_mm) -> None:
    points = np.reshape(item.ContourData, (-1, 3)).astype(float) + offset_mm
    item.ContourData = [f"{mm:.6f}"[:16] for mm in points.ravel()]


def another(item, scale=1.0, offset_mm=(0, 0, 0), kind=None) -> Dataset:
    """A contour about the same centre, of another size or kind."""
    points = np.reshape(item.ContourData, (-1, 3)).astype(float)
    points = points.mean(0) + scale * (points - points.mean(0)) + offset_mm
    made = Dataset()
    made.ContourGeometricType = kind or item.ContourGeometricType
    made.NumberOfContourPoints = len(points)
    made.ContourData = [f"{mm:.6f}"[:16] for mm in points.ravel()]
    return made


def added(folder, **options) -> None:
    """`another` beside the heart's contour in its middle."""

    def change(dataset):
        drawn = heart(dataset)
        drawn.append(another(drawn[len(drawn) // 2], **options))

    drawing(folder, change)


def table(folder, ct="ct", labels="rs.dcm") -> None:
    """Names the files in a CSV."""
    (Path(folder) / "patients.csv").write_text(f"patient,ct,labels\nP,{ct},{labels}\n")


def cut_off(path, share) -> None:
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(share * len(content))])


# Files.


@damage("file_missing")
def the_table_names_no_folder(folder):
    table(folder, ct="gone")


@damage("file_missing")
def the_table_names_no_series(folder):
    table(folder, ct="ct#01234567")


@damage("file_missing")
def the_table_names_no_structure_set(folder):
    table(folder, labels="gone.dcm")


@damage("file_missing")
def the_table_names_a_folder_without_a_series(folder):
    (Path(folder) / "empty").mkdir()
    table(folder, ct="empty")


@damage("file_not_dicom")
def the_structure_set_is_text(folder):
    (Path(folder) / "rs.dcm").write_text("patient,ct\n" * 100)
    table(folder)


@damage("file_truncated")
def a_slice_was_cut_off(folder):
    cut_off(slices(folder)[MIDDLE], 0.8)


@damage("file_truncated")
def a_compressed_slice_was_cut_off(folder):
    healthy(folder, syntax="jpeg_ls")
    cut_off(slices(folder)[MIDDLE], 0.8)


@damage("file_truncated")
def a_slice_without_pixels(folder):
    field(folder, slice(3, 4), PixelData=None)


@damage("file_damaged")
def a_codestream_is_garbage(folder):
    def garble(dataset):
        pixels = bytearray(dataset.PixelData)
        pixels[20:-8] = b"\x17" * (len(pixels) - 28)
        dataset.PixelData = bytes(pixels)

    healthy(folder, syntax="jpeg_2000_lossless")
    every(folder, garble, slice(5, 6))


@damage("file_damaged")
def runs_that_are_longer_than_the_image(folder):
    def lengthen(dataset):  # the decoder panics, which is no Exception of Python's
        content = dataset.PixelData
        dataset.PixelData = content[:100] + b"\x81" * (len(content) - 108) + content[-8:]

    healthy(folder, syntax="rle")
    every(folder, lengthen, slice(5, 6))


@damage("file_damaged")
def coordinates_are_words(folder):
    def change(dataset):
        heart(dataset)[0].add_new("ContourData", "LT", "here\\and\\there")

    drawing(folder, change)


@damage("file_damaged")
def a_coordinate_was_lost(folder):
    def change(dataset):
        heart(dataset)[2].ContourData = heart(dataset)[2].ContourData[:-1]

    drawing(folder, change)


@damage("file_damaged")
def a_contour_has_fewer_points_than_it_says(folder):
    drawing(folder, lambda dataset: setattr(heart(dataset)[2], "NumberOfContourPoints", 999))


@damage("file_truncated")
def the_structure_set_was_cut_off(folder):
    cut_off(Path(folder) / "rs.dcm", 0.6)


@damage("file_damaged")
def the_first_slice_was_cut_off_within_its_header(folder):
    slices(folder)[0].write_bytes(slices(folder)[0].read_bytes()[:500])


@damage("file_damaged")
def the_structure_set_is_empty(folder):
    (Path(folder) / "rs.dcm").write_bytes(b"")


@damage("file_damaged")
def the_last_slice_is_empty(folder):
    slices(folder)[-1].write_bytes(b"")


@damage("file_damaged")
def the_structure_set_was_cut_off_within_its_header(folder):
    (Path(folder) / "rs.dcm").write_bytes((Path(folder) / "rs.dcm").read_bytes()[:500])


# Series.


@damage("series_gap")
def a_slice_was_lost(folder):
    slices(folder)[MIDDLE].unlink()


@damage("series_gap")
def slices_were_lost_in_two_places(folder):
    for path in [*slices(folder)[5:7], slices(folder)[15]]:
        path.unlink()


@damage("series_uneven")
def a_slice_lies_elsewhere(folder):
    def change(dataset):
        dataset.ImagePositionPatient[2] += 3

    every(folder, change, slice(MIDDLE, MIDDLE + 1))


@damage("series_uneven")
def slices_grow_thicker(folder):
    def change(dataset):
        dataset.ImagePositionPatient[2] += 0.1 * dataset.InstanceNumber**2

    every(folder, change)


@damage("series_bent")
def a_slice_lies_beside_the_others(folder):
    def change(dataset):
        dataset.ImagePositionPatient[0] += 3

    every(folder, change, slice(MIDDLE, MIDDLE + 1))


@damage("contour_without_slice")
def a_slice_was_lost_that_was_drawn_on(folder):
    slices(folder)[MIDDLE].unlink()


@damage("series_several_volumes")
def two_images_at_one_place(folder):
    made = healthy_phantom()
    options = dict(copy="b", missing=[k for k in range(24) if k != MIDDLE])
    dicom_phantoms.write_series(Path(folder) / "ct", made.hu[::-1], made.affine, **options)


@damage("series_several_volumes")
def two_series_and_no_structure_set(folder):
    made = healthy_phantom()
    dicom_phantoms.write_series(Path(folder) / "ct", made.hu, made.affine, series="2")
    (Path(folder) / "rs.dcm").unlink()


@damage("series_several_volumes")
def two_phases_in_one_series_and_no_structure_set(folder):
    made = healthy_phantom()
    options = dict(copy="b", acquisition=2)
    dicom_phantoms.write_series(Path(folder) / "ct", made.hu, made.affine, **options)
    (Path(folder) / "rs.dcm").unlink()


@damage("series_mixed")
def half_of_a_series_has_other_pixels(folder):
    field(folder, slice(0, 12), PixelSpacing=[6, 6])
    (Path(folder) / "rs.dcm").unlink()


@damage("series_mixed")
def half_of_a_series_has_other_pixels_and_contours(folder):
    field(folder, slice(0, 12), PixelSpacing=[6, 6])


@damage("series_no_position")
def positions_were_removed(folder):
    field(folder, ImagePositionPatient=None)


@damage("series_no_position")
def orientations_were_removed(folder):
    field(folder, ImageOrientationPatient=None)


@damage("series_no_position")
def pixel_spacing_is_zero(folder):
    field(folder, PixelSpacing=[0, 0])


@damage("series_no_position")
def pixels_smaller_than_any(folder):
    field(folder, PixelSpacing=["1e-300", "1e-300"])


@damage("series_no_rescale")
def rescale_was_removed(folder):
    field(folder, slice(4, 5), RescaleSlope=None, RescaleIntercept=None)


@damage("series_no_rescale")
def rescale_slope_is_zero(folder):
    field(folder, RescaleSlope=0)


@damage("file_too_large")
def slices_of_more_rows_than_a_label_map_can_have(folder):
    field(folder, Rows=32768)


@damage("series_duplicates")
def slices_lie_there_twice(folder):
    for path in slices(folder)[:3]:
        shutil.copy(path, path.with_suffix(".copy"))


@damage("series_tilted")
def the_gantry_was_tilted(folder):
    healthy(folder, tilt_degrees=12)


@damage("series_surplus")
def a_slice_with_more_bytes_than_pixels(folder):
    def lengthen(dataset):
        dataset.PixelData += bytes(64)

    every(folder, lengthen, slice(5, 6))


@damage("series_lossy")
def compressed_with_loss(folder):
    field(folder, LossyImageCompression="01")


@damage("series_derived")
def computed_from_others(folder):
    field(folder, ImageType=["DERIVED", "PRIMARY", "MPR"])


@damage("dicom_syntax")
def a_syntax_that_nobody_decodes(folder):
    def change(dataset):
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"

    healthy(folder, syntax="jpeg_lossless")
    every(folder, change, slice(3, 4))


@damage("few_slices")
def a_single_image(folder):
    for path in slices(folder)[1:]:
        path.unlink()
    (Path(folder) / "rs.dcm").unlink()


@damage("few_slices")
def the_series_was_copied_in_part(folder):
    for path in slices(folder)[6:]:
        path.unlink()
    (Path(folder) / "rs.dcm").unlink()


@damage("hu_no_air")
def the_intercept_is_wrong(folder):
    healthy(folder, signed=False, intercept=-3000)
    field(folder, RescaleIntercept=0)


@damage("hu_scale")
def the_slope_is_wrong(folder):
    field(folder, RescaleSlope=10)


# Structure sets.


@damage("structures_none")
def no_roi_goes_by_an_organs_name(folder):
    def change(dataset):
        for roi in dataset.StructureSetROISequence:
            roi.ROIName += "_PRV"

    drawing(folder, change)


@damage("structures_none")
def a_structure_set_without_contours(folder):
    drawing(folder, lambda dataset: delattr(dataset, "ROIContourSequence"))


@damage("structures_none")
def the_table_names_a_slice_for_contours(folder):
    table(folder, labels=f"ct/{slices(folder)[0].name}")


@damage("structures_ambiguous")
def two_structure_sets(folder):
    shutil.copy(Path(folder) / "rs.dcm", Path(folder) / "rs2.dcm")
    moved(folder, (0, 0.1, 0))


@damage("structures_ambiguous")
def two_series_that_the_contours_fit(folder):
    made = healthy_phantom()
    dicom_phantoms.write_series(Path(folder) / "ct", made.hu, made.affine, series="2")
    drawing(folder, _without_references)


@damage("structures_other_frame")
def the_structure_set_is_of_another_frame(folder):
    def change(dataset):
        for item in dataset.ReferencedFrameOfReferenceSequence:
            item.FrameOfReferenceUID = "1.2.3.4"
        for item in dataset.StructureSetROISequence:
            item.ReferencedFrameOfReferenceUID = "1.2.3.4"

    drawing(folder, change)


@damage("structures_other_frame")
def an_roi_is_of_another_frame(folder):
    def change(dataset):
        dataset.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "1.2.3.4"

    drawing(folder, change)


@damage("structures_references")
def contours_name_images_of_other_slices(folder):
    def change(dataset):
        drawn = heart(dataset)
        first = drawn[0].ContourImageSequence
        for item in drawn[1:]:
            item.ContourImageSequence = first

    drawing(folder, change)


@damage("structures_references")
def the_structure_set_names_another_series(folder):
    def change(dataset):
        (study,) = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
        study.RTReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.4"

    drawing(folder, change)


@damage("roi_ambiguous")
def two_rois_for_the_heart(folder):
    def change(dataset):
        dataset.StructureSetROISequence[0].ROIName = "heart "

    drawing(folder, change)


@damage("roi_ambiguous")
def two_rois_of_one_number(folder):
    def change(dataset):
        one, other = dataset.StructureSetROISequence[:2]
        other.ROINumber = one.ROINumber

    drawing(folder, change)


@damage("roi_empty")
def an_roi_without_contours(folder):
    drawing(folder, lambda dataset: heart(dataset).clear())


@damage("contour_between_slices")
def contours_lie_half_a_step_off(folder):
    moved(folder, (0, 0, STEP_MM / 2), share=0.5)


@damage("contour_outside")
def contours_lie_beside_the_scan(folder):
    moved(folder, (600, 0, 0))


@damage("contour_outside")
def contours_lie_above_the_scan(folder):
    moved(folder, (0, 0, 50 * STEP_MM))


@damage("contour_nested")
def a_hole_in_the_heart(folder):
    added(folder, scale=0.4)


@damage("organs_overlap")
def a_contour_of_the_heart_is_the_aortas_too(folder):
    def change(dataset):
        drawn = heart(dataset)
        contours_of(dataset, "A_Aorta").append(another(drawn[len(drawn) // 2], 0.3))

    drawing(folder, change)


@damage("contour_crossing")
def contours_that_cross(folder):
    added(folder, offset_mm=(20, 0, 0))


@damage("contour_self_crossing")
def a_contour_goes_round_twice(folder):
    def twice(dataset):
        item = heart(dataset)[2]
        points = np.reshape(item.ContourData, (-1, 3)).astype(float)
        again = points.mean(0) + 0.6 * (points - points.mean(0))
        rows = np.concatenate([points, points[:1], again, again[:1]])
        item.ContourData = [f"{mm:.6f}"[:16] for mm in rows.ravel()]
        item.NumberOfContourPoints = len(rows)

    drawing(folder, twice)


@damage("contour_too_many")
def hundreds_of_rings_that_overlap(folder):
    def many(dataset):
        drawn = heart(dataset)
        offsets = [(x, y, 0) for x in range(-30, 30, 3) for y in range(-24, 24, 3)]
        drawn += [another(drawn[2], offset_mm=offset) for offset in offsets * 2]

    drawing(folder, many)


@damage("contour_duplicate")
def a_contour_that_is_there_twice(folder):
    added(folder)


@damage("contour_open")
def an_open_contour(folder):
    added(folder, kind="OPEN_PLANAR")


@damage("contour_tiny")
def a_contour_without_a_voxel(folder):
    added(folder, scale=0.001, offset_mm=(2, 2, 0))


@damage("organ_sparse")
def an_organ_on_every_second_slice(folder):
    def change(dataset):
        drawn = heart(dataset)
        heights = sorted({float(item.ContourData[2]) for item in drawn})
        drawn[:] = [item for item in drawn if heights.index(float(item.ContourData[2])) % 2 == 0]

    drawing(folder, change)


@damage("series_sop_uids")
def one_image_uid_for_all_slices(folder):
    field(folder, SOPInstanceUID="1.2.3.4")


@damage("series_uids")
def a_series_uid_for_each_slice(folder):
    for k, path in enumerate(slices(folder)):
        edit(path, lambda dataset, k=k: setattr(dataset, "SeriesInstanceUID", f"1.2.3.{k}"))


@damage("series_patient_ids")
def the_number_changes_half_way(folder):
    field(folder, slice(0, 12), PatientID="another")


@damage("series_rounded")
def positions_in_whole_millimetres(folder):
    made = healthy_phantom()
    affine = made.affine.copy()
    affine[:3, 2] *= 1.5 / np.linalg.norm(affine[:3, 2])
    affine[2, 3] = -20

    def rounded(dataset, k):
        place = [float(mm) for mm in dataset.ImagePositionPatient]
        dataset.ImagePositionPatient = [*place[:2], float(np.floor(place[2] + 0.5))]

    shutil.rmtree(Path(folder) / "ct")
    (Path(folder) / "rs.dcm").unlink()
    dicom_phantoms.write_series(Path(folder) / "ct", *_posed(made, affine), change=rounded)


def _posed(made, affine):
    return dicom_phantoms.posed(made.hu, affine)


@damage("series_shared_positions")
def two_acquisitions_share_a_position(folder):
    made = healthy_phantom()
    lower = dict(missing=range(12, 24), acquisition=1)
    upper = dict(missing=range(11), acquisition=2, copy="b")
    shutil.rmtree(Path(folder) / "ct")
    (Path(folder) / "rs.dcm").unlink()
    for options in (lower, upper):
        dicom_phantoms.write_series(Path(folder) / "ct", *_posed(made, made.affine), **options)


def _without_references(dataset):
    dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence = []
    for roi in dataset.ROIContourSequence:
        for item in roi.ContourSequence:
            item.ContourImageSequence = []


# What is unusual, and read all the same.


def _rewritten(name, *codes, **options):
    UNUSUAL[name] = (codes, lambda folder: healthy(folder, **options))


for _pose in dicom_phantoms.POSES:
    _rewritten(f"position_{_pose}", pose=_pose)
for _syntax in dicom_phantoms.SYNTAXES:
    _lossy = ["series_lossy"] * (_syntax == "jpeg_2000")  # may be, as the header does not say
    _rewritten(f"syntax_{_syntax}", *_lossy, syntax=_syntax)
_rewritten("enhanced", enhanced=True)
_rewritten("enhanced_and_compressed", enhanced=True, syntax="jpeg_2000_lossless", pose="FFP")
_rewritten("without_a_preamble", preamble=False, syntax="implicit")
_rewritten("names_in_random_order", shuffle=1)
_rewritten("unsigned_with_an_intercept", signed=False, intercept=-3000)
_rewritten("step_and_shoot", acquisition=lambda k: 20 - k // 6)
_rewritten("without_a_patients_number", without=("PatientID", "PatientName"))


@unusual()
def names_without_an_ending(folder):
    for number, path in enumerate(slices(folder)):
        path.rename(path.parent / f"IM{number:04d}")


@unusual()
def a_localizer_and_a_plan_beside_it(folder):
    dicom_phantoms.write_localizer(Path(folder) / "ct", healthy_phantom().affine)

    def change(dataset):
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = _PLAN
        dataset.Modality = "RTPLAN"

    shutil.copy(Path(folder) / "rs.dcm", Path(folder) / "rp.dcm")
    edit(Path(folder) / "rp.dcm", change)


@unusual()
def a_localizer_of_the_same_series(folder):
    made = healthy_phantom()
    dicom_phantoms.write_localizer(Path(folder) / "ct", made.affine, series="1", copy="scout")


@unusual()
def a_dicomdir_and_notes_beside_it(folder):
    def change(dataset):
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = _DICOMDIR

    shutil.copy(Path(folder) / "rs.dcm", Path(folder) / "DICOMDIR")
    edit(Path(folder) / "DICOMDIR", change)
    (Path(folder) / "notes.txt").write_text("nothing")
    (Path(folder) / "empty").touch()


@unusual()
def slices_in_two_folders(folder):
    (Path(folder) / "ct2").mkdir()
    for path in slices(folder)[1::2]:
        path.rename(Path(folder) / "ct2" / path.name)


@unusual("series_duplicates")
def all_slices_in_two_folders(folder):
    shutil.copytree(Path(folder) / "ct", Path(folder) / "again")


@unusual()
def a_second_series_that_nobody_drew_on(folder):
    made = healthy_phantom()
    dicom_phantoms.write_series(Path(folder) / "ct", made.hu[::-1], made.affine, series="2")


@unusual()
def the_structure_set_lies_there_twice(folder):
    shutil.copy(Path(folder) / "rs.dcm", Path(folder) / "ct" / "copy")


@unusual()
def the_structure_set_is_deflated(folder):
    def change(dataset):
        dataset.file_meta.TransferSyntaxUID = dicom_phantoms.SYNTAXES["deflated"]

    drawing(folder, change)


@unusual()
def names_in_other_letters_and_other_rois(folder):
    def change(dataset):
        rois = dataset.StructureSetROISequence
        for roi in rois:
            roi.ROIName = " " + roi.ROIName.upper().replace("_", "-")
        other = Dataset()
        other.ROINumber, other.ROIName = 77, "Heart_PRV"
        rois.insert(0, other)

    drawing(folder, change)


@unusual()
def contours_a_tenth_of_a_millimetre_off(folder):
    moved(folder, (0, 0, 0.12))


@unusual()
def the_first_point_comes_again(folder):
    def change(dataset):
        for item in heart(dataset):
            item.ContourData = [*item.ContourData, *item.ContourData[:3]]
            item.NumberOfContourPoints += 1

    drawing(folder, change)


@unusual()
def holes_by_exclusive_or(folder):
    def change(dataset):
        for item in heart(dataset):
            item.ContourGeometricType = "CLOSEDPLANAR_XOR"

    drawing(folder, change)


@unusual()
def without_references(folder):
    drawing(folder, _without_references)


@unusual()
def the_structure_set_goes_by_another_patients_number(folder):
    drawing(folder, lambda dataset: setattr(dataset, "PatientID", "another"))


@unusual()
def contours_as_nifti(folder):
    made = healthy_phantom()
    grid = Grid(made.labels.shape, made.affine)
    file_order.write(str(Path(folder) / "labels.nii.gz"), made.labels, grid)
    table(folder, labels="labels.nii.gz")


@unusual()
def a_table_names_folder_and_structure_set(folder):
    table(folder)


@unusual()
def a_heart_twice_one_of_them_empty(folder):
    def change(dataset):
        for number, name in ((901, "Heart"), (902, "HEART")):
            other = Dataset()
            other.ROINumber, other.ROIName = number, name
            dataset.StructureSetROISequence.insert(0, other)
            drawn = Dataset()
            drawn.ReferencedROINumber, drawn.ContourSequence = number, []
            if name == "HEART":  # as RayStation does, no item at all
                dataset.ROIContourSequence.append(drawn)

    drawing(folder, change)


@unusual("contour_interpolated")
def contours_marked_as_interpolated(folder):
    def change(dataset):
        for item in heart(dataset)[::2]:
            item.ContourGeometricType = "INTERPOLATED_PLANAR"

    drawing(folder, change)


def _with_commas(dataset, *keywords):
    for keyword in keywords:
        value = dataset[keyword].value
        values = value if isinstance(value, list | pydicom.multival.MultiValue) else [value]
        text = "\\".join(str(one).replace(".", ",") for one in values).encode()
        text += b" " * (len(text) % 2)
        implicit, little = dataset.original_encoding
        tag = dataset[keyword].tag
        dataset[tag] = RawDataElement(tag, "DS", len(text), text, 0, implicit, little)


@unusual("series_decimal_commas")
def decimal_commas_in_slices(folder):
    def change(dataset):
        dataset.RescaleIntercept = f"{float(dataset.RescaleIntercept):.1f}"
        _with_commas(dataset, "PixelSpacing", "ImagePositionPatient", "RescaleIntercept")

    every(folder, change)


@unusual("contour_commas")
def decimal_commas_in_contours(folder):
    path = Path(folder) / "rs.dcm"
    dataset = pydicom.dcmread(path)
    for item in heart(dataset):
        item.add_new("ContourData", "LT", "\\".join(map(str, item.ContourData)).replace(".", ","))
    dataset.save_as(path)


def as_seg(folder, kind, change=lambda dataset: None, reverse=False):
    """A SEG by highdicom in place of the structure set."""
    import highdicom

    made = healthy_phantom()
    labels, _ = dicom_phantoms.posed(made.labels, made.affine)
    sources = [pydicom.dcmread(path) for path in slices(folder)]
    planes = np.ascontiguousarray(labels.T).astype(np.uint8)
    if reverse:
        sources, planes = sources[::-1], planes[::-1]
    segments = []
    for organ in SEGTHOR:
        code = highdicom.sr.CodedConcept(organ.snomed, "SCT", organ.name)
        segments.append(
            highdicom.seg.SegmentDescription(
                segment_number=organ.label,
                segment_label=organ.name,
                segmented_property_category=pydicom.sr.codedict.codes.SCT.AnatomicalStructure,
                segmented_property_type=code,
                algorithm_type="MANUAL",
            )
        )
    dataset = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=planes,
        segmentation_type=highdicom.seg.SegmentationTypeValues[kind],
        segment_descriptions=segments,
        series_instance_uid="1.2.3.4",
        series_number=1,
        sop_instance_uid="1.2.3.5",
        instance_number=1,
        manufacturer="another",
        manufacturer_model_name="another",
        software_versions="1",
        device_serial_number="1",
    )
    change(dataset)
    dataset.save_as(Path(folder) / "seg.dcm")
    (Path(folder) / "rs.dcm").unlink()


@unusual()
def contours_as_segments(folder):
    as_seg(folder, "BINARY")


@unusual()
def contours_as_segments_of_the_newer_kind(folder):
    as_seg(folder, "LABELMAP", reverse=True)


@unusual()
def segments_that_codes_alone_name(folder):
    def change(dataset):
        for item in dataset.SegmentSequence:
            item.SegmentLabel = f"Segment {item.SegmentNumber}"

    as_seg(folder, "BINARY", change)


@unusual()
def segments_that_labels_alone_name(folder):
    def change(dataset):
        for item in dataset.SegmentSequence:
            item.SegmentedPropertyTypeCodeSequence[0].CodeValue = "123037004"

    as_seg(folder, "BINARY", change)


@unusual()
def segments_beside_a_structure_set(folder):
    rs = (Path(folder) / "rs.dcm").read_bytes()
    as_seg(folder, "BINARY")
    (Path(folder) / "rs.dcm").write_bytes(rs)


for _name, _code in (
    ("decimal_commas_in_slices", "series_decimal_commas"),
    ("decimal_commas_in_contours", "contour_commas"),
    ("contours_marked_as_interpolated", "contour_interpolated"),
):
    DAMAGES[_name] = (_code, UNUSUAL[_name][1])
