"""Context in millimetres: a scan and its copies with thinner slices are predicted alike."""

import nibabel
import numpy as np
import pytest
import tensorflow as tf

import serving
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe
from serving.prediction import bundle

THICK_MM = 3.0


def save_mixing(folder, context_mm: float) -> str:
    """Saves a model that mixes the three channels of a pixel. Returns its folder."""
    recipe = Recipe(crop_mm=64, pixel_mm=0, context=3, context_mm=context_mm)
    mixing = tf.Variable(np.random.default_rng(0).normal(0, 3, (3, 5)).astype(np.float32))

    def network(images):
        return {"probabilities": tf.nn.softmax(images @ mixing / 255)}

    contents = bundle.Contents(recipe, SEGTHOR.names, SEGTHOR, {})
    return bundle.save(str(folder), network, [mixing], contents)


def thick_scan() -> nibabel.Nifti1Image:
    """Ten slices of random tissue in air."""
    hu = np.full((48, 48, 10), -1000, np.int16)
    hu[4:-4, 4:-4] = np.random.default_rng(1).integers(-100, 200, (40, 40, 10))
    return nibabel.Nifti1Image(hu, np.diag([2.0, 2.0, THICK_MM, 1.0]))


def resample(scan, every: int) -> nibabel.Nifti1Image:
    """The scan with `every` times as many slices, interpolated linearly."""
    thick = np.asarray(scan.dataobj, float)
    thin = np.apply_along_axis(
        lambda line: np.interp(np.arange(9 * every + 1) / every, np.arange(10), line), 2, thick
    )
    affine = scan.affine @ np.diag([1, 1, 1 / every, 1])
    return nibabel.Nifti1Image(np.rint(thin).astype(np.int16), affine)


def probabilities(model: str, scan) -> np.ndarray:
    """[organ, x, y, z]."""
    segmenter = serving.Segmenter(model)
    result = segmenter((np.asarray(scan.dataobj), scan.affine), name="scan", probabilities=True)
    return np.stack(list(result.probabilities().values()))


@pytest.mark.parametrize("every", [2, 3])
def test_slices_that_a_thinner_copy_keeps_get_the_same_probabilities(tmp_path, every):
    thick = thick_scan()
    thin = resample(thick, every)
    np.testing.assert_array_equal(np.asarray(thin.dataobj)[..., ::every], thick.dataobj)
    fixed = save_mixing(tmp_path / "fixed", THICK_MM)
    expected = probabilities(fixed, thick)
    np.testing.assert_array_equal(probabilities(fixed, thin)[..., ::every], expected)
    # Neighbouring slices are nearer in the copy, so without context_mm the network sees others.
    adjacent = save_mixing(tmp_path / "adjacent", 0)
    np.testing.assert_array_equal(probabilities(adjacent, thick), expected)
    differs = probabilities(adjacent, thin)[..., ::every] != expected
    assert differs[:, 4:-4, 4:-4].mean() > 0.5
