"""Explains which rule matches the series of a folder, and why the rules before it do not."""

import contextlib
import os
from collections import defaultdict

from segthor import fields, json_files
from segthor.dicom import index, received
from segthor.errors import InputError
from serving.node import rules
from serving.node.jobs import FILE_NAME, Job


def explain(folder: str, current_rules, calling: str = "") -> str:
    """Lines for people, which quote the rules but no header.

    calling: Title of the sender, where the folder is no job's.

    Raises:
      InputError: the folder has no DICOM file.
    """
    job = os.path.join(folder, FILE_NAME)
    if os.path.exists(job):
        calling = fields.from_json(Job, json_files.read(job), job).calling
    by_series = _group_by_series(folder)
    lines = []
    for number, uid in enumerate(sorted(by_series), 1):
        series = received.read_series(by_series[uid])
        order, results = rules.choose(current_rules, series, calling)
        others = "".join(f", {count} {kind}" for kind, count in series.others.items())
        lines.append(
            f"series {number} of {len(by_series)}: {series.slices} CT slices, "
            f"{series.spacing_mm:.3g} mm apart{others}"
        )
        lines += [f"  {one}" for one in results]
        lines.append(f"  {_outcome(order)}")
    return "\n".join(lines)


def _group_by_series(folder: str) -> dict[str, list[str]]:
    """Series UID to the paths of its files; raises InputError if there is no DICOM file."""
    by_series = defaultdict(list)
    for path in index.find(folder):
        with contextlib.suppress(InputError):  # no DICOM, or damaged
            by_series[received.read_instance(path).series_uid].append(path)
    if not by_series:
        raise InputError(f"--explain={folder}: expected DICOM files, found none")
    return by_series


def _outcome(order: rules.Order | None) -> str:
    if order is None:
        return "no rule matches: discarded"
    if not order.models:
        return f"discarded by line {order.line}"
    where = " or else ".join(order.destinations) or "stays in the spool"
    return f"line {order.line}: {', '.join(order.models)}; {', '.join(order.formats)}; {where}"
