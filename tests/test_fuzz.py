"""Whatever comes from outside is used or refused in a line that names it: configurations, command lines, files.

The short form runs in the suite. The long one takes two minutes:

    CONVNEXT_JAX_FUZZ=10000 python -m pytest -n 0 tests/test_fuzz.py

The number is how many configurations and command lines there are. With every thousand go 120 damaged files.
"""

import contextlib
import dataclasses
import gzip
import io
import json
import os
import re
import resource
import signal
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import ROOT
from damage import VALUES, damaged, damaged_json
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from photographs import photographs
from PIL import Image
from safetensors.numpy import save

from convnext_jax.config import CHOICES, SECTIONS, Experiment, parse_experiment
from convnext_jax.data.archive_bounds import Bounds
from convnext_jax.data.archives import members
from convnext_jax.data.decode import Picture, decode_picture
from convnext_jax.data.prepared import read_info
from convnext_jax.data.prepared_features import read_features
from convnext_jax.errors import UserError
from convnext_jax.models import create_model, load_model, split_model
from convnext_jax.models.registry import named_architecture
from convnext_jax.models.weights import ModelFolder
from convnext_jax.storage.arrays import read_arrays
from convnext_jax.tools.command_line import load_experiment
from convnext_jax.workdir.claim import read_experiment
from convnext_jax.workdir.dataset_record import DatasetRecord, SplitRecord
from convnext_jax.workdir.metrics_log import read_metrics

LONG = int(os.environ.get("CONVNEXT_JAX_FUZZ", "240"))
SECONDS = 20  # an example that takes longer hangs
MOST_MEMORY = 1 << 30  # bytes that a test may add to those of the process


def fuzz(count: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )


class Hang(BaseException):
    """Nothing in the package catches this."""


def _hang(*_: object) -> None:
    raise Hang(f"{SECONDS} seconds")


@pytest.fixture(autouse=True, scope="module")
def _memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_MEMORY


def attempt(read: Callable[[], Any], *named: str) -> Any:
    """Returns what is read, or None if a message with one of the names refuses it. Nothing else may happen."""
    printed = io.StringIO()
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            return read()
    except UserError as error:
        assert any(name in str(error) for name in named), f"{error} names none of {named}"
        return None
    finally:
        signal.alarm(0)
        assert "Traceback" not in printed.getvalue()


# --- configurations

FIELDS = [(section, field.name) for section, cls in SECTIONS.items() for field in dataclasses.fields(cls)]
OWN = ["depths", "dims", "stem", "kernel_size", "width", "block", "heads", "patch_size", "layer_scale", "norm"]
FIELDS += [("model", name) for name in OWN]
CHOSEN = [name for names in CHOICES.values() for name in names]
# Half of the values are right for some field.
LIKELY = st.one_of(VALUES, st.sampled_from([*CHOSEN, 1, 2, 3, 8, 0.5, 0.25, 1e-3, True, False, (1, 2), (1, 1, 2, 1)]))
NAMES = st.one_of(st.sampled_from([name for _, name in FIELDS]), st.text(max_size=8))
MODELS = st.sampled_from(["convnext_atto", "resnet18", "vit_tiny_patch4", "convnext_multiscale", "convnext_ato"])
SECTION = st.one_of(st.dictionaries(NAMES, VALUES, max_size=3), VALUES)


@st.composite
def configurations(draw: st.DrawFn) -> dict[Any, Any]:
    """Sections with fields that are right, wrong, or of another section; or no sections at all."""
    config: dict[Any, Any] = {}
    for section, name in draw(st.lists(st.sampled_from(FIELDS), max_size=4)):
        config.setdefault(section, {})[name] = draw(MODELS if (section, name) == ("model", "name") else LIKELY)
    if draw(st.integers(0, 4)) == 0:
        config[draw(st.one_of(st.sampled_from([*SECTIONS]), st.text(max_size=8)))] = draw(SECTION)
    return config


