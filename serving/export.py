"""Exports a trained run as a SavedModel, which needs neither Keras nor this package.

  python -m serving.export --workdir=runs/all --output=models/all

Writes OUTPUT/<version>/ with the next number, in the layout of TensorFlow Serving, and a model card
in OUTPUT/<version>/assets/model_card.md.
"""

import importlib.metadata
import platform

from absl import flags

from segthor import errors, outputs, startup
from segthor import model_directory as directory
from trainer import run

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the model.", required=True)
CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "best", ["best", "last"], "Checkpoint of the run to export."
)
INTENDED_USE = flags.DEFINE_string(
    "intended_use", "", "What the model is for, for its card; a usual text if not given."
)
KNOWN_LIMITS = flags.DEFINE_string(
    "known_limits", "", "What is known to go wrong, for its card, beside what its scores say."
)
PACKAGES = ("segthor", "tensorflow", "numpy")


def main(_):
    """Restores the run, writes the model, loads it and compares its example."""
    outputs.check_folder(OUTPUT.value, {"workdir": WORKDIR.value}, own=outputs.MODEL)
    run.read_trained(WORKDIR.value, CHECKPOINT.value)
    startup.load_tensorflow()
    from serving import card  # slow imports: report a missing run first
    from serving.prediction import bundle

    network, record = run.restore(WORKDIR.value, which=CHECKPOINT.value)
    texts = INTENDED_USE.value, KNOWN_LIMITS.value
    described = card.make(record, WORKDIR.value, CHECKPOINT.value, *texts)
    version = _save_model(network, record)
    card.save(version, described)
    written = bundle.load(version)  # fails unless it gives the stored output
    print(f"Wrote {version}: organs {', '.join(record.organs)}; the stored example agrees.")
    print(f"The model card: {directory.asset(version, card.TEXT)}")
    segments = bundle.PROBABILITIES in written.signatures  # a classifier is used as a gate
    models = {"model": [OUTPUT.value]} if segments else {"model": "MODEL", "gate": OUTPUT.value}
    if record.recipe.needs_masks:
        models["level_model"] = "LEVEL_MODEL"
    print(errors.hint("serving.predict", **models, input="SCANS", output="PREDICTIONS"))


def _save_model(network, record: run.RunRecord) -> str:
    """Writes the network of a run as the next version of the model; returns its folder."""
    from serving.prediction import bundle

    names = {run.SEGMENT: bundle.PROBABILITIES, run.CLASSIFY: bundle.PRESENCE}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    contents = bundle.Contents(
        recipe=record.recipe,
        names=record.organs,
        organs=record.organ_table,
        training=record.to_json(),
        versions={"python": platform.python_version(), **versions},
        weight_names=run.weight_names(network),
    )

    def compute(images):
        by_task = network(images, training=False)
        return {names[task]: output for task, output in by_task.items()}

    return bundle.save(OUTPUT.value, compute, network.variables, contents)


if __name__ == "__main__":
    errors.run(main)
