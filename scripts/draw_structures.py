"""Draws docs/images/structures.png: our structure set on its CT, both read by other programs.

  python scripts/draw_structures.py OUTPUT.png

A full-size phantom becomes a DICOM series, serving.convert makes a structure set of its contours,
plastimatch reads that, SimpleITK the series, and matplotlib draws them.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import nibabel
import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import dicom_phantoms  # noqa: E402 - the tests' writer of series, which shares nothing with ours

from segthor.organs import SEGTHOR  # noqa: E402

LEVEL_HU, WIDTH_HU = 40, 400
MARGIN_PX = 24


def main(output: str) -> None:
    """Makes the series and its structure set, and draws three planes."""
    with tempfile.TemporaryDirectory() as folder:
        series, labels = _series(Path(folder))
        _run("serving.convert", predictions=labels, scans=series, output=f"{folder}/sets")
        (structures,) = Path(folder, "sets").glob("*.dcm")
        hu, spacing_mm, masks = _read(series / "phantom", structures, Path(folder, "masks"))
    _draw(hu, spacing_mm, masks, output)


def _series(folder: Path) -> tuple[Path, Path]:
    _run("segthor.phantom", output=folder / "made", patients=1, test_patients=0, size="full")
    ct, labels = sorted((folder / "made/train/Patient_01").glob("*.nii.gz"), reverse=True)
    image = nibabel.load(ct)
    hu, affine = dicom_phantoms.posed(np.asarray(image.dataobj), image.affine)
    dicom_phantoms.write_series(folder / "series/phantom", hu.astype(np.int16), affine)
    contours = nibabel.load(labels)
    array, affine = dicom_phantoms.posed(np.asarray(contours.dataobj), contours.affine)
    (folder / "labels").mkdir()
    nibabel.Nifti1Image(array, affine).to_filename(folder / "labels/phantom.nii.gz")
    return folder / "series", folder / "labels"


def _run(module: str, **flags) -> None:
    words = [f"--{name}={value}" for name, value in flags.items()]
    subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, check=True)


def _read(series: Path, structures: Path, output: Path):
    """HU [Z, Y, X], spacing in mm, and TG-263 name to bool [Z, Y, X], read by other programs."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    image = reader.Execute()
    command = ["plastimatch", "convert", "--input", structures, "--referenced-ct", series]
    command += ["--output-prefix", output, "--prefix-format", "nii.gz"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    masks = {
        path.name.removesuffix(".nii.gz"): sitk.GetArrayFromImage(sitk.ReadImage(path)) > 0
        for path in output.glob("*.nii.gz")
    }
    return sitk.GetArrayFromImage(image), image.GetSpacing()[::-1], masks


def _draw(hu, spacing_mm, masks, output: str) -> None:
    together = np.any(list(masks.values()), 0)
    at = [int(round(place.mean())) for place in np.nonzero(masks[SEGTHOR["trachea"].tg263])]
    at[0] = int(np.argmax(sum(mask.any((1, 2)).astype(int) for mask in masks.values())))
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.6), layout="constrained")
    for axis, (title, normal, names) in zip(axes, _PLANES, strict=True):
        rows, columns = (n for n in range(3) if n != normal)
        around = np.nonzero(together.any(normal))
        window = tuple(slice(max(0, p.min() - MARGIN_PX), p.max() + MARGIN_PX) for p in around)
        place = [slice(None)] * 3
        place[normal] = at[normal]
        size_mm = spacing_mm[columns], spacing_mm[rows]
        plane = hu[tuple(place)][window]
        x_mm, y_mm = (np.arange(n) * mm for n, mm in zip(plane.shape[::-1], size_mm, strict=True))
        low, high = LEVEL_HU - WIDTH_HU / 2, LEVEL_HU + WIDTH_HU / 2
        axis.pcolormesh(x_mm, y_mm, plane, cmap="gray", vmin=low, vmax=high, rasterized=True)
        for organ in SEGTHOR:
            mask = masks[organ.tg263][tuple(place)][window]
            colour = [tuple(part / 255 for part in organ.rgb)]
            if mask.any():
                axis.contour(x_mm, y_mm, mask, [0.5], colors=colour, linewidths=1.4)
        axis.set(title=title, aspect="equal", xlabel=names[0], ylabel=names[1])
        if normal == 0:
            axis.invert_yaxis()  # rows run from front to back
    handles = [plt.Line2D([], [], color=[part / 255 for part in o.rgb]) for o in SEGTHOR]
    figure.legend(handles, [o.tg263 for o in SEGTHOR], loc="outside lower center", ncols=4)
    figure.savefig(output, dpi=90)


_PLANES = (
    ("axial", 0, ("mm, patient's right to left", "mm, front to back")),
    ("coronal", 1, ("mm, patient's right to left", "mm, feet to head")),
    ("sagittal", 2, ("mm, front to back", "mm, feet to head")),
)

if __name__ == "__main__":
    main(sys.argv[1])
