"""The Markdown of `serving.card_text` as HTML: headings, lists, tables and paragraphs, no more."""

import html
import re


def as_html(text: str) -> str:
    """The whole text; all of it is escaped."""
    blocks = []
    for block in html.escape(text).split("\n\n"):
        lines = block.strip().split("\n")
        if block.startswith("#"):
            marks, _, title = block.partition(" ")
            blocks.append(f"<h{len(marks) + 1}>{title}</h{len(marks) + 1}>")
        elif block.startswith("- "):
            rows = "".join(f"<li>{line[2:]}</li>" for line in lines)
            blocks.append(f"<ul>{rows}</ul>")
        elif block.startswith("|"):
            header, _, *rows = lines
            body = "".join(_html_row(row, "td") for row in rows)
            blocks.append(f"<table>{_html_row(header, 'th')}{body}</table>")
        else:
            blocks.append(f"<p>{block}</p>")
    marked = re.sub(r"`(.+?)`", r"<code>\1</code>", "\n".join(blocks))
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", marked)


def _html_row(line: str, cell: str) -> str:
    cells = re.split(r"(?<!\\)\|", line)[1:-1]
    inner = "".join(f"<{cell}>{text.strip()}</{cell}>" for text in cells)
    return f"<tr>{inner}</tr>".replace("\\|", "|")
