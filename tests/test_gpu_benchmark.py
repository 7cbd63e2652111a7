"""`benchmarks.gpu` runs to its end where there is no GPU, with small numbers."""

import slices
from programs import run


def test_the_benchmark_of_a_gpu_runs_on_a_processor(tmp_path):
    slices.make(tmp_path, patients=3, size=32)
    command = ["-m", "benchmarks.gpu", f"--data={tmp_path}", "--batch_size=2", "--shuffle_buffer=4"]
    done = run(command, tiny=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert "No GPU: small numbers on the processor, which say nothing about a GPU" in lines
    (measured,) = [line for line in lines if line.startswith("| float32, processor | 1 |")]
    cells = [cell.strip() for cell in measured.strip("|").split("|")]
    assert len(cells[2].split()) == 3 and int(cells[5]) > 100
    assert any(line.startswith("Prediction: 4 slices in ") for line in lines)
    assert lines[-1] == "Determinism: two runs gave the same weights"
