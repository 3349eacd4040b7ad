"""Pieces of an HTML page; every text that goes in is escaped here, and nowhere else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import NewType

#: What a cell shows where there is no value.
NOTHING = "-"

#: Text that is HTML already; plain text becomes HTML by the functions of this module alone.
Html = NewType("Html", str)


def join(*pieces: Html) -> Html:
    """Puts pieces one after the other."""
    return Html("\n".join(piece for piece in pieces if piece))


def paragraph(text: str, *, kind: str = "") -> Html:
    """A paragraph, of a class of the style sheet if ``kind`` is given."""
    return Html(f"<p{_class(kind)}>{escape(text)}</p>")


def section(title: str, *content: Html) -> Html:
    """A part of the page with a heading; nothing where there is no content."""
    inside = join(*content)
    return Html(f"<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>") if inside else Html("")


def disclosure(summary: str, *content: Html) -> Html:
    """A part that is folded away until it is asked for, without any script."""
    return Html(f"<details>\n<summary>{escape(summary)}</summary>\n{join(*content)}\n</details>")


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table whose first column names the rows.

    Args:
        caption: What it shows; also its name for readers that do not see it.
        header: Titles of the columns.
        rows: At least one, with as many cells as titles; columns of numbers are aligned as such.

    Returns:
        The table in a frame that scrolls where the window is narrow.
    """
    kinds = ["number" if all(map(_is_number, column)) else "" for column in zip(*rows, strict=True)]
    titles = "".join(
        f'<th scope="col"{_class(kind)}>{escape(title)}</th>' for title, kind in zip(header, kinds, strict=True)
    )
    lines = []
    for name, *cells in rows:
        values = "".join(f"<td{_class(kind)}>{escape(cell)}</td>" for cell, kind in zip(cells, kinds[1:], strict=True))
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{values}</tr>')
    body = "\n".join(lines)
    return Html(
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table>\n'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{titles}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def figure(png: bytes, *, alt: str, caption: str) -> Html:
    """A picture that is part of the page itself.

    Args:
        png: The content of a PNG file.
        alt: What it shows, for readers who do not see it.
        caption: The text below it.

    Returns:
        The figure.
    """
    data = base64.b64encode(png).decode("ascii")
    return Html(
        f'<figure><div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def facts(caption: str, values: Mapping[str, str]) -> Html:
    """A table of names and values; nothing where there are none."""
    return table(caption, ("name", "value"), list(values.items())) if values else Html("")


def page(title: str, style: str, *content: Html) -> Html:
    """A whole page.

    Args:
        title: Of the window and the page.
        style: The style sheet.
        content: What stands below the title.

    Returns:
        The page, which loads nothing from elsewhere.
    """
    return Html(
        f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="mdprop_ext">
<title>{escape(title)}</title>
<style>
{style.strip()}
</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{join(*content)}
</main>
</body>
</html>
"""
    )


def frame(whole_page: str, *, height: int = 640) -> Html:
    """Shows a page within another one, such as a notebook, with a style sheet of its own."""
    return Html(
        f'<iframe srcdoc="{escape(whole_page)}" sandbox="" title="report" '
        f'style="width:100%;height:{height}px;border:0"></iframe>'
    )


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell == NOTHING or (cell[:1] in "-+±" and cell[1:2].isdigit())
