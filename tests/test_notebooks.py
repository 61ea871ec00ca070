"""The notebooks run offline with a small budget, without a warning, and their outputs are of the code beside them."""

import ast
import base64
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

SCRIPT = ROOT / "notebooks" / "execute.py"
EXECUTE = runpy.run_path(str(SCRIPT))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NO_WARMUP = "--config.optim.warmup_epochs=0"
TINY = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}
SIZE = " ".join(f"--config.model.{name}={','.join(map(str, value))}" for name, value in TINY.items())
# What is set in the cell of parameters.
BUDGETS: dict[str, dict[str, Any]] = {
    "features": {"epochs": 1, "draws": 2, "options": f"{NO_WARMUP} {SIZE}"},
    # The weights are those of a named network, which has its size.
    "fine_tune": {
        "pretraining_epochs": 1,
        "epochs": 1,
        "seeds": 2,
        "letters": "AB",
        "batch_size": 8,
        "options": NO_WARMUP,
    },
    "train_digits": {"epochs": 1, "options": f"{NO_WARMUP} {SIZE}"},
    "why_the_stem_decides": {"epochs": 1, "seeds": 2, "options": NO_WARMUP, **TINY, "dims": (4, 4, 8, 8)},
}


def run(notebook: Path, output: Path, **parameters: Any) -> subprocess.CompletedProcess[str]:
    """Runs a notebook in a process of its own, with nothing of the user's and nothing to download from."""
    folder = output.parent
    (folder / "temporary").mkdir(exist_ok=True)
    environment = os.environ | {
        "TMPDIR": str(folder / "temporary"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "OMP_NUM_THREADS": "1",  # scikit-learn's threads wait for each other on a busy machine
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    settings = [word for name, value in parameters.items() for word in ("--set", f"{name}={value!r}")]
    command = [sys.executable, str(SCRIPT), str(notebook), "--output", str(output), *settings]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, Future]]]:
    """What each notebook wrote, and its process. Two run at a time."""
    with ThreadPoolExecutor(2) as pool:
        outputs = {path.stem: tmp_path_factory.mktemp(path.stem) / path.name for path in NOTEBOOKS}
        longest_first = sorted(NOTEBOOKS, key=lambda path: path.stem != "fine_tune")
        started = {
            path.stem: pool.submit(run, path, outputs[path.stem], **BUDGETS[path.stem]) for path in longest_first
        }
        yield {name: (outputs[name], started[name]) for name in started}


@pytest.mark.parametrize("name", sorted(BUDGETS))
def test_a_notebook_runs(name: str, runs: dict[str, tuple[Path, Future]]):
    output, process = runs[name]
    done = process.result()
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    ours, theirs = (EXECUTE["code_cells"](EXECUTE["read"](path)) for path in (output, ROOT / "notebooks" / output.name))
    kinds = [[[each["output_type"] for each in cell["outputs"]] for cell in cells] for cells in (ours, theirs)]
    assert kinds[0] == kinds[1], "the outputs are of the same kinds as those that are kept"
    assert list((output.parent / "temporary").iterdir()) == [], "the last cell removes the temporary folder"


def test_each_notebook_has_a_budget():
    assert sorted(BUDGETS) == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import warnings\nwarnings.warn('old')", "UserWarning: old"),
        ("1 / 0", "ZeroDivisionError"),
        (
            "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'assert 0'], check=True)",
            "CalledProcessError",
        ),
    ],
)
def test_what_fails_or_warns_is_noticed(code: str, message: str, tmp_path: Path):
    cell = {"cell_type": "code", "id": "a", "metadata": {"tags": ["parameters"]}, "outputs": [], "source": [code]}
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [cell]}))
    done = run(tmp_path / "a.ipynb", tmp_path / "b.ipynb")
    assert done.returncode != 0 and message in done.stderr
    assert not (tmp_path / "b.ipynb").exists()


def test_a_parameter_that_does_not_exist_is_noticed():
    with pytest.raises(ValueError, match="there are no parameters epoch$"):
        EXECUTE["execute"](EXECUTE["read"](ROOT / "notebooks" / "features.ipynb"), {"epoch": 1})


# --- what is kept


