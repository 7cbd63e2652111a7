"""Phantoms as DICOM series, made with pydicom and GDCM alone: healthy ones and odd ones.

`posed` gives the voxels and the affine as a reader should find them, `write_series` writes them.
"""

import tempfile
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

# How a scanner stores each patient position: LPS directions along a row and down a column.
POSES = {
    "HFS": ((1, 0, 0), (0, 1, 0)),
    "HFP": ((-1, 0, 0), (0, -1, 0)),
    "FFS": ((-1, 0, 0), (0, 1, 0)),
    "FFP": ((1, 0, 0), (0, -1, 0)),
    "HFDR": ((0, 1, 0), (-1, 0, 0)),
    "HFDL": ((0, -1, 0), (1, 0, 0)),
    "FFDR": ((0, -1, 0), (-1, 0, 0)),
    "FFDL": ((0, 1, 0), (1, 0, 0)),
}
SYNTAXES = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big_endian": "1.2.840.10008.1.2.2",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg_lossless": "1.2.840.10008.1.2.4.57",
    "jpeg_lossless_sv1": "1.2.840.10008.1.2.4.70",
    "jpeg_ls": "1.2.840.10008.1.2.4.80",
    "jpeg_2000_lossless": "1.2.840.10008.1.2.4.90",
    "jpeg_2000": "1.2.840.10008.1.2.4.91",
}
CT, ENHANCED = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS to LPS and back


def uid(*names) -> str:
    """The same names always give the same UID."""
    return generate_uid(entropy_srcs=[str(name) for name in names])


def posed(hu, affine, patient_position="HFS", tilt_degrees=0.0):
    """The same patient, axes turned as a scanner stores that position: (array, affine RAS+).

    tilt_degrees: the rows' plane is then turned about the row axis while slices still move along
    the old normal, as with a tilted gantry. [X, Y, Z] in any order of axes may be given.
    """
    lps = _FLIP @ affine
    row, column = (np.array(direction, float) for direction in POSES[patient_position])
    wanted = np.stack([row, column, np.cross(row, column)], axis=1)
    alike = wanted.T @ (lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0))
    axes = np.abs(alike).argmax(1)
    hu, lps = hu.transpose(axes), lps[:, [*axes, 3]]
    for axis in range(3):
        if alike[axis, axes[axis]] < 0:
            hu = np.flip(hu, axis)
            lps[:3, 3] += lps[:3, axis] * (hu.shape[axis] - 1)
            lps[:3, axis] *= -1
    if tilt_degrees:
        angle, length = np.radians(tilt_degrees), np.linalg.norm(lps[:3, 1])
        x, y = (lps[:3, i] / np.linalg.norm(lps[:3, i]) for i in (0, 1))
        lps[:3, 1] = length * (np.cos(angle) * y - np.sin(angle) * np.cross(x, y))
    return hu, _FLIP @ lps


def positions_mm(affine, num_slices) -> np.ndarray:
    """LPS positions [Z, 3] of the slices of an array that `posed` gave."""
    lps = _FLIP @ affine
    return lps[:3, 3] + np.arange(num_slices)[:, None] * lps[:3, 2]


def write_series(folder, hu, affine, **options) -> list[str]:
    """Writes a posed array as files in array order (or as one, if enhanced); returns their paths.

    Options, all by keyword; a `change` and `without` damage what is otherwise healthy:
      patient_position: as given to `posed`; only noted down.
      syntax: a key of SYNTAXES. enhanced: all slices in one file. preamble: False leaves it out.
      series, study, frame, patient: names that UIDs and PatientID are made from.
      signed, bits, slope, intercept: of the stored values; slope and intercept may be lists.
      missing: slices that are left out. acquisition: number, or a function of k.
      copy: a word for file names and image UIDs, to write a series into a folder that has it.
      shuffle: a seed for file names in random order.
      image_type: text. without: keywords to leave out. change: called with (data set, k).
    """
    chosen = dict(
        patient_position="HFS", syntax="explicit", enhanced=False, preamble=True, series="1",
        study="1", frame="1", patient="1", signed=True, bits=16, slope=1, intercept=0, missing=(),
        acquisition=1, copy="", shuffle=None, image_type="ORIGINAL\\PRIMARY\\AXIAL", without=(),
        change=lambda dataset, k: None,
    )  # fmt: skip
    if set(options) - set(chosen):
        raise TypeError(f"unknown options {sorted(set(options) - set(chosen))}")
    chosen |= options
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [k for k in range(hu.shape[2]) if k not in chosen["missing"]]
    stored = [_stored(hu, k, chosen) for k in wanted]
    if chosen["enhanced"]:
        datasets = [_enhanced(hu, affine, wanted, stored, chosen)]
    else:
        datasets = [
            _slice(hu, affine, k, plane, chosen) for k, plane in zip(wanted, stored, strict=True)
        ]
    names = [f"{chosen['series']}{chosen['copy']}-{k:03d}.dcm" for k in range(len(datasets))]
    if chosen["shuffle"] is not None:
        np.random.default_rng(chosen["shuffle"]).shuffle(names)
    paths = [str(folder / name) for name in names]
    for k, path, dataset in zip(wanted, paths, datasets, strict=False):
        for keyword in chosen["without"]:
            if keyword in dataset:
                delattr(dataset, keyword)
        chosen["change"](dataset, k)
        save(dataset, path, preamble=chosen["preamble"])
    return paths


