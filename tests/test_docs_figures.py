"""Each figure of the documents is that of its record."""

import re

import pytest
from conftest import ROOT

from benchmarks.figures import FIGURES, PAGE, RECORDS, Figure, number, page

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.document}: {figure.template[:40]}")
def test_a_document_has_the_numbers_of_the_record(figure: Figure):
    assert figure.text in (ROOT / figure.document).read_text()
    assert all((ROOT / RECORDS / record).is_file() for record in figure.records)


def test_each_record_that_a_document_links_to_has_a_figure():
    linked = {
        (path.relative_to(ROOT).as_posix(), record)
        for path in DOCUMENTS
        if path != PAGE
        for record in re.findall(rf"\]\((?:\.\./)?{RECORDS}/([\w.-]+)\)", path.read_text())
    }
    assert len(linked) >= 30
    assert linked - {(figure.document, record) for figure in FIGURES for record in figure.records} == set()


def test_the_page_is_that_of_the_figures():
    assert PAGE.read_text() == page(FIGURES), "python benchmarks/figures.py"


def test_a_number_is_found_divided_and_rounded():
    record = "digits_epyc_2cores.json"
    assert number(record, "summary > seconds") == 47.113
    assert number(record, "summary > seconds / 60") == 47.113 / 60
    assert number(record, "summary > seconds ~ 1") == 50
