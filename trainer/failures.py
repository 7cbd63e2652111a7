"""TensorFlow's errors that the user must mend, in one clear line."""

import contextlib

import tensorflow as tf

from segthor.errors import InputError

_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError)
# What TensorFlow makes of a full or a read-only disk.
_REFUSED = (
    tf.errors.ResourceExhaustedError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
)
_DISK = ("No space left", "Read-only file system", "Permission denied", "quota")


@contextlib.contextmanager
def in_one_line(several_processes: bool, data_folder: str, workdir: str):
    """Raises InputError where a shard is damaged, the disk is full, or another process is gone.

    TensorFlow notices a lost process at once where its connection breaks, and by missing
    heartbeats where a host falls silent.
    """
    try:
        yield
    except tf.errors.DataLossError as error:
        raise InputError(
            f"{data_folder}: a shard is damaged; python -m beam_jobs.verify --data={data_folder} "
            "names it"
        ) from error
    except _LOST as error:
        if not several_processes:
            raise
        raise InputError(
            "another process of this run was lost; see why in its own output, then start the same "
            "command on every host: it continues from the last checkpoint"
        ) from error
    except _REFUSED as error:
        why = next((words for words in _DISK if words in str(error)), None)
        if not why:
            raise
        raise InputError(
            f"--workdir={workdir}: {why}; make room, then repeat the command: it continues from "
            "the last checkpoint"
        ) from error
