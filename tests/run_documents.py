"""Runs the shell blocks of the documents in a scratch folder, word for word but shorter: a check before a release.

    python tests/run_documents.py --folder /tmp/documents                     # everything, which takes long
    python tests/run_documents.py --folder /tmp/documents docs/training.md

A training there takes one epoch of 64 small made-up pictures, since ``python`` is a wrapper that shortens the schedule.
Lines for the network, other machines and other packages are left out, each with its reason. What the documents take
for granted, such as ``photos/`` and ``runs/c100``, is made first. Not a test: it takes too long for the suite.
"""

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
from conftest import ROOT
from documents import DOCUMENTS, blocks, name_of
from PIL import Image

# Lines that are not run, and why.
LEFT_OUT = {
    r"\bpip install|python3? -m venv|python3\.11 -m venv|venv/bin/activate": "installs packages",
    r"gcloud|gs://|BUCKET|srun|--coordinator|apt-get|git clone|tmux|REPOSITORY|jax\.devices": "needs other machines",
    r"tools\.prepare|CIFAR-10-C|imagenet_resized|imagenet2012": "needs data from elsewhere",
    r"benchmarks/(compare|layers)\.py|mkdocs|ruff|pyright|pre-commit|hatchling|docker|uv ": "needs other packages",
    r"jupyter": "opens a browser",
    r"pytest": "is the suite itself",
    r"sweeps/survey": "compiles 29 networks",
    r"v5e": "compiles for minutes, needs libtpu; recorded in docs/scaling.md",
}
SHORT = {"epochs": "1", "batch_size": "16", "eval_batch_size": "16"}
PREPARED = (("cifar10", "3.0.2", 32, 10), ("cifar100", "3.0.2", 32, 100), ("tiny_imagenet", "1.0.0", 64, 200))
PICTURES = 64
# Runs that the pages take for granted, and weights.
GRANTED = """
python train.py --config configs/cifar100.py --workdir runs/c100
python train.py --config configs/cifar100.py --config.data.validation_fraction=0.25 --workdir runs/cifar100-1a2b3c4d
python train.py --config configs/digits.py --workdir runs/W
for name in a b; do cp -r runs/c100 runs/$name; done
for seed in 0 1 2; do cp -r runs/c100 runs/seed_$seed; done
ln -s runs/W W
python train.py --config configs/digit_scenes.py --workdir runs/scenes
python train.py --config configs/cifar100.py --config.model.stem=patch4 --workdir runs/published
python -m convnext_jax.tools.export --workdir runs/published --format timm --output granted
cp granted/model.safetensors convnext_tiny.safetensors
python -m convnext_jax.tools.import_torch convnext_tiny.safetensors --model convnext_tiny --output weights/tiny
"""


def main() -> None:
    """The command."""
    if sys.argv[1:2] == ["--as-python"]:
        as_python(sys.argv[2:])
    parser = argparse.ArgumentParser(description="Runs the shell blocks of the documents in a scratch folder.")
    parser.add_argument("--folder", type=Path, required=True, help="the scratch folder, which is made")
    parser.add_argument("documents", nargs="*", help="such as docs/training.md; all if none is named")
    arguments = parser.parse_args()
    make_scratch(arguments.folder)
    chosen = [path for path in DOCUMENTS if not arguments.documents or name_of(path) in arguments.documents]
    failed = [] if run("granted", GRANTED, arguments.folder) else ["what is taken for granted"]
    for document in chosen:
        if name_of(document) == "docs/weights.md":  # it makes them itself
            shutil.rmtree(arguments.folder / "project" / "weights", ignore_errors=True)
        for number, (language, block) in enumerate(blocks(document.read_text())):
            script, left_out = without_lines(block) if language == "sh" else ("", [])
            for line, reason in left_out:
                print(f"-- {name_of(document)}: {line.strip()[:100]}: {reason}")
            if script.strip() and not run(f"{name_of(document)} {number}", script, arguments.folder):
                failed.append(f"{name_of(document)} {number}")
    print(f"failed: {', '.join(failed)}" if failed else "every block ran")
    sys.exit(bool(failed))


def without_lines(block: str) -> tuple[str, list[tuple[str, str]]]:
    """Returns a script without the lines that cannot be run here, and those lines with the reason."""
    joined = re.sub(r"\\\n\s*", " ", block)
    kept, left_out = [], []
    for line in joined.splitlines():
        reason = next((why for pattern, why in LEFT_OUT.items() if re.search(pattern, line)), None)
        if reason is None or line.startswith("#"):
            kept.append(line)
            continue
        left_out.append((line, reason))
        # A loop keeps its shape; what follows && on the same line is not tried.
        kept.append("until true; do" if line.startswith("until ") else ":")
    return "\n".join(kept), left_out


