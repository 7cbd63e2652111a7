"""The run's folder: what may become one, what is read from it, and what is not believed."""

import dataclasses
import json
import shutil

import pytest
import slices
import tensorflow as tf

from segthor import files, organs
from segthor.errors import InputError
from segthor.organs import SEGTHOR
from trainer import model, run, sources
from trainer.config import Config

CONFIG = Config(backbone="resnet18", organs=("heart",))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    slices.make(folder)
    return sources.open_source(str(folder), None)


def claim(workdir, source, config=CONFIG, chief=True):
    return run.claim(str(workdir), config, source, 1, chief)


@pytest.fixture(scope="module")
def saved(source, tmp_path_factory):
    """A run with a best checkpoint; who writes there takes a copy."""
    workdir = tmp_path_factory.mktemp("saved") / "run"
    with claim(workdir, source):
        network = model.build(CONFIG, 32, 3)
        checkpoint = tf.train.Checkpoint(model=network)
        tf.train.CheckpointManager(checkpoint, str(workdir / run.BEST), 1).save()
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    """A copy of `saved`."""
    return shutil.copytree(saved, tmp_path / "run")


def test_a_new_folder_becomes_a_run_and_a_run_may_be_claimed_again(source, tmp_path):
    for config in (CONFIG, Config().of_table(SEGTHOR)):  # without a checkpoint it is no run yet
        with claim(tmp_path / "new" / "run", source, config) as record:
            assert (record.config, record.organs) == (config, config.organs)
            assert run.read(str(tmp_path / "new" / "run")) == record


@pytest.mark.parametrize("name", ["notes.txt", "checkpoints"])
def test_what_is_no_run_is_not_written_to(source, tmp_path, name):
    (tmp_path / "folder" / name).mkdir(parents=True)
    with pytest.raises(InputError, match="expected a new folder or a run, found other files"):
        with claim(tmp_path / "folder", source):
            raise AssertionError("claimed")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="expected a folder, found a file"):
        with claim(tmp_path / "file", source):
            raise AssertionError("claimed")
    assert (tmp_path / "file").read_text() == "mine"
    assert [entry.name for entry in (tmp_path / "folder").iterdir()] == [name]


def test_one_chief_at_a_time_and_the_other_hosts_beside_it(source, tmp_path):
    with claim(tmp_path, source):
        with claim(tmp_path, source, chief=False), claim(tmp_path, source, chief=False):
            pass
        with pytest.raises(InputError, match="another process is writing there"):
            with claim(tmp_path, source):
                raise AssertionError("claimed twice")


def test_what_a_killed_run_was_writing_is_cleared_by_the_next(source, tmp_path):
    with claim(tmp_path, source):
        pass
    (tmp_path / f"{files.TEMPORARY_PREFIX}1-log.csv").write_text("half a ro")
    with claim(tmp_path, source):
        assert [entry.name for entry in tmp_path.iterdir()] == [run.RUN]


def made(**changes) -> str:
    """A run.json with changed fields."""
    data = {"folder": "d", "digest": "0"}
    fields = {"config": {}, "recipe": {}, "organs": ["heart"], "organ_table": SEGTHOR.to_json(),
              "data": data, "replicas": 1, "reference": None, "versions": {}}  # fmt: skip
    return json.dumps(fields | changes)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[1]", "expected an object"),
        ("{}", "config: missing"),
        ("{", "expected JSON"),
        (made(organs=None), "organs: expected a list"),
        (made(config={"tsak": 1}), "tsak"),
        (made(config=[]), "config: expected an object"),
        (made(recipe={"crop_mm": "wide"}), "crop_mm"),
        (made(organs=["liver"]), "organs: expected some of eso"),
        (made(organs=[]), "organs: expected some of eso.*found none"),
        (made(organs=["heart"]), "expected those of config, none, found heart"),
        (made(organ_table=[1]), "organ_table: no table"),
        (made(data={"folder": "d"}), "data.digest: missing"),
        (made(replicas="two"), "replicas: expected a whole number"),
        (made(reference={"patients": 3}), "reference.*: missing"),
    ],
)
def test_a_run_json_that_makes_no_sense_is_one_line_that_names_it(tmp_path, text, message):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=f"{tmp_path}/run.json: .*{message}"):
        run.read(str(tmp_path))
    with pytest.raises(InputError, match="expected a run of trainer.main, found no run.json"):
        run.read(str(tmp_path / "nowhere"))


def test_a_run_is_not_continued_where_the_numbers_stand_for_other_organs(source, workdir):
    (workdir / run.LAST).mkdir()
    for path in (workdir / run.BEST).iterdir():
        shutil.copy(path, workdir / run.LAST)
    with claim(workdir, source):
        pass
    heart, trachea = (organs.SEGTHOR[name] for name in ("heart", "trachea"))
    swapped = {"heart": dataclasses.replace(trachea, name="heart", tg263="", left_of=()),
               "trachea": dataclasses.replace(heart, name="trachea", tg263="", below=(),
                                              left_of=())}  # fmt: skip
    rows = [swapped.get(organ.name, organ) for organ in organs.SEGTHOR]
    dataset = dataclasses.replace(source.dataset, organs=organs.Organs(tuple(rows)))
    with pytest.raises(InputError, match="the dataset's table numbers organs otherwise"):
        with claim(workdir, dataclasses.replace(source, dataset=dataset)):
            raise AssertionError("claimed")


def test_a_checkpoint_of_another_network_than_run_json_describes_is_refused(workdir):
    network, record = run.restore(str(workdir))
    assert network.output["segment"].shape[-1] == 2 and record.summary is None
    with pytest.raises(InputError, match="checkpoints: expected a checkpoint, found none"):
        run.restore(str(workdir), "last")
    for changed in ({"organs": ("heart", "aorta")}, {"backbone": "resnet34"}):
        config = dataclasses.replace(CONFIG, **changed).to_json()
        value = record.to_json() | {"config": config, "organs": config["organs"]}
        (workdir / run.RUN).write_text(json.dumps(value))
        with pytest.raises(InputError, match="of another network than run.json describes"):
            run.restore(str(workdir))


@pytest.mark.parametrize("content", [b"", b"{{{", b"\xff\xfe\0", b"other: 1\n"])
def test_a_damaged_list_of_checkpoints_is_one_line_and_begins_nothing_anew(
    source, workdir, content
):
    shutil.copytree(workdir / run.BEST, workdir / run.LAST)
    for folder in (run.BEST, run.LAST):
        (workdir / folder / "checkpoint").write_bytes(content)
    for which, folder in (("best", run.BEST), ("last", run.LAST)):
        with pytest.raises(InputError, match=f"{workdir}/{folder}/checkpoint: damaged; copy"):
            run.restore(str(workdir), which)
    before = (workdir / run.RUN).read_bytes()
    with pytest.raises(InputError, match="checkpoints/checkpoint: damaged; copy the run again"):
        with claim(workdir, source, dataclasses.replace(CONFIG, seed=7)):
            raise AssertionError("claimed")
    assert (workdir / run.RUN).read_bytes() == before
