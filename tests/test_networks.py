"""`benchmarks.networks` builds, trains and exports a network; `make test-all` tries all."""

import pytest
import slices
from programs import run_entry

from trainer.config import BACKBONES, DECODERS

ONE = "vgg16-fpn"
REST = sorted({f"{backbone}-{decoder}" for backbone in BACKBONES for decoder in DECODERS} - {ONE})


# The other networks take up to half a minute each.
@pytest.mark.parametrize(
    "network", [ONE, *(pytest.param(name, marks=pytest.mark.thorough) for name in REST)]
)
def test_a_network_builds_takes_a_step_and_exports(network, tmp_path):
    # PSPNet's pyramid needs a multiple of 48 pixels, inceptionv3 at least 75.
    size = 96 if "pspnet" in network or "inceptionv3" in network else 32
    slices.make(tmp_path, patients=3, size=size)
    done = run_entry("benchmarks.networks", one=network, data=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert '"export_s"' in done.stdout.splitlines()[-1]
