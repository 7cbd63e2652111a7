"""One replica, two, and two processes: same batch, same loss, gradient and weights."""

import numpy as np
import pytest
import slices
from programs import ROOT, finish, start
from train_hosts import tf_configs

# Gradients of the convolutions, since BatchNorm is left aside.
GRADIENTS = {"tiny": 3, "resnet18": 18}


# Four programs that compile resnet18 take 50 processor seconds.
@pytest.fixture(
    scope="module", params=["tiny", pytest.param("resnet18", marks=pytest.mark.thorough)]
)
def runs(request, tmp_path_factory):
    """What one device, two devices and two processes made of the same global batches."""
    folder = tmp_path_factory.mktemp("replicas")
    slices.make(folder / "data", size=96, contoured={"Patient_01": ("heart", "aorta")})
    child = ROOT / "tests" / "replica_child.py"

    def begin(name, devices, batch, tf_config=None):
        command = [child, folder / "data", folder / f"{name}.npz", devices, batch]
        return start(command, tf_config, tiny=request.param == "tiny")

    finish([begin("one", 1, 4), begin("two", 2, 2)])
    finish([begin("processes", 1, 2, tf_config) for tf_config in tf_configs(2)])
    found = {name: np.load(folder / f"{name}.npz") for name in ("one", "two", "processes")}
    names = [name for name in found["one"].files if name.startswith("gradient")]
    assert len(names) == GRADIENTS[request.param]
    return found


@pytest.mark.parametrize("other", ["two", "processes"])
def test_loss_gradient_and_weights_do_not_depend_on_the_number_of_replicas(runs, other):
    one, several = runs["one"], runs[other]
    np.testing.assert_allclose(several["loss"], one["loss"], rtol=1e-5)
    assert len(one["losses"]) == 20 and one["losses"][-1] != one["losses"][0]
    np.testing.assert_allclose(several["losses"], one["losses"], rtol=1e-5)
    names = [name for name in one.files if name.startswith(("gradient", "weight", "averaged"))]
    for name in names:
        scale = np.abs(one[name]).max() + 1e-12
        np.testing.assert_allclose(several[name], one[name], atol=1e-4 * scale, err_msg=name)
    for name in (name for name in names if not name.startswith("gradient")):
        np.testing.assert_allclose(several[name], one[name], rtol=0, atol=1e-5, err_msg=name)
    # A weight moves little in twenty steps; its movement must be the same, within float32's sums.
    for name in (name for name in names if name.startswith("weight")):
        moved = np.linalg.norm(one[name] - one[name.replace("weight", "before")])
        assert np.linalg.norm(several[name] - one[name]) <= 2e-3 * moved, name


@pytest.mark.parametrize("other", ["two", "processes"])
def test_each_slice_is_counted_once_whatever_the_number_of_replicas(runs, other):
    one, several = runs["one"], runs[other]
    np.testing.assert_array_equal(several["places"], one["places"])
    true = several["counts"][..., 2]
    np.testing.assert_array_equal(true, one["counts"][..., 2])
    # an untrained network is undecided: rounding tips some voxels from one organ to another
    np.testing.assert_allclose(several["counts"], one["counts"], atol=0.02 * true.max())
