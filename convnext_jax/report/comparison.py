"""A comparison of runs as a page of HTML, a picture and Markdown."""

import dataclasses
import io
import re
import time
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from convnext_jax.report import comparison_tables as tables
from convnext_jax.report import page as html
from convnext_jax.report.comparison_charts import OVER, Panel, draw, panels
from convnext_jax.report.comparison_legend import SCRIPT, page_legend, picture_legend
from convnext_jax.report.group_names import differing_settings, setting_text
from convnext_jax.report.run_figures import METRICS
from convnext_jax.report.run_groups import Examples, Found, Group, group_runs
from convnext_jax.report.tables import markdown_table
from convnext_jax.storage.files import write_bytes, write_text

_LINES = (
    "Solid lines are the raw weights, dashed ones their moving average (EMA). A star is the best evaluation of a seed."
    " Of several seeds the line is the mean and the band reaches from the lowest to the highest. A thin line is a seed"
    " that has come further than the others. The vertical axes begin with what the runs reach after a quarter of their"
    " evaluations. Wall time is that of all starts of a run together."
)
_DPI = 110


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Groups of runs, those that are evaluated on the same examples together.

    Attributes:
      parts: the groups of each set of examples.
      notes: what is missing and why, in sentences.
    """

    parts: Sequence[Sequence[Group]]
    notes: Sequence[str]

    @classmethod
    def of(cls, found: Found) -> "Comparison":
        """Returns the comparison of the runs that were found."""
        parts: dict[Examples, list[Group]] = {}
        for group in group_runs(found.runs):
            parts.setdefault(group.examples, []).append(group)
        notes = [f"Left out: {reason}." for reason in found.skipped]
        if found.waiting:
            notes.append(f"Nothing is logged yet in {', '.join(map(str, found.waiting))}.")
        if len(parts) > 1:
            notes.append(
                f"The runs are evaluated on {len(parts)} different sets of examples ({', '.join(map(str, parts))})."
                " Figures of different examples cannot be compared, so each set has tables and curves of its own."
            )
        return cls(list(parts.values()), notes)

    @property
    def title(self) -> str:
        """What is compared, in words."""
        names = [group.name for groups in self.parts for group in groups]
        if not names:
            return "Comparison of runs"
        return f"Comparison of {' and '.join(names) if len(names) <= 2 else f'{len(names)} groups of runs'}"

    def write(self, folder: Path) -> None:
        """Writes ``comparison.html``, ``comparison.md`` and ``comparison.png`` into an existing folder."""
        write_text(folder / "comparison.html", self.page())
        write_text(folder / "comparison.md", self.markdown() + "\n")
        if self.parts:
            write_bytes(folder / "comparison.png", self.picture())

    def write_live(self, folder: Path, every: float) -> None:
        """Writes ``comparison.html`` alone, as a page that loads itself again.

        Args:
          folder: an existing folder.
          every: seconds between two loads.
        """
        lead = f"As of {time.strftime('%H:%M:%S')}. The page loads itself again every {every:g} seconds."
        write_text(folder / "comparison.html", self.page(lead, every))

    def markdown(self) -> str:
        """Returns the tables."""
        blocks = [*self.notes]
        for groups in self.parts:
            blocks += [f"**{groups[0].examples}**"] if len(self.parts) > 1 else []
            blocks += [markdown_table(tables.figure_rows(groups)), " ".join(tables.how_to_read(groups))]
            differences = tables.difference_rows(groups)
            if len(differences) > 1:
                blocks += [markdown_table(differences), " ".join(tables.how_differences_are_made(groups))]
        return "\n\n".join(block for block in blocks if block)

    def page(self, lead: str = "", refresh: float | None = None) -> str:
        """Returns the page.

        Args:
          lead: a sentence below the title.
          refresh: seconds after which a browser loads the page again; None is never.
        """
        page = html.Page(self.title, lead, refresh=refresh)
        if self.notes:
            page.add("Notes", *map(_note, self.notes))
        for groups in self.parts:
            of = f" on {groups[0].examples}" if len(self.parts) > 1 else ""
            page.add(f"Figures{of}", *_figure_tables(groups))
            differences = tables.difference_rows(groups)
            if len(differences) > 1:
                caption = f"Differences to {groups[0].label}"
                shown = html.table(differences, caption=caption, numbers=range(3, len(differences[0])))
                page.add(f"Differences{of}", shown, *map(_note, tables.how_differences_are_made(groups)))
            page.add(f"Curves{of}", _note(_LINES), page_legend(groups), *_charts(groups))
        page.add_script(SCRIPT)
        return page.html()

    def picture(self) -> bytes:
        """Returns the curves as a PNG picture."""
        rows = [len(panels(groups)) for groups in self.parts]
        heights = [3.1 * count + 0.11 * len(groups) + 1.0 for count, groups in zip(rows, self.parts, strict=True)]
        figure = Figure(figsize=(11, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(self.parts), 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, groups in zip(parts, self.parts, strict=True):
            shown = panels(groups)
            grid = part.subplots(len(shown), len(OVER), squeeze=False)
            for row, panel in zip(grid, shown, strict=True):
                for axes, over in zip(row, OVER, strict=True):
                    axes.set_xlabel(draw(axes, panel, groups, over, html.light_series()))
                    axes.set_ylabel(panel.y)
                    axes.grid(alpha=0.3)
            part.suptitle(str(groups[0].examples))
            part.legend(handles=picture_legend(groups), loc="outside lower left", ncols=2, frameon=False)
        encoded = io.BytesIO()
        figure.savefig(encoded, dpi=_DPI, format="png")
        return encoded.getvalue()


def _note(sentence: str) -> str:
    with_code = re.sub("`(.*?)`", r"<code>\1</code>", html.text(sentence))
    return f'<p class="note">{with_code}</p>'


def _figure_tables(groups: Sequence[Group]) -> list[str]:
    rows = tables.figure_rows(groups)
    first_number = rows[0].index("weights") + 1
    caption = f"Figures of the {groups[0].examples.split} split"
    parts = [html.table(rows, caption=caption, numbers=range(first_number, len(rows[0])))]
    parts += map(_note, tables.how_to_read(groups))
    fields = differing_settings([group.settings for group in groups])
    if len(fields) > tables.COLUMNS:
        settings = [[group.settings[name] if name in group.settings else "" for name in fields] for group in groups]
        cells = [[group.name, *map(setting_text, each)] for group, each in zip(groups, settings, strict=True)]
        table = html.table([["run", *fields], *cells], caption="Settings in which the groups differ")
        parts.append(html.details("All settings that differ", table))
    return parts


def _charts(groups: Sequence[Group]) -> list[str]:
    parts = []
    for panel in panels(groups):
        charts = "\n".join(_chart(panel, groups, over) for over in OVER)
        parts += [
            f"<h3>{html.text(panel.title[:1].upper() + panel.title[1:])}</h3>",
            f'<div class="columns">{charts}</div>',
        ]
    return parts


def _chart(panel: Panel, groups: Sequence[Group], over: str) -> str:
    figure = html.new_figure(4.8, 3.3)
    axes = figure.subplots()
    html.style_axes(axes, x=draw(axes, panel, groups, over), y=panel.y)
    drawn = html.chart(figure, alt=f"{panel.title} by {OVER[over]}, {groups[0].examples}. {_in_words(panel, groups)}")
    return drawn.replace('id="group-', 'class="group-')


def _in_words(panel: Panel, groups: Sequence[Group]) -> str:
    """Returns what a chart shows: the figures at the end of its lines."""
    if panel.metric not in METRICS:
        return f"Of {', '.join(group.label for group in groups)}."
    factor, digits = (1, 4) if panel.metric == "loss" else (100, 2)
    ends = [
        f"{group.label} {figures.weights} {tables.mean_text(figures.last(panel.metric), factor, digits)}"
        for group in groups
        for figures in panel.figures(group)
    ]
    return f"At the end: {'; '.join(ends)}."
