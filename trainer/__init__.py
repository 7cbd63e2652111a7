"""The trainer: from shards to checkpoints."""

from segthor import environment

environment.prepare()  # above every module of the trainer, which import tensorflow
