"""TensorFlow's errors that the user must mend, in one clear line."""

import contextlib
import shlex

import tensorflow as tf

from segthor.errors import InputError
from trainer import data

_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError)
# What TensorFlow makes of a full or a read-only disk.
_REFUSED = (
    tf.errors.ResourceExhaustedError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
)
_DISK = ("No space left", "Read-only file system", "Permission denied", "quota")


@contextlib.contextmanager
def in_one_line(source: data.Source, workdir: str, several_processes: bool):
    """Raises InputError where a shard is damaged, disk or memory is full, or a process is gone.

    TensorFlow notices a lost process at once where its connection breaks, and by missing
    heartbeats where a host falls silent.
    """
    try:
        yield
    except _LOST as error:
        if not several_processes:
            raise
        raise InputError(
            "another process of this run was lost; see why in its own output, then start the same "
            "command on every host: it continues from the last checkpoint"
        ) from error
    except _REFUSED as error:
        if "OOM when allocating" in str(error):
            raise InputError("out of memory; lower --batch_size") from error
        why = next((words for words in _DISK if words in str(error)), None)
        if not why:
            raise
        raise InputError(
            f"--workdir={workdir}: {why}; make room, then repeat the command: it continues from "
            "the last checkpoint"
        ) from error
    except data.UNREADABLE as error:
        print("Looking for the shard that cannot be read", flush=True)
        found = data.damage(source)
        if not found:
            raise
        command = f"python -m beam_jobs.verify --data={shlex.quote(source.folder)}"
        raise InputError(f"{found}; {command} looks at all shards") from error
