"""The confusion matrix: its order and its list against counts by hand, and its script in a real browser."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from convnext_jax.report.confusion import add_confusion, similarity_order, top_confusions
from convnext_jax.report.page import Page

RNG = np.random.default_rng(0)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def test_classes_that_are_confused_become_neighbors():
    # 0 and 5, 1 and 3, 2 and 4 are confused with each other.
    counts = np.diag(np.full(6, 90))
    for one, other in ((0, 5), (1, 3), (2, 4)):
        counts[one, other] = counts[other, one] = 10
    order = similarity_order(counts).tolist()
    assert sorted(order) == [0, 1, 2, 3, 4, 5]
    assert all(abs(order.index(one) - order.index(other)) == 1 for one, other in ((0, 5), (1, 3), (2, 4)))


def test_a_class_without_examples_and_two_classes_have_an_order_too():
    assert sorted(similarity_order(np.array([[5, 0, 0], [0, 0, 0], [1, 0, 4]]))) == [0, 1, 2]
    assert similarity_order(np.array([[1, 2], [3, 4]])).tolist() == [0, 1]


def test_the_most_frequent_confusions_come_first():
    counts = np.array([[7, 3, 0], [1, 8, 1], [0, 5, 5]])
    assert top_confusions(counts, ["a", "b", "c"]) == [
        ("c", "b", 5, 0.5),
        ("a", "b", 3, 0.3),
        ("b", "a", 1, 0.1),
        ("b", "c", 1, 0.1),
    ]


def confusion_page(classes: int, script: str = "") -> str:
    labels = np.repeat(np.arange(classes), 20)
    predicted = np.where(RNG.random(len(labels)) < 0.6, labels, RNG.integers(0, classes, len(labels)))
    page = Page("Confusion")
    counts = confusion_matrix(labels, predicted, labels=range(classes))
    add_confusion(page, counts, [f"<class> & {number}" for number in range(classes)])
    if script:
        page.add_script(script)
    return page.html()


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser here: {', '.join(BROWSERS)}")
    return found


@pytest.mark.parametrize("classes", [2, 10, 200])
def test_the_matrix_works_in_a_browser(browser: str, classes: int, tmp_path: Path):
    # A reader moves to the second cell of the first row, enlarges, and searches a class.
    script = """
    const canvas = document.getElementById("confusion-canvas"), told = document.getElementById("confusion-told");
    const key = name => canvas.dispatchEvent(new KeyboardEvent("keydown", {key: name}));
    key("ArrowRight"); key("ArrowRight");
    document.body.dataset.moved = told.textContent;
    const before = canvas.width;
    document.getElementById("confusion-in").click();
    document.body.dataset.enlarged = canvas.width > before;
    const search = document.getElementById("confusion-search");
    search.value = "& 1"; search.dispatchEvent(new Event("input"));
    document.body.dataset.found = told.textContent;
    """
    file = tmp_path / "page.html"
    file.write_text(confusion_page(classes, script))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=2000"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()]
    done = subprocess.run([browser, *options], capture_output=True, text=True, timeout=120, check=True)
    assert not re.findall(r"CONSOLE.*", done.stderr), "the page has errors"
    body = re.search(r"<body (.*)>\n<header>", done.stdout)
    assert body is not None
    told = html.unescape(body[1])
    assert re.search(r'data-moved="<class> & \d+ taken for <class> & \d+: \d+ of 20 \(', told)
    assert 'data-enlarged="true"' in told
    matching = sum(str(number).startswith("1") for number in range(classes))
    assert (f'data-found="{matching} classes found"' if matching > 1 else 'data-found="<class> & 1: ') in told
