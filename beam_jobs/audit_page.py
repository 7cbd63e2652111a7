"""The result of the audit: audit.csv with one row per patient, audit.html with pictures.

Both are made from the workers' part files, one part at a time.
"""

import html
from collections import Counter

from beam_jobs import shards
from segthor import csv_files, files, outputs
from segthor.findings import CODES, Finding
from segthor.manifest import UNLABELLED, Built, Rejected, Unlabelled
from segthor.organs import RANGES, Organs

FILES = ("audit.csv", "audit.html")
MOST_SHOWN = 500  # rejected patients, and as many with warnings: browsers open no larger page
_FIGURES = ("volume_cm3", "mean_hu", "extent_z_mm", "components")
_BEFORE = ("patient", "status", "split", "fold", "slices", "pixel_mm", "slice_mm", "level_hu")
_AFTER = ("codes", "messages", "ct", "labels")
_LIMITS = (*RANGES, "max_components")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em;
  background: #18181b; color: #e4e4e7 }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em }
table { border-collapse: collapse; width: 100% }
td, th { border-top: 1px solid #3f3f46; padding: .4em .6em; text-align: left; vertical-align: top }
.reject { color: #f87171 } .warn { color: #fbbf24 } code { color: #93c5fd }
img { display: block; image-rendering: pixelated }
"""


def write(names: list[str], output: str, organs: Organs) -> int:
    """Writes both files from the parts of the shards `names`; returns how many were rejected."""
    organ_columns = [f"{organ}_{figure}" for organ in organs.names for figure in _FIGURES]
    columns = [*_BEFORE, *organ_columns, *_AFTER]
    entries, counts, status, lines = {"rejected": [], "warned": []}, Counter(), [], []
    for name in names:
        part = shards.Part.load(output, name)
        for patient in part.patients + part.unlabelled + part.rejected:
            row, findings = _make_row(patient), _findings_of(patient)
            status.append(row["status"])
            # Kept as text: the rows of very many patients would not fit into memory.
            line = csv_files.csv_line([row.get(column) for column in columns])
            lines.append((row["patient"], line))
            for finding in findings:
                counts[finding.severity, finding.code] += 1
            if findings and len(entries[row["status"]]) < MOST_SHOWN:
                picture = part.thumbnails.get(row["patient"], "")
                entry = _format_entry(row, findings, picture)
                entries[row["status"]].append((row["patient"], entry))
    table = b"".join([csv_files.csv_line(columns), *(line for _, line in sorted(lines))])
    shown = [text for group in entries.values() for _, text in sorted(group)]
    page = _format_page(status, counts, shown, organs)
    for name, content in zip(FILES, (table, page.encode(errors="backslashreplace")), strict=True):
        with files.atomic_write(files.join(output, name)) as stream:
            stream.write(content)
    return status.count("rejected")


def _make_row(patient: Built | Unlabelled | Rejected) -> dict:
    findings = _findings_of(patient)
    row = {key: getattr(patient, key, "") for key in ("patient", "ct", "labels")}
    row["status"] = "warned" if findings else "good"
    row["codes"] = ";".join(finding.code for finding in findings)
    row["messages"] = "; ".join(finding.message for finding in findings)
    if isinstance(patient, Rejected):
        return row | {"status": "rejected"}
    if patient.level_hu is not None:
        row["level_hu"] = round(patient.level_hu, 2)
    if isinstance(patient, Unlabelled):
        return row | {"split": UNLABELLED}
    z_mm, *in_plane_mm = patient.placement.spacing_zyx_mm
    row |= {key: getattr(patient, key) for key in ("split", "fold", "slices")}
    row |= {"pixel_mm": round(max(in_plane_mm), 4), "slice_mm": round(z_mm, 4)}
    for organ, figures in patient.audit.organs.items():
        row |= {f"{organ}_{figure}": getattr(figures, figure) for figure in _FIGURES}
    return row


def _findings_of(patient: Built | Unlabelled | Rejected) -> tuple[Finding, ...]:
    return patient.findings if isinstance(patient, Rejected) else patient.audit.findings


def _format_entry(row: dict, findings: tuple[Finding, ...], picture: str) -> str:
    lines = [
        f'<div class="{finding.severity}">{html.escape(finding.message)} '
        f"<code>{finding.code}</code></div>"
        for finding in findings
    ]
    image = f'<img alt="" src="data:image/png;base64,{picture}">' if picture else ""
    name, path = html.escape(row["patient"]), html.escape(row["ct"])
    return f"<tr><td>{name}<br>{row['status']}<td title='{path}'>{''.join(lines)}<td>{image}"


def _format_page(status: list[str], counts: Counter, entries: list[str], organs: Organs) -> str:
    codes = "".join(
        f'<tr><td class="{severity}">{severity}<td><code>{code}</code>'
        f"<td>{html.escape(CODES[code][1])}<td>{number}"
        for (severity, code), number in sorted(counts.items())
    )
    numbers = ", ".join(f"{status.count(one)} {one}" for one in ("good", "warned", "rejected"))
    legend = ", ".join(
        f'<span style="color: rgb{organ.rgb}">{organ.name}</span>' for organ in organs
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="generator" content="{outputs.SOFTWARE}"><title>Audit</title>'
        f"<style>{_STYLE}</style><h1>Audit of {len(status)} patients: {numbers}</h1>"
        f"<table><tr><th>severity<th>code<th>meaning<th>findings{codes}</table>"
        f"<h2>Patients with findings</h2><p>Contours: {legend}. At most {MOST_SHOWN} rejected and "
        f"as many others are shown; audit.csv lists all.</p>{_list_unchecked(organs)}"
        f"<table>{''.join(entries)}</table></html>\n"
    )


def _list_unchecked(organs: Organs) -> str:
    """A paragraph about the figures that the table of organs gives no range for, or ''."""
    missing = {
        organ.name: [limit for limit in _LIMITS if getattr(organ, limit) is None]
        for organ in organs
    }
    text = "; ".join(f"{name}: {', '.join(limits)}" for name, limits in missing.items() if limits)
    return text and f"<p>Not checked, without a range in the table of organs: {text}.</p>"
