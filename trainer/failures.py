"""TensorFlow's errors that the user must mend, in one clear line."""

import contextlib
import shlex

import numpy as np
import tensorflow as tf

from segthor import files, records
from segthor.errors import InputError, message_line
from trainer import sources

# A damaged checkpoint: OpError for a wrong checksum or a missing file, IndexError for a short file.
DAMAGED = (tf.errors.OpError, IndexError)
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError)
# What TensorFlow makes of a full or a read-only disk.
_REFUSED = (
    tf.errors.ResourceExhaustedError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
)
_MEMORY = ("OOM when allocating", "Out of memory", "out of memory")  # TensorFlow's words, XLA's
_DISK = ("No space left", "Read-only file system", "Permission denied", "quota")
# TensorFlow quotes what it cannot parse, and Python then stumbles over the quoted bytes.
_UNREADABLE = (tf.errors.OpError, UnicodeDecodeError)


@contextlib.contextmanager
def in_one_line(source: sources.Source, workdir: str, several_processes: bool):
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
        if any(words in str(error) for words in _MEMORY):
            raise InputError(
                "out of memory; lower --batch_size, or take --precision=bfloat16 or a smaller "
                "--backbone"
            ) from error
        why = next((words for words in _DISK if words in str(error)), None)
        if not why:
            raise
        raise InputError(
            f"--workdir={workdir}: {why}; make room, then repeat the command: it continues from "
            "the last checkpoint"
        ) from error
    except _UNREADABLE as error:
        print("Looking for the shard that cannot be read", flush=True)
        found = damage(source)
        if not found:
            raise
        command = f"python -m beam_jobs.verify --data={shlex.quote(source.folder)}"
        raise InputError(f"{found}; {command} looks at all shards") from error


def damage(source: sources.Source) -> str | None:
    """What is wrong with the first shard that cannot be read; None where all can be."""
    organs, shape = source.organs, (source.size_px, source.context)
    for shard in (*source.train, *source.validation):
        path, number = files.join(source.folder, shard.file), 0
        try:
            records.check_lengths(path)
            for number, payload in enumerate(records.payloads(path)):
                labels = records.parse(payload, *shape, len(organs))[records.LABELS].numpy()
                unknown = np.setdiff1d(labels, source.dataset.known_labels)
                if len(unknown):
                    return f"{path}: record {number} has a label {unknown[-1]}"
        except InputError as error:
            return str(error)
        except _UNREADABLE as error:
            reason = ascii(message_line(error))[1:-1][:160]
            return f"{path}: record {number} is no slice of this dataset ({reason})"
    return None
