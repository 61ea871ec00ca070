"""The command that compares runs: what it skips and refuses, and the page that follows runs while they train."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_report_comparison import evaluation, experiment, log, run, seeds

from convnext_jax.errors import UserError
from convnext_jax.tools import compare


def call(monkeypatch: pytest.MonkeyPatch, output: Path, *arguments: object) -> None:
    words = [*map(str, arguments), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["compare", *words])
    compare.main()


def test_the_table_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run(tmp_path / "runs" / "one", log(0.25, 0.5, 0.75))
    (tmp_path / "runs" / "notes.md").write_text("")
    (tmp_path / "runs" / "empty").mkdir()
    call(monkeypatch, tmp_path / "results" / "out", *sorted((tmp_path / "runs").iterdir()))
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        f"skipped: {tmp_path}/runs/{name} is no workdir of train.py: it has no config.json"
        for name in ("empty", "notes.md")
    ]
    written = {path.name for path in (tmp_path / "results" / "out").iterdir()}
    assert written == {"comparison.html", "comparison.png", "comparison.md"}
    text = (tmp_path / "results" / "out" / "comparison.md").read_text()
    assert said.out.startswith(text) and "| 75.00        |" in text


def test_folders_without_any_workdir_are_refused_without_slow_imports(tmp_path: Path):
    code = f"""
import sys
from convnext_jax.errors import UserError
from convnext_jax.tools import compare
sys.argv = ["compare", {str(tmp_path)!r}]
try:
    compare.main()
except UserError as error:
    print(error)
print("jax" in sys.modules, "matplotlib" in sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    refusal, imported = shown.splitlines()
    assert refusal == f"{tmp_path}: no workdir of train.py is among them, none has a config.json; give runs/*"
    assert imported == "False False"


def test_a_damaged_workdir_alone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run(tmp_path / "one", log(0.5))
    (tmp_path / "one" / "config.json").write_text("{")
    with pytest.raises(UserError, match="none of these folders is a workdir that can be read"):
        call(monkeypatch, tmp_path, tmp_path / "one")
    assert f"skipped: {tmp_path}/one/config.json cannot be read" in capsys.readouterr().err


def test_runs_that_have_logged_nothing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = run(tmp_path / "one", [])
    with pytest.raises(UserError, match=f"nothing is logged yet in {folder}; .* or wait for it with --watch"):
        call(monkeypatch, tmp_path, folder)


@pytest.mark.parametrize(
    ("value", "message"), [("0", "--watch 0: must be 1 to"), ("nan", "--watch nan: must"), ("soon", "invalid float")]
)
def test_a_wrong_pause_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: str,
    message: str,
):
    with pytest.raises(SystemExit, match="2"):
        call(monkeypatch, tmp_path, tmp_path, "--watch", value)
    assert message in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = run(tmp_path / "one", log(0.5))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--output .*file is a file; give a folder"):
        call(monkeypatch, tmp_path / "file", folder)


def test_the_page_follows_the_runs_until_all_seeds_have_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = seeds(tmp_path / "two", [log(0.25, 0.5, 0.75)])
    page, pages, pauses = tmp_path / "comparison.html", [], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        pages.append(page.read_text())
        match len(pauses):
            case 2:  # between the first two looks nothing has happened
                run(folder / "seed_1", log(0.25), experiment(seed=1, epochs=3), finished=False)
            case 3:
                with (folder / "seed_1" / "metrics.jsonl").open("a") as lines:
                    lines.write(json.dumps(evaluation(3, 0.625)) + "\n" + '{"step": 15, "ep')
            case 4:
                (folder / "seed_1" / "summary.json").write_text("{}")

    monkeypatch.setattr(compare.time, "sleep", sleep)
    call(monkeypatch, tmp_path, folder, "--watch")
    assert pauses == [10.0] * 4
    assert pages[0] == pages[1] and f"Nothing is logged yet in {folder}/seed_1." in pages[0]
    assert "two (unfinished)" in pages[2] and "Nothing is logged" not in pages[2]
    assert "68.75 ± 8.84" in pages[3]
    assert ['http-equiv="refresh"' in each for each in (*pages, page.read_text())] == [True] * 4 + [False]
    assert "unfinished" not in page.read_text() and "68.75 ± 8.84" in page.read_text()


def test_ctrl_c_ends_the_watch_and_leaves_a_page_that_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = run(tmp_path / "one", log(0.25), finished=False)

    def sleep(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compare.time, "sleep", sleep)
    call(monkeypatch, tmp_path, folder, "--watch", 2)
    assert "http-equiv" not in (tmp_path / "comparison.html").read_text()
    said = capsys.readouterr()
    assert said.err.splitlines() == [f"open {tmp_path}/comparison.html; Ctrl-C ends this", ""]
    assert "one (unfinished)" in said.out
