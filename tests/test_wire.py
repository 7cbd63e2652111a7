"""What crosses workers in the data job: plans and counts, a few kB a patient, never a voxel."""

import pytest
from apache_beam.coders import registry
from cases import TINY_RECIPE, save_patients

from beam_jobs import pipeline, plan, shards
from beam_jobs.counts import total
from beam_jobs.job import Job
from segthor import inputs, phantom
from segthor.organs import SEGTHOR
from segthor.patients import Patient
from segthor.recipe import Recipe
from serving.prediction.distributed import CASES_PER_ELEMENT

ELEMENT_BYTES, PATIENT_BYTES = 8_000, 8_000


def encoded(value) -> int:
    """Bytes of a value as Beam's default coder puts it on the wire."""
    return len(registry.get_coder(type(value)).encode(value))


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    return inputs.find(save_patients(tmp_path_factory.mktemp("twelve"), 12), organs=SEGTHOR)


def plans_of(sources, most=4):
    return plan.plan_shards(sources, plan.assign_splits(sources, "hash", 0.2, 2, 0), most)


def test_a_plan_is_a_few_hundred_bytes_a_patient(twelve):
    sizes = {one.name: (encoded(one), len(one.patients)) for one in plans_of(twelve)}
    assert max(size for size, _ in sizes.values()) < ELEMENT_BYTES
    assert all(size < 400 + 600 * count for size, count in sizes.values())


def test_the_largest_shard_of_the_usual_recipe_is_still_a_small_element(twelve):
    most = plan.patients_per_shard(Recipe(context=1, pixel_mm=4))
    many = [
        Patient(
            f"Patient_{n:06d}",
            f"/{'d' * 80}/{n}.nii.gz",
            f"/{'d' * 80}/{n}gt.nii.gz",
            organs=SEGTHOR.names,
        )
        for n in range(4 * most)
    ]
    largest = max(plans_of(many, most), key=lambda one: len(one.patients))
    assert encoded(largest) < 600 * len(largest.patients)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_bytes_a_patient_are_those_of_rows_however_large_the_scans(size, twelve, tmp_path):
    if size == "small":
        phantom.write_dataset(str(tmp_path / "in"), 2, 0, "small", 0, report=lambda line: None)
        sources = inputs.find(str(tmp_path / "in"), organs=SEGTHOR)
        recipe = Recipe(crop_mm=264.0, pixel_mm=2.75)
    else:
        sources, recipe = twelve, Recipe(**TINY_RECIPE)
    job, plans = Job(str(tmp_path / "out"), recipe, organs=SEGTHOR), plans_of(sources)
    writer = pipeline.WriteShard(job)
    writer.start_bundle()
    counts = [value for one in plans for value in writer.process(one)]
    wire = sum(map(encoded, plans)) + sum(map(encoded, counts))
    assert max(map(encoded, counts)) < ELEMENT_BYTES
    assert wire / len(sources) < PATIENT_BYTES
    written = sum(shards.Part.load(job.output, one.name).shard.bytes for one in plans)
    assert wire < written / 5
    assert encoded(total(counts)) < 2 * ELEMENT_BYTES


def test_prediction_sends_paths_alone():
    scan = Patient("Patient_41", f"/{'d' * 80}/Patient_41.nii.gz", organs=SEGTHOR.names)
    assert encoded((scan,) * CASES_PER_ELEMENT) < 400 * CASES_PER_ELEMENT
