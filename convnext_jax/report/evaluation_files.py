"""``report.html``: one evaluation as a page, or several, each of which has a page of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convnext_jax.errors import writing
from convnext_jax.evaluate.comparison import Group
from convnext_jax.evaluate.offline import Evaluation
from convnext_jax.evaluate.segmentation import SegmentationEvaluation
from convnext_jax.evaluate.selected import AnyEvaluation
from convnext_jax.report.evaluation_page import evaluation_page
from convnext_jax.report.evaluation_tables import group_rows
from convnext_jax.report.page import Page, code, table, text
from convnext_jax.report.segmentation_page import segmentation_page
from convnext_jax.storage.files import write_text


def page_of(evaluation: AnyEvaluation, *, command: str) -> Page:
    """Returns the page of an evaluation of any task.

    Args:
      evaluation: the evaluation.
      command: the command line that made it.
    """
    if isinstance(evaluation, SegmentationEvaluation):
        return segmentation_page(evaluation, command=command)
    assert isinstance(evaluation, Evaluation), "there is no other task"
    return evaluation_page(evaluation, command=command)


def comparison_page(
    groups: Sequence[Group], comparisons: Sequence[Mapping[str, Any]], pages: Mapping[str, str], *, command: str
) -> Page:
    """Returns the page of several evaluations: their figures, and how they compare.

    Args:
      groups: the evaluations.
      comparisons: what `convnext_jax.evaluate.comparison.compare` returned of them.
      pages: titles of the pages of single evaluations, by their address.
      command: the command line that made it.
    """
    rows = group_rows(groups)
    page = Page("Evaluations", f"{len(rows) - 1} rows, {len(groups)} groups")
    page.add("Figures", table(rows, caption="Each evaluation", numbers=range(1, len(rows[0]))))
    if comparisons:
        page.add("Differences", *(f"<p>{text(compared['conclusion'])}</p>" for compared in comparisons))
    links = "".join(f'<li><a href="{text(address)}">{text(title)}</a></li>' for address, title in pages.items())
    page.add("Pages", f"<ul>{links}</ul>")
    page.add("Command", code(command))
    return page


def write_pages(
    directory: Path, groups: Sequence[Group], comparisons: Sequence[Mapping[str, Any]], *, command: str
) -> Path:
    """Writes ``report.html``, of one evaluation or of several, each of which then has a page of its own beside it.

    Args:
      directory: the folder, which exists.
      groups: the evaluations.
      comparisons: what `convnext_jax.evaluate.comparison.compare` returned of them.
      command: the command line that made them.

    Returns:
      The path of ``report.html``.
    """
    path = directory / "report.html"
    evaluations = [each for group in groups for each in group.evaluations]
    with writing(path, "--output"):
        if len(evaluations) == 1:
            write_text(path, page_of(evaluations[0], command=command).html())
            return path
        titles = {}
        for number, each in enumerate(evaluations, 1):
            page = page_of(each, command=command)
            write_text(directory / f"report_{number}.html", page.html())
            titles[f"report_{number}.html"] = page.title
        write_text(path, comparison_page(groups, comparisons, titles, command=command).html())
    return path
