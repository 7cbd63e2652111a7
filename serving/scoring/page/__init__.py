"""The page of a report: one HTML file with its style, scripts and data."""

import json
import re
import string
from pathlib import Path

from segthor import drawing, files
from segthor.organs import Organs
from serving.scoring import viewer
from serving.scoring.page import markdown

_HERE = Path(__file__).parent
_SCRIPTS = ("state.js", "volume.js", "planes.js", "review.js", "phases.js", "page.js")
_TAKEN_KEYS = "ptw"  # keys of page.js: predicted, true, worst slice


def write(path: str, patients: list[dict], source: str, organs: Organs, cards=()) -> int:
    """Writes the page; returns its size in bytes.

    patients: Entries of `serving.scoring.viewer`, in their order on the page.
    source: Description of the patients, for the headline.
    organs: The table; the page shows those of its organs that an entry has.
    cards: Model cards of the models that predicted, in Markdown (`serving.card_text`).
    """
    every = [entry for patient in patients for entry in patient.get("phases", [patient])]
    names = {name for entry in every for name in entry.get("organs", ())}
    data = {
        "source": source,
        "patients": patients,
        "levels": viewer.LEVELS,
        "windows": drawing.WINDOWS_HU,
        "organs": _make_legend(organs.select(names or organs.names)),
    }
    parts = {
        "style": (_HERE / "page.css").read_text(),
        "script": "".join((_HERE / name).read_text() for name in _SCRIPTS),
        "data": _embedded(data),
        "cards": "".join(_folded(markdown.as_html(card)) for card in cards),
    }
    html = (_HERE / "page.html").read_text()
    # One pass, so that a part is never searched for names of parts.
    content = re.sub("@@(.+?)@@", lambda match: parts[match[1]], html).encode()
    with files.atomic_write(path) as stream:
        stream.write(content)
    return len(content)


def _make_legend(organs: Organs) -> list[dict]:
    return [
        {"name": o.name, "label": o.label, "rgb": o.rgb, "pale": drawing.pale(o.rgb), "key": key}
        for o, key in zip(organs, _keys(organs.names), strict=True)
    ]


def _folded(html: str) -> str:
    """A model card that a click opens."""
    return f'<details class="card"><summary>Model card</summary>{html}</details>'


def _keys(names) -> list[str]:
    """Keys that show or hide each organ: the first free letter of its name, else of the alphabet.

    '' for an organ without a free letter.
    """
    keys = []
    for name in names:
        letters = (key for key in name + string.ascii_lowercase if key.isalpha())
        keys.append(next((key for key in letters if key not in (*_TAKEN_KEYS, *keys)), ""))
    return keys


def _embedded(value) -> str:
    """JSON that can be embedded in HTML: no character of it can end the script.

    Bytes of a file name that are not UTF-8 become question marks.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.encode(errors="replace").decode()
    return text.translate({ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"})
