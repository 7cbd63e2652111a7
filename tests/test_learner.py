"""Every task, arithmetic and compiler takes steps that lower the loss; counts are of voxels."""

import numpy as np
import pytest
import slices
import tensorflow as tf

from segthor import records
from segthor.errors import InputError
from trainer import data, loop, sources, validate
from trainer.config import Config
from trainer.learner import Learner
from trainer.strengths import Strengths

STEPS = 12
COMMON = {
    "organs": slices.NAMES,
    "backbone": "resnet18",
    "decoder": "pspnet",
    "batch_size": 4,
    "shuffle_buffer": 16,
    "schedule": "constant",
    "augment": Strengths.none(),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    slices.make(folder, size=96, contoured={"Patient_03": ("heart",)})
    return sources.open_source(str(folder), None)


def learner_of(source, **chosen):
    tf.keras.utils.set_random_seed(1)
    return Learner(Config(**COMMON | chosen), source, tf.distribute.get_strategy(), STEPS)


def held_out(source):
    return data.per_replica(data.evaluation(source, 4), 4)


CHOSEN = [
    {"task": "joint", "precision": "bfloat16", "optimizer": "sgd", "learning_rate": 0.02},
    {"task": "classify", "loss": "focal", "ema": 0.5},
    {"organs": ("heart", "aorta"), "precision": "float16", "clip_norm": 1.0},
    {"xla": True, "loss": "bce_dice", "organs": ("heart",)},
]


@pytest.mark.parametrize(
    "network, chosen",
    [
        ("resnet18", CHOSEN[0]),
        *(("tiny", chosen) for chosen in CHOSEN[1:]),
        # Float16 and XLA take 16 s each on a processor.
        *(pytest.param("resnet18", one, marks=pytest.mark.thorough) for one in CHOSEN[1:]),
    ],
    ids=lambda given: given if isinstance(given, str) else "-".join(map(str, given.values())),
)
def test_training_lowers_the_loss_and_validation_counts_each_organ(
    source, network, chosen, request
):
    steps = STEPS
    if network == "tiny":
        request.getfixturevalue("tiny")
        steps, chosen = 60, {"learning_rate": 0.03} | chosen
    learner = learner_of(source, **chosen)
    batches = data.training(source, learner.config, 4).take(4).repeat()  # a batch to learn by heart
    losses, _ = learner.train(iter(data.per_replica(batches, 4)), tf.constant(steps))
    assert np.isfinite(losses).all() and losses.dtype == tf.float32
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    assert learner.step == steps
    scores = validate.validate(learner, source, held_out(source))
    names = learner.config.organs
    assert scores.dice.shape == (2, len(names))
    assert np.isnan(scores.dice[0]).tolist() == [name != "heart" for name in names]
    assert not np.isnan(scores.dice[1]).any()


@pytest.mark.parametrize("asked_at, taken", [(1, 1), (3, 3), (99, 5)])
def test_a_call_ends_with_the_step_in_which_it_is_asked_to(source, asked_at, taken, tiny):
    steps = iter(range(1, 100))
    config = Config(**COMMON)
    learner = Learner(
        config, source, tf.distribute.get_strategy(), STEPS, lambda: next(steps) >= asked_at
    )
    batches = data.per_replica(data.training(source, config, 4), 4)
    losses, _ = learner.train(iter(batches), tf.constant(5))
    assert losses.shape == [taken] and np.isfinite(losses).all() and (losses.numpy() > 0).all()
    assert learner.step == taken


def test_counts_agree_with_a_plain_count_over_the_stored_slices(source):
    learner = learner_of(source)
    scores = validate.validate(learner, source, held_out(source))
    expected, place = np.zeros([2, 4, 3]), 0
    for shard in source.validation:
        with open(f"{source.folder}/{shard.file}", "rb") as stream:
            for payload in records.read_frames(stream, shard.file):
                one = records.decode(payload)
                predicted = learner.model(one.image[None])["segment"].numpy()[0].argmax(-1)
                for organ in range(4):
                    if one.contoured[organ]:
                        masks = predicted == organ + 1, one.labels == organ + 1
                        counts = (masks[0] & masks[1]).sum(), masks[0].sum(), masks[1].sum()
                        expected[source.patients.index(one.patient), organ] += counts
                        np.testing.assert_allclose(
                            scores.slice_counts[place, organ], counts, atol=3
                        )  # ties of an untrained network
                place += 1
    with np.errstate(invalid="ignore"):
        dice = 2 * expected[..., 0] / (expected[..., 1] + expected[..., 2])
    np.testing.assert_allclose(scores.dice, dice, atol=1e-3)
    by_organ = [np.nanmean(column) for column in dice.T]
    np.testing.assert_allclose(list(scores.by_organ.values()), by_organ, atol=1e-3)
    assert scores.mean == pytest.approx(np.mean(by_organ), abs=1e-3)


def test_worst_slices_come_first_and_empty_ones_last():
    counts = np.zeros([5, 1, 3], int)
    counts[1, 0] = 5, 10, 10  # Dice 0.5
    counts[2, 0] = 0, 4, 0  # 0
    counts[3, 0] = 10, 10, 10  # 1
    counts[4, 0] = 0, 0, 9  # 0, and more was missed
    scores = validate.VolumeDice(("a",), ("heart",), np.zeros([1, 1]), counts)
    assert scores.worst(3) == [4, 2, 1]


def test_a_loss_that_is_not_finite_ends_with_step_and_patients(source, tiny):
    learner = learner_of(source)
    bias = learner.model.trainable_variables[-1]
    bias.assign(bias * np.nan)

    class Journal:
        def before_call(self):
            pass

    batches = iter(data.per_replica(data.training(source, learner.config, 4), 4))
    training = loop.Training(learner, source, batches, None, None, Journal(), lambda: False)
    with pytest.raises(InputError, match="not finite at step 0, with patients Patient_0"):
        loop.run_steps(training, STEPS)
