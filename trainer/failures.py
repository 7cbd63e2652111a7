"""Errors of TensorFlow that the user can mend, as one clear line."""

import contextlib
import shlex

import numpy as np
import tensorflow as tf

from segthor import files, records
from segthor.errors import InputError, message_line
from trainer import sources

# A damaged checkpoint: OpError for a wrong checksum or a missing file, IndexError for a short one.
DAMAGED = (tf.errors.OpError, IndexError)
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError)
# Out of memory, or a full or read-only disk.
_REFUSED = (
    tf.errors.ResourceExhaustedError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
)
_MEMORY = ("OOM when allocating", "Out of memory", "out of memory")  # of TensorFlow and XLA
_DISK = ("No space left", "Read-only file system", "Permission denied", "quota")
# TensorFlow quotes bytes that it cannot parse, which Python may be unable to decode.
_UNREADABLE = (tf.errors.OpError, UnicodeDecodeError)


@contextlib.contextmanager
def as_input_errors(source: sources.Source, workdir: str, several_processes: bool):
    """Raises InputError for a damaged shard, a full disk or memory, and a lost process.

    Other errors of TensorFlow in the block are raised as they are.
    """
    try:
        yield
    except _LOST as error:  # a broken connection, or missing heartbeats of a silent host
        if not several_processes:
            raise
        raise InputError(
            "another process of this run was lost; see its own output, then start the same "
            "command on every host: it continues from the last checkpoint"
        ) from error
    except _REFUSED as error:
        reason = _explain_refusal(str(error), workdir)
        if not reason:
            raise
        raise InputError(reason) from error
    except _UNREADABLE as error:
        print("Looking for the shard that cannot be read", flush=True)
        damage = find_damage(source)
        if not damage:
            raise
        command = f"python -m beam_jobs.verify --data={shlex.quote(source.folder)}"
        raise InputError(f"{damage}; {command} checks all shards") from error


def _explain_refusal(message: str, workdir: str) -> str | None:
    """Explains what memory or disk refused, and what to do; None for another error."""
    if any(words in message for words in _MEMORY):
        return (
            "out of memory; lower --batch_size, or choose --precision=bfloat16 or a smaller "
            "--backbone"
        )
    reason = next((words for words in _DISK if words in message), None)
    return reason and (
        f"--workdir={workdir}: {reason}; make room, then repeat the command: it continues from "
        "the last checkpoint"
    )


def find_damage(source: sources.Source) -> str | None:
    """Describes what is wrong with the first shard that cannot be read; None if all can be."""
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
            return f"{path}: record {number} is not a slice of this dataset ({reason})"
    return None
