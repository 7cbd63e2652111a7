"""The recipe: frozen, checked, serialisable; window, level, context."""

import json
from dataclasses import replace

import numpy as np
import pytest

from segthor import fields
from segthor.errors import InputError
from segthor.geometry import Placement
from segthor.organs import SEGTHOR
from segthor.recipe import Prepared, Recipe, context_positions, prepare, window
from tests import file_order

AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])


def a_scan():
    """A body of 40 HU with a heart of 120 HU, and its labels."""
    hu = np.full((100, 90, 8), -1000, np.int16)
    hu[20:80, 20:70] = 40
    labels = np.zeros(hu.shape, np.uint8)
    labels[50:70, 30:50, 2:6] = 2
    hu[labels == 2] = 120
    return file_order.volume(hu, AFFINE), file_order.label_map(labels, AFFINE)


def test_json_restores_the_recipe_and_its_digest():
    recipe = Recipe(
        crop_mm=200, pixel_mm=0, window_level="median:heart,aorta", crop_center="organs:heart"
    )
    back = fields.from_json(Recipe, json.loads(json.dumps(recipe.to_json())), "recipe")
    assert back == recipe and back.digest() == recipe.digest()
    assert Recipe().digest() != recipe.digest()


def test_a_field_of_another_version_is_refused():
    with pytest.raises(InputError, match="zoom"):
        fields.from_json(Recipe, {**Recipe().to_json(), "zoom": 2}, "recipe")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_mm", -1),
        ("pixel_mm", -0.1),
        ("pixel_mm", 1e-9),
        ("context", 2),
        ("context", 0),
        ("window_width_hu", 0),
        ("window_level", "median:the liver"),
        ("window_level", "mode:heart"),
        ("window_level", "bright"),
        ("window_level", "nan"),
        ("crop_center", "organs:"),
        ("crop_center", "lung"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(field, value):
    with pytest.raises(InputError, match="expected .* found"):
        Recipe(**{field: value})


@pytest.mark.parametrize("choice", [{"window_level": "median:liver"}, {"crop_center": "organs:a"}])
def test_an_organ_that_the_table_lacks_is_refused_by_name(choice):
    Recipe(window_level="mean:heart", crop_center="organs:aorta").require_organs(SEGTHOR)
    with pytest.raises(InputError, match="expected organs of esophagus, .* found"):
        Recipe(**choice).require_organs(SEGTHOR)


def test_matrix_is_a_multiple_of_32_that_covers_the_box():
    assert Recipe(crop_mm=256, pixel_mm=1).size_px == 256
    assert Recipe(crop_mm=257, pixel_mm=1).size_px == 288
    assert Recipe(crop_mm=240, pixel_mm=2.5).size_px == 96
    assert Recipe(crop_mm=224, pixel_mm=0).size_px == 224


def test_window_maps_the_originals_range_to_0_and_255():
    hu = np.array([-3024, -125, -124, 50, 224, 225, 31743])
    assert window(hu, 50, 350).tolist() == [0, 0, 1, 128, 254, 255, 255]


def test_window_is_monotonic_and_follows_the_level():
    hu = np.arange(-1000, 1000)
    assert (np.diff(window(hu, 77, 300).astype(int)) >= 0).all()
    # One grey level per HU, so that rounding hides nothing.
    np.testing.assert_array_equal(window(hu + 31, 77.5 + 31, 255), window(hu, 77.5, 255))
    assert window(np.array([77, 78]), 77.5, 255).tolist() == [127, 128]


def test_level_is_the_organs_own():
    hu, labels = a_scan()
    hu.zyx[3, 40, 60] = 3000  # metal moves the mean, not the median
    assert prepare(hu, Recipe(window_level="median:heart"), labels).level_hu == 120
    mean = prepare(hu, Recipe(window_level="mean:heart"), labels).level_hu
    assert mean == pytest.approx(120 + 2880 / 1600)
    assert prepare(hu, Recipe(window_level="-7.5"), labels).level_hu == -7.5


def test_masks_give_level_and_centre_where_there_are_no_contours():
    hu, labels = a_scan()
    recipe = Recipe(window_level="median:heart", crop_center="organs:heart", crop_mm=64, pixel_mm=0)
    from_masks = prepare(hu, recipe, masks=labels)
    assert from_masks.level_hu == 120 and from_masks.labels is None
    assert from_masks.placement == prepare(hu, recipe, labels).placement
    with pytest.raises(InputError, match="neither contours nor masks"):
        prepare(hu, recipe)
    with pytest.raises(InputError, match="none of these organs"):
        prepare(hu, recipe, masks=replace(labels, zyx=np.zeros_like(labels.zyx)))


def test_box_follows_body_or_organ():
    hu, labels = a_scan()
    body = prepare(hu, Recipe(crop_mm=32, pixel_mm=0), labels)
    heart = prepare(hu, Recipe(crop_mm=32, pixel_mm=0, crop_center="organs:heart"), labels)
    assert body.placement.first_px == (45 - 16, 50 - 16)
    assert heart.placement.first_px == (40 - 16, 60 - 16)
    assert heart.labels_outside == 0
    assert np.count_nonzero(heart.labels == 2) == np.count_nonzero(labels.zyx == 2)


def test_air_alone_is_refused():
    with pytest.raises(InputError, match="no body"):
        prepare(file_order.volume(np.full((40, 40, 4), -1000, np.int16), AFFINE), Recipe())


def context_image(images, z, recipe, spacing_mm=3.0, planes_mm=None):
    shape = images.shape
    placement = Placement(shape, (spacing_mm, 1.0, 1.0), (0, 0), (1, 1), shape[1], planes_mm)
    return Prepared(images, None, np.empty(0), placement, 0.0, 0).image(z, recipe)


def test_context_repeats_the_end_slice():
    def positions(z, slices, context):
        return list(context_positions(z, Recipe(context=context), np.arange(slices)))

    assert positions(0, 5, 3) == [0, 0, 1]
    assert positions(4, 5, 5) == [2, 3, 4, 4, 4]
    assert positions(0, 1, 3) == [0, 0, 0]
    slices = np.arange(4 * 2 * 2, dtype=np.uint8).reshape(4, 2, 2)
    image = context_image(slices, 1, Recipe(context=3))
    np.testing.assert_array_equal(image, np.moveaxis(slices[:3], 0, -1))


def test_context_in_mm_is_the_same_for_a_scan_with_thinner_slices():
    random = np.random.default_rng(0)
    thick = random.integers(0, 256, (6, 5, 5), dtype=np.uint8)
    share = np.arange(16)[:, None, None] / 3 % 1
    lower = np.minimum(np.arange(16) // 3, 4)
    thin = np.rint(thick[lower] * (1 - share) + thick[lower + 1] * share).astype(np.uint8)
    thin[15] = thick[5]
    recipe = Recipe(context=5, context_mm=3.0)
    for z in range(6):
        expected = context_image(thick, z, Recipe(context=5), spacing_mm=3.0)
        np.testing.assert_array_equal(context_image(thick, z, recipe, 3.0), expected)
        np.testing.assert_array_equal(context_image(thin, 3 * z, recipe, 1.0), expected)


@pytest.mark.parametrize("planes_mm", [None, (0.0, 2.0, 7.0, 8.5, 13.0, 13.5, 20.0)])
def test_context_in_mm_is_interpolated_between_planes(planes_mm):
    slices = np.random.default_rng(1).integers(0, 256, (7, 3, 4), dtype=np.uint8)[:, :3, :3]
    offsets = planes_mm or np.arange(7) * 2.5
    recipe = Recipe(context=3, context_mm=4.0)
    for z in range(7):
        image = context_image(slices, z, recipe, 2.5, planes_mm)
        for channel, wanted_mm in enumerate(offsets[z] + np.array([-4.0, 0.0, 4.0])):
            for row, column in np.ndindex(3, 3):
                exact = np.interp(wanted_mm, offsets, slices[:, row, column].astype(float))
                assert abs(image[row, column, channel] - exact) <= 0.5 + 1e-3


def test_recipes_without_context_in_mm_keep_their_digest():
    earlier = {
        "crop_mm": 256.0,
        "pixel_mm": 1.0,
        "context": 3,
        "window_width_hu": 350.0,
        "window_level": "50",
        "crop_center": "body",
    }
    assert Recipe().to_json() == earlier
    assert fields.from_json(Recipe, earlier, "recipe") == Recipe()
    chosen = Recipe(context_mm=3.0)
    assert chosen.digest() != Recipe().digest()
    assert fields.from_json(Recipe, chosen.to_json(), "recipe") == chosen