def write_localizer(folder, affine, **options) -> list[str]:
    """One coronal scout of the same study and frame of reference, 40 x 30 pixels."""
    scout = np.zeros((40, 30, 1), np.int16)
    lps = np.array([[5, 0, 0, -100], [0, 0, -1, 0], [0, -5, 0, 100], [0, 0, 0, 1]], float)
    names = {"series": "scout", "image_type": "ORIGINAL\\PRIMARY\\LOCALIZER", **options}
    return write_series(folder, scout, _FLIP @ lps, **names)


def write_structures(path, contours, **options) -> str:
    """A structure set of one ROI without more than indexing needs; returns its path.

    contours: a list of LPS points [N, 3] each. Options: study, series, frame, patient as of the CT;
    images: SOP UIDs of the images referred to; change: called with the data set.
    """
    of = dict(study="1", series="1", frame="1", patient="1", images=(), change=lambda dataset: None)
    of |= options
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = uid("structures", *of.values(), path)
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset = FileDataset(None, {}, bytes(128), meta)
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, uid("structures", path)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study", of["study"]), uid("rt", path)
    dataset.Modality, dataset.PatientID = "RTSTRUCT", f"ID{of['patient']}"
    dataset.PatientName, dataset.StructureSetLabel = f"Secret^{of['patient']}", "Label"
    series, study, frame, roi, drawn = (Dataset() for _ in range(5))
    series.SeriesInstanceUID = uid("series", of["series"])
    series.ContourImageSequence = [Dataset() for _ in of["images"]]
    for image, image_uid in zip(series.ContourImageSequence, of["images"], strict=True):
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = CT, image_uid
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = uid("frame", of["frame"]), [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    roi.ROINumber, roi.ROIName = 1, "SecretRoi"
    roi.ReferencedFrameOfReferenceUID = uid("frame", of["frame"])
    dataset.StructureSetROISequence = [roi]
    drawn.ReferencedROINumber, drawn.ContourSequence = 1, []
    for points in contours:
        contour = Dataset()
        contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
        contour.ContourData = [_ds(mm) for mm in np.ravel(points)]
        drawn.ContourSequence.append(contour)
    dataset.ROIContourSequence = [drawn]
    of["change"](dataset)
    dataset.save_as(path, enforce_file_format=True)
    return str(path)


def save(dataset, path, preamble=True) -> None:
    """Writes a data set with its own transfer syntax."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if preamble:
        dataset.save_as(path, enforce_file_format=True)
    else:
        del dataset.file_meta
        dataset.preamble = None
        pydicom.dcmwrite(
            path, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian
        )


def _common(hu, plane, of, sop_class, *names) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid("sop", of["series"], of["copy"], *names)
    meta.TransferSyntaxUID = syntax = UID(SYNTAXES[of["syntax"]])
    encoding = syntax.is_implicit_VR, syntax.is_little_endian
    dataset = FileDataset(None, {}, bytes(128), meta, *encoding)
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = uid("study", of["study"])
    dataset.SeriesInstanceUID = uid("series", of["series"])
    dataset.FrameOfReferenceUID = uid("frame", of["frame"])
    dataset.Modality, dataset.PatientPosition = "CT", of["patient_position"]
    dataset.PatientName, dataset.PatientID = f"Secret^{of['patient']}", f"ID{of['patient']}"
    dataset.PatientBirthDate = dataset.StudyDate = "19700102"
    dataset.StudyTime, dataset.PatientSex, dataset.StudyID = "120000", "O", "1"
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer, dataset.KVP, dataset.SeriesNumber = "Phantom", 120, 1
    dataset.ImageType = of["image_type"]
    dataset.Rows, dataset.Columns = hu.shape[1], hu.shape[0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored = plane.dtype.itemsize * 8, of["bits"]
    dataset.HighBit, dataset.PixelRepresentation = of["bits"] - 1, int(of["signed"])
    return dataset


def _slice(hu, affine, k, plane, of):
    dataset = _common(hu, plane, of, CT, k)
    number = of["acquisition"](k) if callable(of["acquisition"]) else of["acquisition"]
    dataset.InstanceNumber, dataset.AcquisitionNumber = k + 1, number
    dataset.RescaleSlope, dataset.RescaleIntercept = _rescale(of, k)
    _place(dataset, dataset, dataset, affine, k)
    _set_pixels(dataset, plane[None], of)
    return dataset


def _enhanced(hu, affine, wanted, stored, of):
    dataset = _common(hu, stored[0], of, ENHANCED, "all")
    dataset.NumberOfFrames = len(wanted)
    dataset.InstanceNumber, dataset.AcquisitionNumber = 1, 1
    shared, per_frame = Dataset(), []
    for k in wanted:
        position, orientation, measures, rescale, frame = (Dataset() for _ in range(5))
        _place(position, orientation, measures, affine, k)
        rescale.RescaleSlope, rescale.RescaleIntercept = _rescale(of, k)
        rescale.RescaleType = "HU"
        frame.PlanePositionSequence = [position]
        frame.PixelValueTransformationSequence = [rescale]
        per_frame.append(frame)
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = per_frame
    _set_pixels(dataset, np.stack(stored), of)
    return dataset


def _place(of_position, of_orientation, of_spacing, affine, k):
    lps = _FLIP @ affine
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    of_position.ImagePositionPatient = [_ds(mm) for mm in lps[:3, 3] + k * lps[:3, 2]]
    cosines = (lps[:3, :2] / lengths[:2]).T.ravel()
    of_orientation.ImageOrientationPatient = [_ds(cosine) for cosine in cosines]
    of_spacing.PixelSpacing = [_ds(lengths[1]), _ds(lengths[0])]
    of_spacing.SliceThickness = _ds(lengths[2])


def _ds(number) -> str:
    """At most 16 characters, as the standard asks."""
    return f"{number:.10f}"[:16]


def _rescale(of, k):
    return tuple(
        value[k] if isinstance(value, list) else value for value in (of["slope"], of["intercept"])
    )


def _stored(hu, k, of) -> np.ndarray:
    """Stored values [rows, columns] that give the HU back."""
    slope, intercept = _rescale(of, k)
    values = np.rint((hu[:, :, k].T - float(intercept)) / float(slope))
    dtype = np.dtype(f"{'i' if of['signed'] else 'u'}{4 if of['bits'] > 16 else 2}")
    low = -(2 ** (of["bits"] - 1)) if of["signed"] else 0
    assert low <= values.min() and values.max() < low + 2 ** of["bits"], "values do not fit"
    return values.astype(dtype)


def _set_pixels(dataset, planes, of):
    syntax = SYNTAXES[of["syntax"]]
    order = ">" if of["syntax"] == "big_endian" else "<"
    dataset.PixelData = planes.astype(planes.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OW"
    if UID(syntax).is_encapsulated:
        dataset.PixelData = _compressed(dataset, planes, syntax)
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True


def _compressed(dataset, planes, syntax) -> bytes:
    """Encapsulated pixel data, compressed by GDCM."""
    with tempfile.TemporaryDirectory() as folder:
        reader = gdcm.ImageReader()
        reader.SetFileName(_plain_file(dataset, planes, f"{folder}/plain.dcm"))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change(), syntax
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(f"{folder}/packed.dcm")
        assert writer.Write()
        return pydicom.dcmread(f"{folder}/packed.dcm").PixelData


def _plain_file(dataset, planes, path):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    plain = FileDataset(None, dataset, file_meta=meta, preamble=bytes(128))
    plain.PixelData = planes.astype(planes.dtype.newbyteorder("<")).tobytes()
    plain.save_as(path, enforce_file_format=True)
    return path
