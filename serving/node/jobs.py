"""A job: one series in the queue, stored as `job.json` in its folder."""

from dataclasses import dataclass

from serving.node.rules import Order

FILE_NAME = "job.json"


@dataclass(frozen=True)
class Object:
    """One file to be sent.

    file: Path below the job's folder.
    uid: SOP Instance UID; '' for a file that is no DICOM, which only folders take.
    sha256: Of its bytes.
    sent_to: Destination that stored it; '' before.
    status: Status of a receiver's last response; None before the first.
    """

    file: str
    uid: str
    sha256: str
    sent_to: str = ""
    status: int | None = None


@dataclass(frozen=True)
class Job:
    """One series in the queue. Patient, study and series are keyed hashes.

    series, study, patient: Hashes of the UIDs and the PatientID.
    calling: Title of the sender; '' for files from a watched folder.
    address: Address of the sender.
    received: When the first slice arrived, in seconds since 1970.
    replaces: The job of the same series that had fewer slices, if any.
    order: Order of the rule that matches; None before the series is complete, or without a rule.
    starts: How often prediction was started.
    reason: Why the job failed or was discarded, or what could not be predicted.
    refused: Whether there is no prediction, so that the job ends in `failed`.
    model: Digests of the models, with commas between.
    objects: What is to be sent.
    destination: Index of the present destination in the order.
    attempts: Failed attempts to send to this destination.
    due: When to try again, in seconds since 1970.
    """

    series: str
    study: str
    patient: str
    calling: str
    address: str
    received: float
    replaces: str = ""
    order: Order | None = None
    starts: int = 0
    reason: str = ""
    refused: bool = False
    model: str = ""
    objects: tuple[Object, ...] = ()
    destination: int = 0
    attempts: int = 0
    due: float = 0.0
