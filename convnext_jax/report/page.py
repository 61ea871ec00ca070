"""A page of HTML in one file, which opens from the disk without a network, in the reader's theme, light or dark."""

import base64
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from convnext_jax.report.pictures import shown

# The colors that a chart is drawn in, and what the page puts in their places. Each pair is legible in both themes.
INK, FAINT, SERIES = "#0a0b0c", "#0d0e0f", ("#01a201", "#02a202", "#03a203", "#04a204", "#05a205", "#06a206")
_COLOR_NAMES = {"ink": INK, "faint": FAINT, **{f"series-{number}": color for number, color in enumerate(SERIES)}}


class Page:
    """A page that is put together from the top.

    Args:
      title: of the page.
      lead: a sentence below it.
      refresh: seconds after which a browser loads the page again; None is never.
    """

    def __init__(self, title: str, lead: str = "", *, refresh: float | None = None) -> None:
        self.title = title
        self._lead = lead
        self._refresh = refresh
        self._sections: list[tuple[str, str]] = []
        self._scripts: list[str] = []

    def add(self, heading: str, *parts: str) -> None:
        """Adds a section: its heading as text, its parts as HTML."""
        self._sections.append((heading, "\n".join(parts)))

    def add_script(self, script: str) -> None:
        """Adds a script that runs once the page is loaded."""
        self._scripts.append(script)

    def html(self) -> str:
        """Returns the page."""
        style = _style()
        names = [(re.sub(r"\W+", "-", heading.lower()).strip("-"), heading, body) for heading, body in self._sections]
        links = "".join(f'<a href="#{name}">{text(heading)}</a>' for name, heading, _ in names)
        sections = "\n".join(
            f'<section id="{name}" aria-labelledby="{name}-heading">\n<h2 id="{name}-heading">{text(heading)}</h2>\n'
            f"{body}\n</section>"
            for name, heading, body in names
        )
        scripts = "\n".join(f"<script>\n{script}\n</script>" for script in self._scripts)
        lead = f'<p class="lead">{text(self._lead)}</p>' if self._lead else ""
        refresh = "" if self._refresh is None else f'<meta http-equiv="refresh" content="{self._refresh:g}">\n'
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta name="color-scheme" content="light dark">\n{refresh}<link rel="icon" href="data:,">\n'
            f"<title>{text(self.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
            f'<header>\n<h1>{text(self.title)}</h1>\n{lead}\n<nav aria-label="Sections">{links}</nav>\n</header>\n'
            f"<main>\n{sections}\n</main>\n{scripts}\n</body>\n</html>\n"
        )


def _style() -> str:
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def light_series() -> tuple[str, ...]:
    """Returns the colors that `SERIES` have in the light theme, for a picture outside of the page."""
    light = dict(re.findall(r"--([\w-]+): (#\w+);", _style().partition("}")[0]))
    return tuple(light[f"series-{number}"] for number in range(len(SERIES)))


def text(value: object) -> str:
    """Returns text as HTML.

    >>> text("a < b")
    'a &lt; b'
    """
    return html.escape(str(value))


def table(rows: Sequence[Sequence[object]], *, caption: str, numbers: Sequence[int] = ()) -> str:
    """Returns a table, which scrolls sideways where the page is narrow.

    Args:
      rows: cells as text. The first row is the head, and the first cell of each row names it.
      caption: what the table shows.
      numbers: columns that are aligned to the right.
    """

    def cell(tag: str, index: int, value: object, scope: str) -> str:
        return f"<{tag}{scope}{' class=number' if index in numbers else ''}>{text(value)}</{tag}>"

    head = "".join(cell("th", index, value, ' scope="col"') for index, value in enumerate(rows[0]))
    body = "\n".join(
        "<tr>"
        + cell("th", 0, row[0], ' scope="row"')
        + "".join(cell("td", index, value, "") for index, value in enumerate(row) if index)
        + "</tr>"
        for row in rows[1:]
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table>\n'
        f"<caption>{text(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def details(summary: str, *parts: str) -> str:
    """Returns HTML that is folded away behind a line of text."""
    return f"<details><summary>{text(summary)}</summary>\n" + "\n".join(parts) + "\n</details>"


def code(content: str) -> str:
    """Returns text as it is, in lines of equal letters."""
    return f'<pre tabindex="0"><code>{text(content)}</code></pre>'


def chart(figure: Figure, *, alt: str) -> str:
    """Returns a figure as SVG whose colors follow the theme.

    Args:
      figure: drawn in `INK`, `FAINT` and `SERIES`; see `new_figure`.
      alt: what it shows, in words, for who does not see it.
    """
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):  # text as text, the same names each time
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    for name, color in _COLOR_NAMES.items():
        svg = svg.replace(color, f"var(--{name})")
    opening = f'<svg role="img" aria-label="{text(alt)}" class="chart"'
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)  # the same in every chart of a page, and nothing refers to them
    return '<div class="scroll">' + svg.replace("<svg", opening, 1) + "</div>"


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure for a `chart`. Call `style_axes` on its axes.

    Args:
      width: in inches.
      height: in inches.
    """
    return Figure(figsize=(width, height), layout="constrained")


def style_axes(axes: Axes, *, x: str, y: str) -> None:
    """Labels axes and gives them the colors of the page. If their lines have labels, a legend is put below them."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK)
    axes.grid(color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, labelcolor=INK)


def data_uri(image: np.ndarray) -> str:
    """Returns an image, uint8 [H,W,C] with C from 1 to 4, as the address of a PNG picture."""
    encoded = io.BytesIO()
    Image.fromarray(shown(image)).save(encoded, format="png")
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()
