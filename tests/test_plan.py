"""Who goes where: by name alone, so that an added patient moves nobody else."""

from collections import Counter

import pytest

from beam_jobs.plan import assign_splits, choose_split, patients_per_shard, plan_shards
from segthor.errors import InputError
from segthor.manifest import TRAIN, VALIDATION
from segthor.patients import Patient
from segthor.recipe import Recipe


def named(names, split=""):
    return [Patient(name, f"{name}.nii", f"{name}_gt.nii", split) for name in names]


SEGTHOR = named(f"Patient_{number:02d}" for number in range(1, 41))
MANY = named(f"case{number}" for number in range(2000))


def test_the_original_split_is_that_of_the_references():
    assigned = assign_splits(SEGTHOR, "original", 0.2, 5, 0)
    held_out = {name for name, (split, _) in assigned.items() if split == VALIDATION}
    assert held_out == {f"Patient_{number:02d}" for number in (1, 3, 12, 14, 15, 17, 34, 39)}


def test_split_auto_takes_the_first_that_fits():
    assert choose_split("auto", SEGTHOR) == "original"
    assert choose_split("auto", SEGTHOR[1:2] + SEGTHOR[3:9]) == "hash"  # none of the eight
    assert choose_split("auto", SEGTHOR[:1] + SEGTHOR[2:3]) == "hash"  # only of the eight
    assert choose_split("auto", MANY) == "hash"
    assert choose_split("auto", [*SEGTHOR, *named(["Patient_61"])]) == "hash"  # not SegTHOR's
    assert choose_split("auto", named("ab", TRAIN)) == "csv"
    assert choose_split("hash", SEGTHOR) == "hash"


def test_a_split_that_the_patients_do_not_allow_is_refused():
    with pytest.raises(InputError, match="b has no value"):
        choose_split("csv", named("a", TRAIN) + named("b"))
    with pytest.raises(InputError, match="b has no value"):
        choose_split("auto", named("a", TRAIN) + named("b"))
    with pytest.raises(InputError, match="found case0"):
        choose_split("original", MANY)


def test_the_csvs_split_is_taken_as_it_stands():
    assigned = assign_splits(named("ab", TRAIN) + named("cd", VALIDATION), "csv", 0.2, 3, 0)
    assert [assigned[name][0] for name in "abcd"] == [TRAIN, TRAIN, VALIDATION, VALIDATION]


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 1.0])
def test_the_hash_deals_the_fraction_and_even_folds(fraction):
    assigned = assign_splits(MANY, "hash", fraction, 4, seed=7)
    share = sum(split == VALIDATION for split, _ in assigned.values()) / len(MANY)
    assert abs(share - fraction) <= 0.04
    folds = Counter(fold for _, fold in assigned.values())
    assert set(folds) == {0, 1, 2, 3}
    assert max(folds.values()) - min(folds.values()) < 120
    assert assigned != assign_splits(MANY, "hash", fraction, 4, seed=8)


def test_an_added_patient_moves_nobody_else():
    fewer = assign_splits(MANY[:-1], "hash", 0.2, 5, 0)
    assert {**assign_splits(MANY, "hash", 0.2, 5, 0), **fewer} == assign_splits(
        MANY, "hash", 0.2, 5, 0
    )


@pytest.mark.parametrize("shards", [0, 3])
def test_every_patient_lies_in_one_shard_of_its_own_split_and_fold(shards):
    assigned = assign_splits(MANY, "hash", 0.2, 5, 0)
    plans = plan_shards(MANY, assigned, max_patients=7, shards=shards)
    placed = [source.name for plan in plans for source in plan.patients]
    assert sorted(placed) == sorted(source.name for source in MANY)
    assert len({plan.name for plan in plans}) == len(plans)
    for plan in plans:
        assert {assigned[source.name] for source in plan.patients} == {(plan.split, plan.fold)}
        assert list(plan.patients) == sorted(plan.patients, key=lambda source: source.name)
        assert shards or 1 <= len(plan.patients) <= 7
    if shards:
        assert len(plans) == 2 * 5 * 3
    else:
        assert len(plans) < len(MANY) / 3  # shards are filled to about 70 % on average


def test_the_plan_does_not_depend_on_the_order_of_discovery():
    assigned = assign_splits(MANY, "hash", 0.2, 5, 0)
    assert plan_shards(MANY[::-1], assigned, max_patients=7) == plan_shards(
        MANY, assigned, max_patients=7
    )


@pytest.mark.parametrize("extra", range(1, 40, 6))
def test_an_added_patient_changes_its_own_shard_alone(extra):
    patients = MANY[: 300 + extra]
    assigned = assign_splits(patients, "hash", 0.2, 5, 0)
    added = patients[-1]
    before, after = (
        {plan.name: plan for plan in plan_shards(some, assigned, max_patients=7)}
        for some in (patients[:-1], patients)
    )
    changed = {name for name in after if before.get(name) != after[name]}
    gone = {name for name in before if name not in after}
    with_added = next(name for name, plan in after.items() if added in plan.patients)
    if not gone:
        assert changed == {with_added}
    else:  # its leaf was full and fell in two, or more where all went the same way
        assert len(gone) == 1
        leaf = gone.pop()
        assert all(name.startswith(leaf) for name in changed)
        moved = {one for name in changed for one in after[name].patients}
        assert moved == {*before[leaf].patients, added}


def test_a_shard_holds_about_200_mb_at_most():
    per_patient = 177 * 256 * 256 * 4
    assert 100e6 < patients_per_shard(Recipe()) * per_patient <= 200 * 2**20
    assert patients_per_shard(Recipe(crop_mm=2048, context=9)) == 1
    assert patients_per_shard(Recipe(crop_mm=264, pixel_mm=2.75)) > 20


def test_all_cases_of_one_patient_go_into_one_split_and_fold():
    cases = [Patient(f"P{n}_{k:08x}", "", series=f"{k:08x}") for n in range(40) for k in range(5)]
    assigned = assign_splits(cases, "hash", 0.3, 4, 0)
    for n in range(40):
        assert len({assigned[one.name] for one in cases if one.name.startswith(f"P{n}_")}) == 1
    assert len(set(assigned.values())) == 8
    alone = assign_splits([Patient("P7", "", series="0" * 8)], "hash", 0.3, 4, 0)
    assert alone["P7"] == assigned[f"P7_{0:08x}"]
