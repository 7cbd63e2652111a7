"""Exports a trained run as a SavedModel that needs neither Keras nor this package to run.

  python -m serving.export --workdir=runs/all --output=models/all

Writes OUTPUT/<version>/, the next number each time, ready for TensorFlow Serving.
"""

import importlib.metadata
import platform

from absl import flags

from segthor import errors, outputs, startup
from trainer import run

WORKDIR = flags.DEFINE_string("workdir", None, "The trainer's folder.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Where the model goes.", required=True)
CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "best", ["best", "last"], "Which of the run's checkpoints."
)
PACKAGES = ("segthor", "tensorflow", "numpy")


def main(_):
    """Restores the run, writes the model, loads it again."""
    outputs.check_folder(OUTPUT.value, {"workdir": WORKDIR.value}, own=outputs.MODEL)
    run.check_trained(WORKDIR.value, CHECKPOINT.value)
    startup.load_tensorflow()
    from serving.prediction import bundle  # takes seconds; a missing run is told before

    network, record = run.restore(WORKDIR.value, which=CHECKPOINT.value)
    names = {run.SEGMENT: bundle.PROBABILITIES, run.CLASSIFY: bundle.PRESENCE}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    version = bundle.save(
        OUTPUT.value,
        network=lambda images: {
            names[task]: output for task, output in network(images, training=False).items()
        },
        variables=network.variables,
        recipe=record.recipe,
        names=record.organs,
        training=record.to_json(),
        versions={"python": platform.python_version(), **versions},
        organs=record.organ_table,
        weight_names=run.weight_names(network),
    )
    written = bundle.load(version)  # it must load and give the stored output
    print(f"Wrote {version}: organs {', '.join(record.organs)}; the stored example agrees.")
    outlines = bundle.PROBABILITIES in written.signatures  # a classifier serves as a gate
    models = {"model": [OUTPUT.value]} if outlines else {"model": "MODEL", "gate": OUTPUT.value}
    if record.recipe.needs_masks:
        models["level_model"] = "LEVEL_MODEL"
    print(errors.hint("serving.predict", **models, input="SCANS", output="PREDICTIONS"))


if __name__ == "__main__":
    errors.run(main)