@fuzz(LONG // 2)
@given(configurations())
def test_a_configuration_is_an_experiment_or_refused_by_name(config: dict[Any, Any]) -> None:
    names = [str(name) for fields in config.values() if isinstance(fields, dict) for name in fields]
    experiment = attempt(lambda: parse_experiment(config), "config.", *names)
    assert experiment is None or isinstance(experiment, Experiment)
    if experiment is not None:
        kept = json.loads(json.dumps(experiment.to_dict()))
        assert parse_experiment(kept) == experiment


# --- command lines

PATHS = ["configs/digits.py"] * 6 + ["configs/digits.py:x", "configs/papers/openmixup.py:deit", "configs", "absent.py"]
WORDS = st.one_of(LIKELY.map(str), st.text(max_size=12), st.sampled_from(["1", "0.5", "true", "(1,2)", "(", "1e999"]))


@st.composite
def flags(draw: st.DrawFn) -> list[str]:
    """One argument or two."""
    section, name = draw(st.sampled_from(FIELDS))
    word = draw(MODELS if (section, name) == ("model", "name") else WORDS)
    forms = [[f"--config.{section}.{name}={word}"]] * 6 + [
        [f"--config.{section}.{name}", word],
        [f"--noconfig.{section}.{name}"],
        [f"--config.{section}={word}"],
        [f"--config={word}"],
        [f"--config.{name}.{section}={word}"],
        [f"--{word}"],
        [f"-{word}", word],
        [word],
    ]
    return draw(st.sampled_from(forms))


@fuzz(LONG // 2)
@given(st.sampled_from(PATHS), st.lists(flags(), max_size=4))
def test_a_command_line_is_an_experiment_or_refused_by_name(path: str, groups: list[list[str]]) -> None:
    arguments = [argument for group in groups for argument in group]
    experiment = attempt(lambda: load_experiment(str(ROOT / path), arguments), "config", "flag", "argument", *arguments)
    assert experiment is None or isinstance(experiment, Experiment)


# --- damaged files


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


FILES = max(50, LONG // 100)  # of each of a dozen kinds of files
RECORD = DatasetRecord("digits", ("0", "1"), (0.5, 0.5), (0.2, 0.2), {"train": SplitRecord(2, (8, 8, 3), "0" * 64)})
LINE = {"step": 1, "epoch": 0.5, "seconds": 1.5, "test/top1": 0.5}
LINES = json.dumps(LINE).encode() + b"\n" + json.dumps(LINE | {"step": 2}).encode() + b"\n"


@fuzz(FILES)
@given(damaged_json({"format": 2, **Experiment().to_dict()}))
@example(b"[" * 100_000)
def test_config_json(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    assert isinstance(attempt(lambda: read_experiment(folder), "config.json"), Experiment | None)


@fuzz(FILES)
@given(damaged_json(dataclasses.asdict(RECORD)))
@example(b'{"a":' * 100_000)
def test_dataset_json(folder: Path, content: bytes) -> None:
    (folder / "dataset.json").write_bytes(content)
    record = attempt(lambda: DatasetRecord.read(folder), "dataset.json")
    if record is not None:
        record.differences(RECORD)
        assert np.isfinite([*record.mean, *record.std]).all() and len(record.mean) == len(record.std)


@fuzz(FILES)
@given(damaged(LINES) | st.lists(damaged_json(LINE), max_size=3).map(b"\n".join))
@example(b"[" * 100_000 + b"\n")
def test_metrics_jsonl(folder: Path, content: bytes) -> None:
    (folder / "metrics.jsonl").write_bytes(content)
    lines = attempt(lambda: read_metrics(folder / "metrics.jsonl"), "metrics.jsonl")
    assert all(type(value) in (int, float) for line in lines for value in line.values())
    assert all(np.isfinite([line["step"], line["epoch"], line["seconds"]]).all() for line in lines)


ARRAYS = {"a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "a/bias": np.zeros(3, np.int64)}


@fuzz(FILES)
@given(damaged(save(ARRAYS)))
def test_safetensors(folder: Path, content: bytes) -> None:
    (folder / "a.safetensors").write_bytes(content)
    arrays = attempt(lambda: read_arrays(folder / "a.safetensors"), "a.safetensors")
    assert sum(array.nbytes for array in (arrays or {}).values()) <= len(content)


@pytest.fixture(scope="module")
def weights(folder: Path) -> Path:
    small: Mapping[str, Any] = {"depths": (1,), "block": "basic", "width": 2, "stem": "conv3x3_s1"}
    _, *trees = split_model(create_model("resnet18", num_classes=2, **small))
    params, batch_stats = jax.tree.map(np.asarray, trees)
    architecture = dataclasses.asdict(named_architecture("resnet18", small))
    made = ModelFolder(params, batch_stats, "resnet18", architecture, ("a", "b"), (0.5,) * 3, (0.2,) * 3, "a test")
    made.write(folder / "weights")
    (folder / "weights" / "checksums.json").unlink()
    return folder / "weights"


@fuzz(FILES)
@given(st.data())
def test_a_folder_of_weights(weights: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["model.json", "weights.safetensors"]))
    whole = (weights / name).read_bytes()
    content = data.draw(damaged_json(json.loads(whole)) if name == "model.json" else damaged(whole))
    try:
        (weights / name).write_bytes(content)
        attempt(lambda: load_model(weights), str(weights), "do not fit this model", "unknown model", "=")
    finally:
        (weights / name).write_bytes(whole)


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photographs(24, 20)[0]).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "tiff"])
def test_pictures(kind: str) -> None:
    whole = encoded(kind)

    @fuzz(FILES)
    @given(damaged(whole))
    @example(whole[:11] + b"\x05" + whole[12:])  # of a PNG, the length of the first chunk: ValueError
    @example(whole[:37] + b"\x0e\xdf{w" + whole[41:])  # the type of the second: SyntaxError
    def check(content: bytes) -> None:
        image = attempt(lambda: decode_picture(Picture("a.jpg", content, 0), 16), "a.jpg")
        assert image is None or image.shape == (16, 16, 3)

    check()


def zipped(method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in ("a/b.txt", "a/c.txt", "d.bin"):
            archive.writestr(name, name.encode() * 50)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a/b.txt", "a/" + "c" * 120, "d.bin"):
            member = tarfile.TarInfo(name)
            member.size = 500
            archive.addfile(member, io.BytesIO(b"x" * 500))
    return buffer.getvalue()[:6144]


ARCHIVES = {
    "stored.zip": (zipped(zipfile.ZIP_STORED), "zip"),
    "deflated.zip": (zipped(zipfile.ZIP_DEFLATED), "zip"),
    "plain.tar": (tarred(), "tar"),
    "a.tar.gz": (gzip.compress(tarred()), "tar"),
    "a.gz": (gzip.compress(b"x" * 500), "single"),
}


@fuzz(FILES * 3)
@given(st.sampled_from([*ARCHIVES]), st.data())
def test_archives(folder: Path, name: str, data: st.DataObject) -> None:
    whole, kind = ARCHIVES[name]
    path = folder / name
    path.write_bytes(data.draw(damaged(whole)))

    def unpack() -> int:
        total = 0
        for member, file in members(path, kind, Bounds(4000, 2000, 10)):  # pyright: ignore[reportArgumentType]
            assert not re.match(r"/|.*\.\.(/|$)", member)
            total += len(file.read())
        return total

    assert (attempt(unpack, name) or 0) <= 4000


PREPARED = {"name": "x", "fileFormat": "array_record", "splits": [{"name": "train", "shardLengths": ["3"]}]}
FEATURES = {
    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "featuresDict": {
        "features": {
            "image": {"image": {"shape": {"dimensions": ["8", "8", "3"]}}},
            "label": {"classLabel": {"numClasses": "10"}},
        }
    },
}


@fuzz(FILES)
@given(damaged_json(PREPARED), damaged_json(FEATURES))
@example(b"{}", b'{"featuresDict": {"features": {"image": 3, "label": {"classLabel": {"numClasses": 1e999}}}}}')
def test_the_description_of_prepared_data(folder: Path, info: bytes, features: bytes) -> None:
    (folder / "x-train.array_record-00000-of-00001").touch()
    (folder / "dataset_info.json").write_bytes(info)
    (folder / "features.json").write_bytes(features)
    attempt(lambda: read_info(folder), str(folder))
    attempt(lambda: read_features(folder), str(folder))
