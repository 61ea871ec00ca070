"""The documents as a site: it builds without a warning, is whole, and loads nothing from elsewhere."""

import html.parser
import importlib.util
import os
import re
import runpy
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
from conftest import ROOT
from documents import DOCUMENTS, name_of

PACKAGES = ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers.python")


def _is_installed() -> bool:
    try:
        return all(importlib.util.find_spec(package) is not None for package in PACKAGES)
    except ModuleNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not _is_installed(), reason="the packages of the extra `docs` are not installed")


class Page(html.parser.HTMLParser):
    """What a page links to, what it loads, and where it can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.add(values["href"])
        elif "src" in values:
            self.loaded.add(values["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}


def test_each_document_has_a_page_in_the_navigation(site: Path, pages: dict[Path, Page]):
    moved = runpy.run_path(str(ROOT / "docs/theme/repository_links.py"))["PAGES"]
    navigation = pages[site / "index.html"].links
    names = [name_of(path) for path in DOCUMENTS]
    expected = {moved.get(name, name.removeprefix("docs/")).removesuffix(".md") + ".html" for name in names}
    assert expected - navigation == set()


def test_links_lead_to_pages_and_their_headings(site: Path, pages: dict[Path, Page]):
    broken = []
    for path, page in pages.items():
        for link in page.links | page.loaded:
            address = urllib.parse.urlsplit(link)
            if address.scheme:
                continue
            target = (path.parent / urllib.parse.unquote(address.path)).resolve() if address.path else path
            anchor = urllib.parse.unquote(address.fragment)
            found = target.is_file() and (not anchor or target.suffix != ".html" or anchor in pages[target].anchors)
            if not (found or link == "."):
                broken.append((path.relative_to(site).as_posix(), link))
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]):
    loaded = {address for page in pages.values() for address in page.loaded}
    assert len(loaded) > 20
    assert [address for address in loaded if urllib.parse.urlsplit(address).netloc] == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^'\")]*", styles) == []


def test_the_reference_has_the_public_names(site: Path, pages: dict[Path, Page]):
    anchors = pages[site / "api" / "index.html"].anchors
    for name in ("models.registry.create_model", "evaluate.classifier.load", "evaluate.classifier.Classifier.predict"):
        assert f"convnext_jax.{name}" in anchors
    text = (site / "api" / "ops.html").read_text()
    assert '<span class="gp">&gt;&gt;&gt; </span>' in text and ":func:" not in text


def test_a_notebook_has_a_page_with_its_pictures_and_a_copy(site: Path, pages: dict[Path, Page]):
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert len(notebooks) >= 4
    for path in notebooks:
        page = pages[site / "notebooks" / f"{path.stem}.html"]
        shown = {address for address in page.loaded if address.startswith(f"{path.stem}_")}
        assert len(shown) == path.read_text().count('"image/png"') >= 2
        assert path.name in page.links
        assert (site / "notebooks" / path.name).read_bytes() == path.read_bytes()


def test_a_link_of_the_repository_becomes_one_of_the_site():
    rewrite = runpy.run_path(str(ROOT / "docs/theme/repository_links.py"))["rewrite"]
    linked: set[str] = set()
    text = (
        "[a `name`](../configs/digits.py), [b](../README.md#results), [c](data.md), [d](../benchmarks/results/),"
        " [e](https://jax.dev), `[f](../train.py)`\n```\n[g](../train.py)\n```\n![h](../benchmarks/results/x.png)"
    )
    assert rewrite(text, "docs/models.md", "models.md", linked) == (
        "[a `name`](files/configs/digits.py.md), [b](overview.md#results), [c](data.md),"
        " [d](files/benchmarks/results/index.md), [e](https://jax.dev),"
        " `[f](../train.py)`\n```\n[g](../train.py)\n```\n![h](../benchmarks/results/x.png)"
    )
    assert linked == {"configs/digits.py", "benchmarks/results"}
    notebook = "[a notebook](../notebooks/features.ipynb)"
    assert rewrite(notebook, "docs/notebooks.md", "notebooks.md", linked) == "[a notebook](notebooks/features.md)"
    picture = "![picture](results/cifar100_ablation_epyc_2cores.png)"
    assert rewrite(picture, "benchmarks/recipes.md", "benchmarks/recipes.md", linked) == (
        "![picture](../files/benchmarks/results/cifar100_ablation_epyc_2cores.png)"
    )
