"""The trainer: from shards to checkpoints."""

import os

# segmentation_models is written for Keras 2, and tensorflow decides between Keras 2 and 3 when it
# is first imported: so these stand here, above every module of the trainer.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("SM_FRAMEWORK", "tf.keras")
