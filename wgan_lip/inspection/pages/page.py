"""A page in one file: all figures inside, no requests, and no script except one that sorts tables."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

__all__ = ["Cell", "Section", "details", "figure", "marked", "page", "paragraph", "preformatted", "table"]


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: Its heading.
        body: HTML; everything that came from a run has been escaped.
    """

    title: str
    body: str

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Cell:
    """A table entry: its text, and the key it is sorted by if that is not the text."""

    text: str
    key: float | None = None


def page(
    title: str, lead: str, sections: Sequence[Section], *, sortable: bool = False, wide: bool = False
) -> str:  # fmt: skip
    """A complete page.

    Arguments:
        title: Its name and first heading, as plain text.
        lead: HTML below the heading.
        sections: The sections in order, with links to them at the top.
        sortable: Whether a click on a heading sorts its tables; without scripts they stay as they are.
        wide: Whether it uses the full width of the screen, for tables of many columns.
    """
    style, script = _asset("page.css"), _asset("sorting.js") if sortable else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    policy += f"; script-src 'sha256-{digest}'" if script else ""
    links = "".join(f'<li><a href="#{section.anchor}">{escape(section.title)}</a></li>' for section in sections)
    parts = "".join(
        f'<section aria-labelledby="{section.anchor}"><h2 id="{section.anchor}">{escape(section.title)}</h2>'
        f"{section.body}</section>\n"
        for section in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{style}</style></head>\n'
        f"<body{' class=wide' if wide else ''}><header><h1>{escape(title)}</h1>{lead}"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n<main>\n{parts}</main>'
        + (f"<script>{script}</script>" if script else "")
        + "</body></html>\n"
    )


def marked(text: str) -> str:
    """Plain text as HTML; text between backticks is set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def paragraph(text: str) -> str:
    """Plain text as a paragraph."""
    return f"<p>{marked(text)}</p>"


def preformatted(text: str, label: str) -> str:
    """Plain text, unchanged; long lines scroll."""
    return f'<pre tabindex="0" role="region" aria-label="{escape(label)}">{escape(text)}</pre>'


def figure(picture: str, caption: str, *, wide: bool = False) -> str:
    """A picture from :mod:`wgan_lip.figures.embedding`, with its caption in plain text."""
    return f"<figure{' class=wide' if wide else ''}>{picture}<figcaption>{marked(caption)}</figcaption></figure>"


def details(summary: str, body: str) -> str:
    """HTML folded away under a line of plain text."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str | Cell]], *, sortable: bool = False) -> str:
    """A table of plain text whose first column names its rows; it scrolls on a narrow screen."""
    kind = ' class="sortable"' if sortable else ""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(f"<tr>{''.join(_cell(cell, index == 0) for index, cell in enumerate(row))}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table{kind}>'
        f"<caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(cell: str | Cell, names_row: bool) -> str:
    cell = cell if isinstance(cell, Cell) else Cell(cell)
    key = "" if cell.key is None else f' data-key="{cell.key!r}"'
    if names_row:
        return f'<th scope="row"{key}>{marked(cell.text)}</th>'
    return f"<td{key}>{marked(cell.text)}</td>"


def _asset(name: str) -> str:
    return files("wgan_lip.inspection.pages").joinpath(name).read_text(encoding="utf-8").strip()
