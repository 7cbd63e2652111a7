"""Files of a run that are damaged: what the trainer reads again, and what tables are made of."""

import json

import pytest
import tensorflow as tf
import test_run
from test_checkpoints import TinyLearner

from segthor import json_files
from segthor.errors import InputError
from segthor.organs import SEGTHOR
from trainer import length, run
from trainer.checkpoints import Checkpoints
from trainer.config import Config
from trainer.journal import Journal

LOG = "step,epoch,loss,learning_rate,slices_per_s,input_wait,memory_gb,dice,dice_heart\n"
ROW = "2,0.5,1.0,0.001,10,0.1,1.5,0.8,0.8\n"


@pytest.fixture
def folder(tmp_path):
    """A run of the heart, without its checkpoints."""
    (tmp_path / run.RUN).write_text(test_run.made(config={"organs": ["heart"]}))
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        *("", "patient,heart\n", "patient\nA\n", "patient,aorta\nA,0.5\n", "heart\n0.5\n"),
        *(f"patient,heart\nA,{score}\n" for score in ("x", "1.5", "-1", "nan", "inf", "0.5,1")),
    ],
)
def test_scores_that_make_no_sense_are_one_line_that_names_the_file(folder, text):
    (folder / run.PATIENTS).write_text(text)
    with pytest.raises(InputError, match=str(folder / run.PATIENTS)):
        run.read_patients(str(folder))


def test_scores_are_read_as_they_stand(folder):
    (folder / run.PATIENTS).write_text("patient,heart\nA,0.25\nB,\n")
    assert run.read_patients(str(folder)) == [
        {"patient": "A", "heart": "0.25"}, {"patient": "B", "heart": ""}]  # fmt: skip


@pytest.mark.parametrize("odd", [[1], {"steps": 3}, {"steps": "3", "validate_every": 1}, "x"])
def test_a_length_that_makes_no_sense_is_one_line(folder, odd):
    (folder / run.LAST).mkdir()
    (folder / run.LAST / "checkpoint").write_text("")
    json_files.write(
        str(folder / run.RUN), json.loads((folder / run.RUN).read_text()) | {"length": odd}
    )
    source = type("Source", (), {"train_slices": 10})
    with pytest.raises(InputError, match="length"):
        length.read_length(Config(minutes=1.0, organs=("heart",)), source, str(folder), 2)


@pytest.mark.parametrize(
    "text", ["", LOG + "x" + ROW, LOG + "inf" + ROW[1:], "step\n2\n", LOG + "2\n"]
)
def test_a_log_that_makes_no_sense_is_one_line_that_names_it(folder, text):
    (folder / run.LOG).write_text(text)
    journal = Journal(str(folder), Config(organs=("heart",)), organs=SEGTHOR)
    with pytest.raises(InputError, match=str(folder / run.LOG)):
        journal.begin(4, 8, 2, True)


def test_a_log_is_taken_up_to_the_step(folder, capsys):
    (folder / run.LOG).write_text(LOG + ROW + "6" + ROW[1:])
    journal = Journal(str(folder), Config(organs=("heart",)), organs=SEGTHOR)
    journal.begin(4, 8, 2, True)
    assert [row["step"] for row in journal._rows] == ["2"]


def test_a_checkpoint_of_another_network_is_damaged(tmp_path):
    learner = TinyLearner()
    learner.model.weight = tf.Variable(tf.zeros([7]))
    learner.train = None
    Checkpoints(str(tmp_path), learner, True).save()
    with pytest.raises(InputError, match="every checkpoint is damaged"):
        Checkpoints(str(tmp_path), TinyLearner(), True).restore()
    other = TinyLearner()
    other.scored = other.model = tf.Module()
    other.model.others = tf.Variable(tf.zeros([1000]))
    with pytest.raises(InputError, match="every checkpoint is damaged"):
        Checkpoints(str(tmp_path), other, True).restore()


@pytest.mark.parametrize("name", [run.LAST, run.BEST])
@pytest.mark.parametrize("content", [b"", b"{{{", b"\xff\xfe\0"])
def test_a_damaged_list_of_checkpoints_is_one_line(tmp_path, name, content):
    Checkpoints(str(tmp_path), TinyLearner(), True).save()
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / name / "checkpoint").write_bytes(content)
    with pytest.raises(InputError, match=f"{tmp_path}/{name}/checkpoint: damaged; copy the run"):
        Checkpoints(str(tmp_path), TinyLearner(), True)


def test_where_the_files_of_the_last_checkpoint_are_gone_the_one_before_is_taken(tmp_path):
    learner = TinyLearner()
    checkpoints = Checkpoints(str(tmp_path), learner, True)
    for _ in range(2):
        learner.train()
        checkpoints.save()
    (tmp_path / run.LAST / "ckpt-2.index").unlink()
    again = TinyLearner()
    assert Checkpoints(str(tmp_path), again, True).restore() and again.step == 1
