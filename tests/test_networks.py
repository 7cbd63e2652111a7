"""A cheap subset of `benchmarks.networks`, which builds, trains and exports every network."""

import subprocess
import sys
from pathlib import Path

import pytest
import slices

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "network",
    [
        *("vgg16-fpn", "resnet18-linknet", "densenet121-pspnet"),
        *("mobilenetv2-pspnet", "efficientnetb0-pspnet"),
    ],
)
def test_a_network_builds_takes_a_step_and_exports(network, tmp_path):
    slices.make(tmp_path, patients=3, size=96 if network.endswith("pspnet") else 32)
    command = [sys.executable, "-m", "benchmarks.networks", f"--one={network}"]
    done = subprocess.run(
        [*command, f"--data={tmp_path}"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert '"export_s"' in done.stdout.splitlines()[-1]
