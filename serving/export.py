"""Exports a trained run as a SavedModel that needs neither Keras nor this package to run.

  python -m serving.export --workdir=runs/all --output=models/all

Writes OUTPUT/<version>/, the next number each time, ready for TensorFlow Serving, with a model card
in OUTPUT/<version>/assets/model_card.md.
"""

import importlib.metadata
import platform

from absl import flags

from segthor import errors, outputs, startup
from segthor import model_directory as directory
from trainer import run

WORKDIR = flags.DEFINE_string("workdir", None, "The trainer's folder.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Where the model goes.", required=True)
CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "best", ["best", "last"], "Which of the run's checkpoints."
)
INTENDED_USE = flags.DEFINE_string(
    "intended_use", "", "What the model is for, for its card; a usual text if not given."
)
KNOWN_LIMITS = flags.DEFINE_string(
    "known_limits", "", "What is known to go wrong, for its card, beside what its scores say."
)
PACKAGES = ("segthor", "tensorflow", "numpy")


def main(_):
    """Restores the run, writes the model, loads it again."""
    outputs.check_folder(OUTPUT.value, {"workdir": WORKDIR.value}, own=outputs.MODEL)
    run.check_trained(WORKDIR.value, CHECKPOINT.value)
    startup.load_tensorflow()
    from serving import card
    from serving.prediction import bundle  # takes seconds; a missing run is told before

    network, record = run.restore(WORKDIR.value, which=CHECKPOINT.value)
    texts = INTENDED_USE.value, KNOWN_LIMITS.value
    described = card.make(record, WORKDIR.value, CHECKPOINT.value, *texts)
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
    card.save(version, described)
    written = bundle.load(version)  # it must load and give the stored output
    print(f"Wrote {version}: organs {', '.join(record.organs)}; the stored example agrees.")
    print(f"The model card, for people: {directory.asset(version, card.TEXT)}")
    outlines = bundle.PROBABILITIES in written.signatures  # a classifier serves as a gate
    models = {"model": [OUTPUT.value]} if outlines else {"model": "MODEL", "gate": OUTPUT.value}
    if record.recipe.needs_masks:
        models["level_model"] = "LEVEL_MODEL"
    print(errors.hint("serving.predict", **models, input="SCANS", output="PREDICTIONS"))


if __name__ == "__main__":
    errors.run(main)
