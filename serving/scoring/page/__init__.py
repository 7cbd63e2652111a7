"""The report's page: one HTML file that holds its style, its script and its data."""

import json
from pathlib import Path

from segthor import files, organs
from serving.scoring import viewer

_HERE = Path(__file__).parent


def write(path: str, patients: list[dict], source: str) -> int:
    """Writes the page; patients: of `serving.scoring.viewer`, in their order. Returns its bytes."""
    data = {
        "source": source,
        "patients": patients,
        "levels": viewer.LEVELS,
        "organs": [{"name": o.name, "label": o.label, "rgb": o.rgb} for o in organs.ORGANS],
    }
    parts = {
        "style": (_HERE / "page.css").read_text(),
        "script": (_HERE / "page.js").read_text(),
        # "</script>" inside a text would end the element that holds it.
        "data": json.dumps(data, separators=(",", ":")).replace("</", "<\\/"),
    }
    html = (_HERE / "page.html").read_text()
    for name, text in parts.items():
        html = html.replace(f"@@{name}@@", text)
    content = html.encode()
    with files.atomic_write(path) as stream:
        stream.write(content)
    return len(content)
