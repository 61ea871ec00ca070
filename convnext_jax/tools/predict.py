"""Classifies pictures: ``python -m convnext_jax.tools.predict --workdir runs/c100 photos/ cat.jpg``."""

import argparse
import contextlib
import io
import itertools
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from convnext_jax.errors import Failure, UserError, writing
from convnext_jax.storage.cloud import local_path, to_path
from convnext_jax.tools import command_line

if TYPE_CHECKING:
    import numpy as np

    from convnext_jax.evaluate.classifier import Classifier

DEFAULT_TOP_K = 5
MOST_EXPLAINED = 64  # pictures on a contact sheet
_WIDEST_CLASS = 24  # characters of a column of the table; a longer name is not cut, and pushes the others aside
_DECODERS = 4  # threads; each may hold a picture of 8192x8192 pixels


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Prints the most probable classes of pictures, which are prepared as those of the training were.",
        "Of a folder, all pictures in it at any depth are taken, in the order of their names. The output has the\n"
        "order of the input. A picture that cannot be read is named at the end, with exit status 1.",
    )
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="a file, a folder, or - for paths from stdin")
    parser.add_argument(
        "--workdir", type=to_path, required=True, metavar="DIR", help="the workdir of train.py, or a folder of weights"
    )
    parser.add_argument("--step", default="latest", help="which checkpoint: latest (default), best, or a step")
    parser.add_argument("--weights", default="raw", choices=("raw", "ema"), help="which weights of it (default: raw)")
    parser.add_argument("--top_k", type=int, metavar="K", help=f"classes of each (default: {DEFAULT_TOP_K}, or all)")
    parser.add_argument("--format", default="table", choices=("table", "jsonl"), help="the output (default: table)")
    parser.add_argument("--output", type=local_path, metavar="FILE", help="where it goes (default: stdout)")
    parser.add_argument(
        "--explain",
        type=local_path,
        metavar="FILE.png",
        help=f"where the network looks, by Grad-CAM, in the first {MOST_EXPLAINED} pictures",
    )
    parser.add_argument("--stage", type=int, help="for --explain: the stage that is looked into (default: the last)")
    parser.add_argument("--image_size", type=int, help="side in pixels, if not that of the training")
    parser.add_argument("--batch_size", type=int, default=32, help="images at a time (default: 32); changes no figure")
    arguments = parser.parse_args()
    _check(parser, arguments)
    try:
        _predict(arguments)
    except BrokenPipeError:  # whoever read the output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check(parser: command_line.Parser, arguments: argparse.Namespace) -> None:
    for name in ("top_k", "stage", "image_size", "batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} {value}: must be at least 1")
    if arguments.stage is not None and arguments.explain is None:
        parser.error("--stage is for --explain")
    for option in ("output", "explain"):
        file = getattr(arguments, option)
        if file is not None and not file.parent.is_dir():
            parser.error(f"--{option} {file}: there is no folder {file.parent}")
    if arguments.explain is not None and arguments.explain.suffix.lower() != ".png":
        parser.error(f"--explain {arguments.explain}: the contact sheet is a .png file")
    for picture in arguments.pictures:
        if picture != "-" and not Path(picture).exists():
            parser.error(f"there is no picture or folder {picture}")


def _predict(arguments: argparse.Namespace) -> None:
    unreadable: list[str] = []
    paths = _expanded(arguments.pictures, unreadable)

    # These take seconds to import; a mistake above was answered without them.
    import numpy as np

    from convnext_jax.evaluate.classifier import load
    from convnext_jax.run.compilation_cache import keep_compiled_programs

    keep_compiled_programs()
    classifier = load(
        arguments.workdir,
        step=arguments.step,
        weights=arguments.weights,
        image_size=arguments.image_size,
        batch_size=arguments.batch_size,
    )
    classes = classifier.classes
    top_k = arguments.top_k or min(DEFAULT_TOP_K, len(classes))
    if top_k > len(classes):
        known = f"the network in {arguments.workdir} has {len(classes)} classes"
        raise UserError(f"--top_k {top_k}: {known}; take {len(classes)} or fewer")
    stage = classifier.explainable_stage(arguments.stage) if arguments.explain else 0
    explained: list[tuple[str, np.ndarray]] = []
    count = 0
    with _opened(arguments.output) as file:
        if arguments.format == "table":
            print(_table_head(classes, top_k), file=file)
        for names, pixels in _batches(classifier, paths, unreadable, quiet=file.isatty()):
            for name, row in zip(names, classifier.predict(pixels), strict=True):
                best = [(classes[index], float(row[index])) for index in np.argsort(-row, kind="stable")[:top_k]]
                print(_FORMATS[arguments.format](name, best, classes), file=file)
            file.flush()
            count += len(names)
            if arguments.explain:
                explained += list(zip(names, pixels, strict=True))[: MOST_EXPLAINED - len(explained)]
    if explained:
        _write_sheet(arguments.explain, classifier, explained, stage)
        of_all = "" if count == len(explained) else f" the first {len(explained)} of {count} pictures,"
        print(f"{arguments.explain} shows{of_all} what speaks for each class in stage {stage}", file=sys.stderr)
    for message in unreadable:
        print(message, file=sys.stderr)
    if unreadable:
        raise Failure(f"{len(unreadable)} of {count + len(unreadable)} pictures could not be read")
    if not count:
        raise UserError("no pictures were given")


