"""Checkpoints that are damaged: the one before is taken, and it is said."""

from pathlib import Path

import pytest
import tensorflow as tf

from segthor.errors import InputError
from trainer.checkpoints import Checkpoints


class TinyLearner:
    """All that a checkpoint needs of a learner: one weight, which counts the steps."""

    averaged = None

    def __init__(self):
        self.model, self.optimizer = tf.Module(), tf.Module()
        self.model.weight = tf.Variable(tf.zeros([1000]))
        self.optimizer.iterations = tf.Variable(0, dtype=tf.int64)
        self.drop = tf.Variable(1.0)
        self.scored_model = self.model

    @property
    def step(self):
        return int(self.optimizer.iterations)

    def finish_average(self):
        """There is none."""

    def train(self):
        self.optimizer.iterations.assign_add(1)
        self.model.weight.assign_add(tf.ones([1000]))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def folder(tmp_path):
    """A run with checkpoints at the steps 1 and 2."""
    learner = TinyLearner()
    checkpoints = Checkpoints(str(tmp_path), learner, True)
    for _ in range(2):
        learner.train()
        checkpoints.save()
    return tmp_path


@pytest.mark.parametrize("part", ["data-00000-of-00001", "index"])
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_the_one_before_is_taken_and_written_over_again(folder, damage, part, capsys):
    damage(folder / f"checkpoints/ckpt-2.{part}")
    learner = TinyLearner()
    checkpoints = Checkpoints(str(folder), learner, True)
    assert checkpoints.restore() and learner.step == 1
    assert "ckpt-2 is damaged" in capsys.readouterr().out
    assert float(learner.model.weight[0]) == 1
    learner.train()
    checkpoints.save()
    again = TinyLearner()
    assert Checkpoints(str(folder), again, True).restore() and again.step == 2
    assert "damaged" not in capsys.readouterr().out


def test_where_all_are_damaged_nothing_is_begun_anew_in_silence(folder):
    for path in (folder / "checkpoints").glob("*.data*"):
        cut(path)
    with pytest.raises(InputError, match="every checkpoint is damaged"):
        Checkpoints(str(folder), TinyLearner(), True).restore()
