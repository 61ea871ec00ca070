"""metrics.jsonl over several starts, and what is printed without a terminal."""

import json
import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

from convnext_jax.config import Experiment
from convnext_jax.run.output import Output, Progress
from convnext_jax.workdir.dataset_record import DatasetRecord
from convnext_jax.workdir.metrics_log import MetricsWriter, read_metrics


def log(workdir: Path, first_step: int, steps: list[int]) -> None:
    writer = MetricsWriter(workdir, first_step)
    for step in steps:
        writer.write(step, step / 10, {"train/loss": float(step)})
    writer.close()


def test_lines_after_the_checkpoint_are_taken_back(tmp_path: Path):
    log(tmp_path, 0, [5, 10, 15, 20])
    log(tmp_path, 10, [15, 20, 25])
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [5, 10, 15, 20, 25]
    assert [line["epoch"] for line in lines] == [0.5, 1.0, 1.5, 2.0, 2.5]
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds), "the second start counts on from the first"


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path):
    log(tmp_path, 0, [5, 10])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-9])
    assert [line["step"] for line in read_metrics(path)] == [5]
    log(tmp_path, 5, [10])
    assert [line["step"] for line in read_metrics(path)] == [5, 10]


def test_half_a_line_that_a_full_disk_left_is_replaced(tmp_path: Path):
    writer = MetricsWriter(tmp_path, 0)
    writer.write(5, 0.5, {"train/loss": 1.0})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 10, ' + 500 * b" ")
    writer.write(10, 1.0, {"train/loss": 2.0})
    assert writer.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [5, 10]


@pytest.mark.parametrize(
    "damaged", ["", "{", "[1]", '{"step": "1", "epoch": 0, "seconds": 0}', '{"step": 1}', "\0\0\0"]
)
def test_a_damaged_line_is_left_out(tmp_path: Path, damaged: str):
    log(tmp_path, 0, [5, 10])
    path = tmp_path / "metrics.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{damaged}\n{second}\n")
    assert [line["step"] for line in read_metrics(path)] == [5, 10]
    log(tmp_path, 10, [15])
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [5, 10, 15]


def test_tensorboard_gets_the_figures_too(tmp_path: Path):
    log(tmp_path, 0, [5])
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()


@pytest.mark.parametrize("first_step", [0, 5])
def test_tensorboard_drops_what_a_start_takes_back(tmp_path: Path, first_step: int):
    for start in (0, first_step):
        log(tmp_path, start, [5, 10])
    before, after = map(starts, sorted((tmp_path / "tensorboard").iterdir()))
    assert before == [] and after == [first_step + 1]


def starts(path: Path) -> list[int]:
    """The steps from which on an event file says that earlier ones are void."""
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack_from("<Q", content)
        event = Event.FromString(content[12 : 12 + length])
        content = content[12 + length + 4 :]
        if event.session_log.status == SessionLog.START:
            found.append(event.step)
    return found


def test_a_validation_is_called_one(capsys: pytest.CaptureFixture[str]):
    progress = Progress(total_steps=30, first_step=0, steps_per_epoch=10)
    progress.update(5, {"validation/top1": 0.5, "validation/top5": 0.75})
    assert capsys.readouterr().err.startswith("epoch 0/3, validation 50.00%, validation top-5 75.00%, ")


def test_without_a_terminal_there_is_a_line_for_each_epoch(capsys: pytest.CaptureFixture[str]):
    progress = Progress(total_steps=30, first_step=0, steps_per_epoch=10)
    for step in (5, 10, 15, 20):
        progress.update(step, {"train/loss": 2.5, "train/top1": 0.5, "train/images_per_second": 123.4})
        if step == 10:
            progress.update(step, {"test/top1": 0.1234, "test/loss": 2.0})
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(", ")[0] for line in lines] == [
        "epoch 1/3, loss 2.500, train 50.0%, 123 images/s",
        "epoch 1/3, test 12.34%",
        "epoch 2/3, loss 2.500, train 50.0%, 123 images/s",
    ]
    assert all(line.endswith(" left") for line in lines)


def test_only_the_lead_process_writes_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for lead in (False, True):
        output = Output(tmp_path / str(lead), lead=lead)
        output.claim(Experiment())
        output.say("hello")
        output.record(DatasetRecord("x", ("a", "b"), (0.5,), (0.25,)))
        output.begin(0)
        output.open_log(0, 10, 5, Experiment())
        output.figures(5, {"train/loss": 1.0})
        output.close_log(completed=True)
    assert [path.name for path in tmp_path.iterdir()] == ["True"]
    assert {path.name for path in (tmp_path / "True").iterdir()} >= {"config.json", "dataset.json", "metrics.jsonl"}
    assert capsys.readouterr().err.count("hello") == 1