def _expanded(names: Iterable[str], unreadable: list[str]) -> Iterator[str]:
    """Yields the paths of pictures: files as they are, those in folders, and those that - stands for."""
    for name in names:
        if name == "-":
            _keep_bytes(sys.stdin)
            yield from _expanded(filter(None, (line.rstrip("\n") for line in sys.stdin)), unreadable)
        elif os.path.isdir(name):
            yield from _pictures_below(name, unreadable)
        else:
            yield name


def _pictures_below(folder: str, unreadable: list[str]) -> Iterator[str]:
    from convnext_jax.data.image_folder import SUFFIXES

    def note(error: OSError) -> None:
        unreadable.append(f"folder {error.filename} cannot be read ({error.strerror})")

    seen: set[str] = set()  # a link may lead back to a folder above it
    for parent, folders, files in os.walk(folder, onerror=note, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else sorted(each for each in folders if not each.startswith("."))
        if real not in seen:
            names = sorted(each for each in files if each.lower().endswith(SUFFIXES) and not each.startswith("."))
            yield from (os.path.join(parent, name) for name in names)
        seen.add(real)


def _batches(
    classifier: "Classifier", paths: Iterator[str], unreadable: list[str], *, quiet: bool
) -> Iterator[tuple[list[str], "np.ndarray"]]:
    """Yields the paths and the pixels, uint8 [N,H,W,C], of a batch of pictures at a time."""
    import numpy as np
    from tqdm import tqdm

    def decode(path: str) -> "np.ndarray | UserError":
        try:
            return classifier.preprocess(path)
        except UserError as error:
            return error

    # Lines that appear on a terminal show the progress themselves.
    bar = tqdm(desc="predicting", unit=" pictures", delay=2, leave=False, disable=True if quiet else None)
    with bar, ThreadPoolExecutor(min(_DECODERS, os.cpu_count() or 1)) as pool:
        while chosen := list(itertools.islice(paths, classifier.batch_size)):
            with warnings.catch_warnings():
                # Each decoder silences warnings for itself, and threads share the filters.
                warnings.simplefilter("ignore")
                decoded = list(zip(chosen, pool.map(decode, chosen), strict=True))
            bar.update(len(chosen))
            unreadable += [str(result) for _, result in decoded if isinstance(result, UserError)]
            read = [(path, result) for path, result in decoded if not isinstance(result, UserError)]
            if read:
                yield [path for path, _ in read], np.stack([pixels for _, pixels in read])


def _table_head(classes: Sequence[str], top_k: int) -> str:
    width = _class_width(classes) + len(" 0.1234")
    return "  ".join([*(f"{f'top {rank}':<{width}}" for rank in range(1, top_k + 1)), "picture"])


def _table_line(name: str, best: Sequence[tuple[str, float]], classes: Sequence[str]) -> str:
    width = _class_width(classes)
    return "  ".join([*(f"{label:<{width}} {probability:.4f}" for label, probability in best), name])


def _class_width(classes: Sequence[str]) -> int:
    return min(max(map(len, classes)), _WIDEST_CLASS)


def _json_line(name: str, best: Sequence[tuple[str, float]], classes: Sequence[str]) -> str:
    del classes
    predictions = [{"class": label, "probability": probability} for label, probability in best]
    return json.dumps({"picture": name, "predictions": predictions})


_FORMATS: dict[str, Callable[[str, Sequence[tuple[str, float]], Sequence[str]], str]] = {
    "table": _table_line,
    "jsonl": _json_line,
}


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        _keep_bytes(sys.stdout)
        yield sys.stdout
        return
    with writing(output, "--output"), output.open("w", encoding="utf-8", errors="surrogateescape") as file:
        yield file


def _keep_bytes(stream: TextIO) -> None:
    """Makes the names of files that are no UTF-8 pass through as they are."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="surrogateescape")


def _write_sheet(
    path: Path, classifier: "Classifier", explained: Sequence[tuple[str, "np.ndarray"]], stage: int
) -> None:
    import numpy as np

    from convnext_jax.report.contact_sheet import explanations
    from convnext_jax.storage.files import write_bytes

    names, pixels = zip(*explained, strict=True)
    file = io.BytesIO()
    explanations(classifier, [Path(name).name for name in names], np.stack(pixels), stage).save(file, format="png")
    with writing(path, "--explain"):
        write_bytes(path, file.getvalue())


if __name__ == "__main__":
    command_line.run_main(main)