def stale(notebook: dict[str, Any]) -> list[str]:
    """What shows that the outputs are of other code, or of cells that ran in another order."""
    cells = EXECUTE["code_cells"](notebook)
    counts = [cell["execution_count"] for cell in cells]
    counts_of_values = [
        (cell["execution_count"], output["execution_count"])
        for cell in cells
        for output in cell["outputs"]
        if output["output_type"] == "execute_result"
    ]
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    names = {output["name"] for cell in cells for output in cell["outputs"] if output["output_type"] == "stream"}
    found = {
        "the code": notebook["metadata"].get("executed") != EXECUTE["digest"](notebook),
        "the order": counts != list(range(1, len(cells) + 1)) or any(one != two for one, two in counts_of_values),
        "an error": not kinds <= {"stream", "display_data", "execute_result"} or not names <= {"stdout"},
        "no outputs": not kinds,
    }
    return [name for name, wrong in found.items() if wrong]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_outputs_are_those_of_the_code(path: Path):
    assert stale(EXECUTE["read"](path)) == [], "python notebooks/execute.py"


def test_stale_outputs_are_noticed():
    def changed(change: Any) -> list[str]:
        notebook = EXECUTE["read"](ROOT / "notebooks" / "train_digits.ipynb")
        change(EXECUTE["code_cells"](notebook))
        return stale(notebook)

    error = {"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}
    assert changed(lambda cells: None) == []
    assert changed(lambda cells: cells[2]["source"].append("\nepochs = 31")) == ["the code"]
    assert changed(lambda cells: cells[0].update(execution_count=7)) == ["the order"]
    assert changed(lambda cells: cells[0]["outputs"].append(error)) == ["an error"]
    assert changed(lambda cells: [cell.update(outputs=[], execution_count=None) for cell in cells]) == [
        "the order",
        "no outputs",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_of_the_format_and_small(path: Path):
    notebook = EXECUTE["read"](path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", each) for each in ids)
    keys = {
        "markdown": {"cell_type", "id", "metadata", "source"},
        "code": {"cell_type", "id", "metadata", "source", "outputs", "execution_count"},
    }
    assert all(cell.keys() == keys[cell["cell_type"]] for cell in notebook["cells"])
    assert path.stat().st_size < 200_000
    texts = json.dumps([cell for cell in notebook["cells"] if cell["cell_type"] == "code"])
    assert not re.search(r"/(tmp|home|root|work)/", texts), "a path of the machine"
    for cell in EXECUTE["code_cells"](notebook):
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                assert base64.b64decode(output["data"]["image/png"]).startswith(b"\x89PNG")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_reads_well(path: Path):
    cells = EXECUTE["read"](path)["cells"]
    assert re.match(r"# [A-Z][^\n]+\n\n[^\n]*\b[Yy]ou [^\n]+\n\n[^\n]*\bminutes?\b", EXECUTE["source"](cells[0]))
    code = [EXECUTE["source"](cell) for cell in cells if cell["cell_type"] == "code"]
    assert max(len(text.splitlines()) for text in code) <= 16
    assert sum(len(text.splitlines()) > 12 for text in code) <= 1  # the set-up
    kinds = [cell["cell_type"] for cell in cells]
    assert "code code code code" not in " ".join(kinds), "text between the cells"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_to_files_and_headings(path: Path):
    texts = [EXECUTE["source"](cell) for cell in EXECUTE["read"](path)["cells"] if cell["cell_type"] == "markdown"]
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#([^)\s]+))?\)", "\n".join(texts))
    assert links
    for target, anchor in links:
        file = path.parent / target
        assert file.is_file(), target
        headings = [re.sub(r"[^\w\- ]", "", each.lower()) for each in re.findall(r"^#+ (.+)$", file.read_text(), re.M)]
        assert not anchor or anchor in [heading.replace(" ", "-") for heading in headings], (target, anchor)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_what_is_public_and_required(path: Path):
    required = (ROOT / "requirements.txt").read_text().lower()
    modules = {"PIL": "pillow", "sklearn": "scikit-learn"}
    for text in map(EXECUTE["source"], EXECUTE["code_cells"](EXECUTE["read"](path))):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_"), node.attr
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                module = node.module or "" if isinstance(node, ast.ImportFrom) else names[0]
                assert not any(part.startswith("_") for part in [*module.split("."), *names]), module
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "convnext_jax":
                    assert re.search(rf"^{modules.get(top, top)}\b", required, re.MULTILINE), top
