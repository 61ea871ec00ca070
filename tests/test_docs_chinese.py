"""The documents in Chinese say what the English ones say: commands, tables, links, figures and pictures."""

import re
from pathlib import Path

import pytest
from conftest import ROOT
from documents import DOCUMENTS, blocks, name_of, without_blocks

SUFFIX = ".zh-CN.md"
PAIRS = [(path, path.with_name(path.name.removesuffix(SUFFIX) + ".md")) for path in DOCUMENTS if SUFFIX in path.name]
NUMBER = re.compile(r"\d[\d,.]*\d|\d")


def code(text: str) -> list[tuple[str, list[str]]]:
    """The blocks without their comments."""
    return [
        (language, [re.sub(r" *# .*$", "", line) for line in content.splitlines()])
        for language, content in blocks(text)
    ]


def links(text: str) -> list[str]:
    """Where the links and pictures lead, those to a document in Chinese as to the English one, without headings."""
    found = re.findall(r"(!?)\[[^\]]*\]\(([^)#]+)[^)]*\)", text)
    return [mark + target.replace(SUFFIX, ".md") for mark, target in found]


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def sections(text: str) -> list[str]:
    """What is below each heading, without tables and blocks."""
    lines = [line for line in without_blocks(text).splitlines() if not line.startswith("|")]
    return re.split(r"^#+ .*$", "\n".join(lines), flags=re.MULTILINE)


def differences(chinese: str, english: str) -> list[str]:
    """What of the two is not the same."""
    kinds = {
        "headings": lambda text: re.findall(r"^#+ ", without_blocks(text), re.MULTILINE),
        "code": code,
        "inline code": lambda text: sorted(re.findall(r"`[^`\n]+`", without_blocks(text))),
        "rows": lambda text: [(row.count("|"), links(row), sorted(NUMBER.findall(row))) for row in rows(text)],
        "links": lambda text: [sorted(links(section)) for section in sections(text)[2:]],
        "figures": lambda text: [sorted(NUMBER.findall(section)) for section in sections(text)],
    }
    return [name for name, parts in kinds.items() if parts(chinese) != parts(english)]


@pytest.mark.parametrize(("chinese", "english"), PAIRS, ids=[name_of(path) for path, _ in PAIRS])
def test_the_document_in_chinese_equals_the_english_one(chinese: Path, english: Path):
    assert differences(chinese.read_text(), english.read_text()) == []


def test_there_are_documents_in_chinese_and_the_two_are_linked():
    assert [name_of(english) for _, english in PAIRS] == ["README.md", "docs/quick_start.md"]
    assert "](README.zh-CN.md)" in (ROOT / "README.md").read_text().partition("\n## ")[0]
    assert "](README.md)" in (ROOT / "README.zh-CN.md").read_text().partition("\n## ")[0]


@pytest.mark.parametrize(
    ("kind", "was", "becomes"),
    [
        ("headings", "\n## Results", "\n### Results"),
        ("code", "--config.run.epochs=50", "--config.run.epochs=60"),
        ("inline code", "`--print_config`", "`--print`"),
        ("rows", "99.2%", "99.3%"),
        ("rows", "cifar100_cpu_epyc_2cores.json", "cifar100_epyc_2cores.json"),
        ("rows", "| `configs/cifar10.py` | CIFAR-10 | ConvNeXt-T, 3x3 stem of stride 1 | not measured |\n", ""),
        ("links", "docs/images/report.png", "docs/images/digits.png"),
        ("figures", "2.28 times", "2.29 times"),
    ],
)
def test_what_differs_is_noticed(kind: str, was: str, becomes: str):
    text = (ROOT / "README.md").read_text()
    assert text.count(was) >= 1
    assert kind in differences(text.replace(was, becomes, 1), text)
    assert differences(text.replace("# downloads CIFAR-100 the first time", "# 首次运行时下载"), text) == []
