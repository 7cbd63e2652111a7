"""The report's page: one HTML file that holds its style, its script and its data."""

import json
import re
import string
from pathlib import Path

from segthor import drawing, files
from segthor.organs import Organs
from serving.scoring import viewer
from serving.scoring.page import markdown

_HERE = Path(__file__).parent
_SCRIPTS = ("state.js", "volume.js", "planes.js", "review.js", "page.js")
_TAKEN_KEYS = "ptw"  # by page.js: predicted, true, worst slice


def write(path: str, patients: list[dict], source: str, organs: Organs, cards=()) -> int:
    """Writes the page; patients: of `serving.scoring.viewer`, in their order. Returns its bytes.

    cards: of the models that predicted, each in Markdown (`serving.card_text`).
    source: what they are, for the headline. Of the organs those that were to be found are offered.
    """
    found = {name for patient in patients for name in patient.get("organs", ())}
    organs = organs.select(found or organs.names)
    data = {
        "source": source,
        "patients": patients,
        "levels": viewer.LEVELS,
        "windows": drawing.WINDOWS_HU,
        "organs": [
            {
                "name": o.name,
                "label": o.label,
                "rgb": o.rgb,
                "pale": drawing.pale(o.rgb),
                "key": key,
            }
            for o, key in zip(organs, _keys(organs.names), strict=True)
        ],
    }
    parts = {
        "style": (_HERE / "page.css").read_text(),
        "script": "".join((_HERE / name).read_text() for name in _SCRIPTS),
        "data": _embedded(data),
        "cards": "".join(_folded(markdown.as_html(card)) for card in cards),
    }
    html = (_HERE / "page.html").read_text()
    html = re.sub("@@(.+?)@@", lambda found: parts[found[1]], html)  # never within a part
    content = html.encode()
    with files.atomic_write(path) as stream:
        stream.write(content)
    return len(content)


def _folded(html: str) -> str:
    """A model card that a click opens."""
    return f'<details class="card"><summary>Model card</summary>{html}</details>'


def _keys(names) -> list[str]:
    """The key that shows or hides each organ: the first free letter of its name, else of all.

    '' for those that come after the last free letter.
    """
    keys = []
    for name in names:
        letters = (key for key in name + string.ascii_lowercase if key.isalpha())
        keys.append(next((key for key in letters if key not in (*_TAKEN_KEYS, *keys)), ""))
    return keys


def _embedded(value) -> str:
    """JSON that nothing in it can end or comment out, wherever in a page of HTML it stands.

    What is no character, as in a file's name that is not UTF-8, becomes a question mark.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.encode(errors="replace").decode()
    return text.translate({ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"})
