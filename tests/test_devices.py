"""Devices: TF_CONFIG names the chief or is refused in one line; the precision of a processor."""

import json

import pytest
import tensorflow as tf

from segthor.errors import InputError
from trainer import devices
from trainer.config import PRECISIONS

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


@pytest.mark.parametrize(
    "features, precision",
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile", "bfloat16"),
        ("flags\t\t: fpu avx2 amx_bf16", "bfloat16"),
        ("flags\t\t: fpu avx2 avx512f avx512_bf16x", "float32"),
        ("Features\t: fp asimd bf16", "float32"),
        (None, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    monkeypatch, tmp_path, features, precision
):
    file = tmp_path / "cpuinfo"
    if features:
        file.write_text(f"processor\t: 0\nmodel name\t: a CPU\n{features}\n")
    monkeypatch.setattr(devices, "_CPU_INFO", str(file))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert devices.resolve_precision("auto") == precision
    with monkeypatch.context() as patched:
        patched.setattr(tf.config, "list_physical_devices", lambda kind: [f"a {kind}"])
        assert devices.resolve_precision("auto") == "float32"
    for other in PRECISIONS:
        assert devices.resolve_precision(other) == other
