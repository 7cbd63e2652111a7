"""Prediction on a GPU that is short of memory: batches are halved until they fit."""

import numpy as np
import pytest
import tensorflow as tf

from segthor.errors import InputError
from serving.prediction import fitting


def network(most, seen):
    """Doubles what it is given; at most so many slices fit."""

    def call(images):
        seen.append(len(images))
        if len(images) > most:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return 2 * images

    return call


@pytest.mark.parametrize("most, sizes", [(16, [16, 16]), (5, [16, 8, 4, 4, 4, 4, 4, 4, 4, 4])])
def test_batches_are_halved_until_they_fit_and_stay_so(most, sizes, capsys):
    seen, images = [], np.arange(16 * 4).reshape(16, 2, 2)
    batches = fitting.AdaptiveBatches()
    for _ in range(2):
        found = batches.run(network(most, seen), images)
        np.testing.assert_array_equal(found, 2 * images)
    assert seen == sizes
    said = [f"Out of memory: going on with {n} slices at a time" for n in (8, 4)]
    assert capsys.readouterr().out.splitlines() == (said if most < 16 else [])


def test_where_one_slice_does_not_fit_the_case_ends_in_one_line():
    with pytest.raises(InputError, match="^out of memory with one slice.*--gpu_memory_gb"):
        fitting.AdaptiveBatches().run(network(0, []), np.zeros([4, 2, 2]))


def test_no_slices_are_no_trouble():
    found = fitting.AdaptiveBatches().run(network(4, []), np.zeros([0, 2, 2]))
    assert found.shape == (0, 2, 2)


@pytest.mark.parametrize("gigabytes", [0.0, 1.5])
def test_each_gpu_is_capped_or_grows(monkeypatch, gigabytes):
    said = {}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0", f"{kind}:1"])
    monkeypatch.setattr(tf.config, "set_logical_device_configuration", said.__setitem__)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", said.__setitem__)
    fitting.limit_memory(gigabytes)
    assert set(said) == {"GPU:0", "GPU:1"}
    for chosen in said.values():
        assert chosen is True if not gigabytes else [one.memory_limit for one in chosen] == [1536]
