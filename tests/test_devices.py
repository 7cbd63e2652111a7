"""TF_CONFIG: what makes sense decides who is the chief, anything else is one line."""

import json

import pytest

from segthor.errors import InputError
from trainer import devices

HOSTS = ["a:1", "[::1]:2"]


def config(cluster, kind="worker", index=0) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    "text, chief",
    [
        (None, True),
        ("", True),
        (config({"worker": HOSTS}), True),
        (config({"worker": HOSTS}, index=1), False),
        (config({"chief": ["c:3"], "worker": HOSTS}), False),
        (config({"chief": ["c:3"], "worker": HOSTS}, "chief"), True),
    ],
)
def test_the_first_host_is_the_chief(monkeypatch, text, chief):
    monkeypatch.setenv("TF_CONFIG", text or "")
    assert devices.is_chief() == chief
    assert devices.several_processes() == bool(text)


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "null", "1", '"worker"', "[" * 100_000, "{}", '{"cluster": {}, "task": {}}'),
        *(
            config(cluster)
            for cluster in ([], {}, {"worker": []}, {"worker": "a:1"}, {"ps": HOSTS})
        ),
        *(
            config({"worker": hosts})
            for hosts in ([1], ["a"], ["a:b"], ["http://a:1"], ["a:1"] * 2)
        ),
        *(config({"worker": HOSTS}, index=index) for index in (2, -1, 0.0, True, "0", None)),
        *(config({"worker": HOSTS}, kind) for kind in ("chief", "evaluator", "", None, [])),
        '{"cluster": {"worker": ["a:1"]}, "task": {"index": 0}}',
    ],
)
def test_what_makes_no_sense_is_one_line(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="^TF_CONFIG: expected JSON such as ") as caught:
        devices.is_chief()
    assert len(str(caught.value)) < 400


def test_an_address_that_is_taken_is_one_line(monkeypatch):
    import tensorflow as tf

    def refuse():
        raise tf.errors.UnknownError(None, None, "Could not start gRPC server")

    monkeypatch.setenv("TF_CONFIG", config({"worker": HOSTS}))
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", refuse)
    with pytest.raises(InputError, match="^TF_CONFIG: .*Could not start gRPC server"):
        devices.strategy()
