"""The Python of the documents runs, page by page, beside small runs, weights and pictures of the names it uses."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from documents import DOCUMENTS, blocks, name_of
from networks import TINY
from PIL import Image
from tiny_masks import MASK_NAMES, masks_dataset, masks_experiment
from tiny_run import write_run

from convnext_jax.evaluate.opened_classifier import open_classifier
from convnext_jax.export.folder import write_export
from convnext_jax.models import MODELS, Architecture, abstract_model, create_model, split_model
from convnext_jax.models.weights import ModelFolder
from convnext_jax.workdir.checkpoints import Checkpoints
from convnext_jax.workdir.claim import write_claim
from convnext_jax.workdir.dataset_record import DatasetRecord

# The first has rows of tables, which test_docs.py compares. Those in Chinese have the code of the English ones.
LEFT_OUT = ("docs/adding_a_family.md", "README.zh-CN.md", "docs/quick_start.zh-CN.md")
PAGES = [
    path
    for path in DOCUMENTS
    if name_of(path) not in LEFT_OUT and any(language == "python" for language, _ in blocks(path.read_text()))
]


def weights(folder: Path, name: str, architecture: Architecture, num_classes: int) -> None:
    """Makes a folder of weights, all of them 0."""
    shapes = abstract_model(lambda: create_model(architecture, num_classes=num_classes)).params
    params = jax.tree.map(lambda shape: np.zeros(shape.shape, np.float32), shapes)
    classes = tuple(map(str, range(num_classes)))
    fields = dataclasses.asdict(architecture)
    ModelFolder(params, {}, name, fields, classes, (0.5,) * 3, (0.25,) * 3, "a test").write(folder)


def write_masks_run(workdir: Path) -> None:
    """Makes a run that predicts masks, without training it."""
    experiment = masks_experiment()
    write_claim(workdir, experiment)
    DatasetRecord.of(masks_dataset()).write(workdir)
    task = experiment.task
    model = create_model(
        TINY, task=task.name, num_classes=len(MASK_NAMES), head=task.head, head_channels=task.head_channels
    )
    _, params, batch_stats = split_model(model)
    with Checkpoints(workdir / "checkpoints", keep_latest=1) as checkpoints:
        checkpoints.save(4, {"params": params, "batch_stats": batch_stats}, {"test/mean_iou": 0.1})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the documents' paths lead to something."""
    folder = tmp_path_factory.mktemp("documents")
    for name in ("c100", "digits"):
        write_run(folder / "runs" / name)
    write_masks_run(folder / "runs" / "scenes")
    weights(folder / "runs" / "c100" / "soup_last_2", "convnext_atto", TINY, 4)
    weights(folder / "weights" / "tiny", "convnext_tiny", MODELS["convnext_tiny"], 100)
    write_export(open_classifier(folder / "runs" / "c100"), "stablehlo", folder / "exported" / "stablehlo")
    (folder / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for name in ("cat.jpg", "seven.png", "photos/cat.jpg", "photos/dog.png"):
        Image.fromarray(noise).save(folder / name)
    return folder


def run(text: str, folder: Path, side: int = 16) -> dict[str, Any]:
    """Runs the Python of a document, all of it in one namespace, and returns that."""
    namespace: dict[str, Any] = {"images": np.zeros((1, side, side, 3), np.float32), "jax": jax}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for content in (content for language, content in blocks(text) if language == "python"):
            exec(compile(content, "document", "exec"), namespace)
    finally:
        os.chdir(before)
    return namespace


@pytest.mark.parametrize("document", PAGES, ids=name_of)
def test_the_python_of_a_document_runs(document: Path, folder: Path):
    namespace = run(document.read_text(), folder, side=32 if document.stem == "segmentation" else 16)
    shapes = {name: value.shape for name, value in namespace.items() if hasattr(value, "shape")}
    expected = {
        "README.md": {"logits": (1, 100), "probabilities": (1, 4)},
        "docs/models.md": {"logits": (1, 100)},
        "docs/segmentation.md": {"logits": (1, 32, 32, 21)},
        "docs/prediction.md": {"probabilities": (2, 4), "maps": (1, 1, 2, 2), "masks": (2, 16, 16), "large": (40, 60)},
        "docs/weights.md": {"logits": (1, 4)},
        "docs/export.md": {"logits": (5, 4)},
    }
    assert expected.get(name_of(document), {}).items() <= shapes.items()


def test_python_is_found():
    assert len(PAGES) >= 7


def test_what_is_wrong_is_noticed(folder: Path):
    with pytest.raises(NameError, match="later"):
        run("```python\nlater\n```\n\n```python\nlater = 1\n```\n", folder)
    assert run("```python\nfirst = 1\n```\n\n```python\nsecond = first + 1\n```\n", folder)["second"] == 2