def run(label: str, script: str, folder: Path) -> bool:
    """Runs a block, prints how long it took or why it failed, and returns whether it succeeded."""
    environment = os.environ | {
        "PATH": f"{folder / 'wrapper'}:{os.environ['PATH']}",
        "TFDS_DATA_DIR": str(folder / "data"),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
    }
    started = time.monotonic()
    found = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder / "project",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    if found.returncode == 0:
        print(f"ok {label} ({seconds:.0f} s)", flush=True)
        return True
    shown = "\n    ".join([*script.strip().splitlines(), *(found.stdout + found.stderr).strip().splitlines()[-6:]])
    print(f"FAILED {label}, exit status {found.returncode} ({seconds:.0f} s)\n    {shown}", flush=True)
    return False


def make_scratch(folder: Path) -> None:
    """Makes the folder with a copy of the project, the wrapper for ``python``, data sets and pictures."""
    folder.mkdir(parents=True)
    project = folder / "project"
    tracked = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(tracked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        target = project / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    for place in (folder / "wrapper", project / ".venv" / "bin"):
        place.mkdir(parents=True)
        wrapper = place / "python"
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" --as-python "$@"\n')
        wrapper.chmod(0o755)
    for name, version, size, classes in PREPARED:
        prepare(folder / "data", name, version, size, classes)
    random = np.random.default_rng(0)
    for name in ("photos/train/cats", "photos/train/dogs", "photos/val/cats", "photos/val/dogs", "new_photos"):
        (project / name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(random.integers(0, 256, (80, 64, 3), np.uint8)).save(project / name / f"{number}.png")
    shutil.copy2(project / "new_photos" / "0.png", project / "cat.jpg")
    (project / "tiny-imagenet-200-part.zip").touch()
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (project / "scenes" / split / kind).mkdir(parents=True)
            for number in range(16):
                shape, most = ((96, 96, 3), 256) if kind == "images" else ((96, 96), 3)
                picture = Image.fromarray(random.integers(0, most, shape, np.uint8))
                picture.save(project / "scenes" / split / kind / f"{number}.png")


def prepare(folder: Path, name: str, version: str, size: int, classes: int) -> None:
    """Writes a data set of noise as TFDS does."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    class Noise(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)

        def _info(self) -> tfds.core.DatasetInfo:
            features = {
                "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(num_classes=classes),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager: object) -> dict[str, Iterator[tuple[int, dict[str, object]]]]:
            del dl_manager
            test = "validation" if name == "tiny_imagenet" else "test"
            return {"train": self._generate_examples(0), test: self._generate_examples(1)}

        def _generate_examples(self, seed: int) -> Iterator[tuple[int, dict[str, object]]]:
            random = np.random.default_rng(seed)
            for number in range(PICTURES):
                encoded = io.BytesIO()  # from an array TFDS would need TensorFlow
                Image.fromarray(random.integers(0, 256, (size, size, 3), np.uint8)).save(encoded, "PNG")
                encoded.seek(0)
                yield number, {"image": encoded, "label": number % min(classes, 8)}

    Noise.name = name
    Noise(data_dir=folder, file_format="array_record").download_and_prepare()


def as_python(words: list[str]) -> NoReturn:
    """Goes on as Python with the same command, with a schedule of one epoch if it trains."""
    words = ["3" if word == "1234" else word for word in words]  # a step that a short run has
    if "convnext_jax.tools.benchmark" in words and "--repeats" not in words:
        words += ["--repeats", "2", "--steps", "1"]
    if {"convnext_jax.tools.sweep", "convnext_jax.tools.benchmark"} & set(words):
        words += [f"--config.run.{name}={value}" for name, value in SHORT.items()]
        words.append("--config.optim.warmup_epochs=0")
    if words[0] == "train.py":
        stepwise = any("_sgd/" in word or "decay_epochs" in word for word in words)
        epochs = {"epochs": "2"} if "--extend" in words or stepwise else {}
        if "runs/c100" in words:  # two evaluated checkpoints, to be averaged
            epochs = {"epochs": "2", "eval_every_epochs": "1"}
        words += [f"--config.run.{name}={value}" for name, value in (SHORT | epochs).items()]
        if not any(word.startswith("--config.optim.warmup_epochs") for word in words):
            words.append("--config.optim.warmup_epochs=0")
        if stepwise:  # the learning rate falls between the two epochs
            words = [word for word in words if "decay_epochs" not in word] + ["--config.optim.decay_epochs=(1,)"]
    command = [sys.executable, *words]
    if "--watch" in words:  # until it is stopped, or all runs have finished
        sys.exit(subprocess.run(["timeout", "20", *command], check=False).returncode not in (0, 124))
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
