"""Classifies or segments pictures: ``python -m convnext_jax.tools.predict --workdir runs/c100 photos/ cat.jpg``."""

import argparse
import contextlib
import io
import itertools
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from convnext_jax.errors import Failure, UserError, writing
from convnext_jax.report.prediction_lines import FORMATS, Ranking
from convnext_jax.storage.cloud import local_path, to_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file, check_new_folder

if TYPE_CHECKING:
    import numpy as np

    from convnext_jax.evaluate.classifier import Classifier
    from convnext_jax.evaluate.segmenter import Segmenter
    from convnext_jax.evaluate.trained_network import TrainedNetwork
    from convnext_jax.report.mask_files import MaskFiles

DEFAULT_TOP_K = 5
MOST_EXPLAINED = 64  # pictures on a contact sheet
_DECODERS = 4  # threads; each may hold a picture of 8192x8192 pixels


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Prints the most probable classes of pictures, which are prepared as those of the training were. With --masks\n"
        "it writes the class of each pixel, and prints the classes with the most pixels and their shares.",
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
    parser.add_argument("--format", default="table", choices=tuple(FORMATS), help="the output (default: table)")
    parser.add_argument("--output", type=local_path, metavar="FILE", help="where it goes (default: stdout)")
    parser.add_argument(
        "--masks", type=local_path, metavar="DIR", help="of a segmentation: where the masks go, a new or empty folder"
    )
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
    _check_folders(arguments.pictures)
    _predict(arguments)


def _check(parser: command_line.Parser, arguments: argparse.Namespace) -> None:
    for name in ("top_k", "stage", "image_size", "batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} {value}: must be at least 1")
    if arguments.stage is not None and arguments.explain is None:
        parser.error("--stage is for --explain")
    for option in ("output", "explain"):
        file = getattr(arguments, option)
        if file is not None:
            check_new_file(f"--{option}", file)
    if arguments.explain is not None and arguments.explain.suffix.lower() != ".png":
        parser.error(f"--explain {arguments.explain}: the contact sheet is a .png file")
    if arguments.masks is not None:
        if arguments.explain is not None:
            parser.error("--explain is for classification, and --masks for segmentation; give one of them")
        check_new_folder("--masks", arguments.masks)
        if arguments.masks.is_dir() and next(arguments.masks.iterdir(), None) is not None:
            parser.error(f"--masks {arguments.masks}: there are files in it, which stay; give a new or empty folder")
    for picture in arguments.pictures:
        if picture != "-" and not Path(picture).exists():
            parser.error(f"there is no picture or folder {picture}")


def _check_folders(names: Sequence[str]) -> None:
    from convnext_jax.data.picture_paths import pictures_below

    for name in names:
        if name != "-" and os.path.isdir(name) and next(pictures_below(name, []), None) is None:
            raise UserError(f"there are no pictures in {name}")


def _predict(arguments: argparse.Namespace) -> None:
    # These take seconds to import; a mistake above was answered without them.
    from convnext_jax.evaluate import classifier, segmenter
    from convnext_jax.run.compilation_cache import keep_compiled_programs
    from convnext_jax.run.jax_settings import start_jax

    start_jax()
    keep_compiled_programs()
    chosen = {name: getattr(arguments, name) for name in ("step", "weights", "image_size", "batch_size")}
    if arguments.masks is None:
        _classify(arguments, classifier.load(arguments.workdir, **chosen))
    else:
        _segment(arguments, segmenter.load(arguments.workdir, **chosen))


def _classify(arguments: argparse.Namespace, classifier: "Classifier") -> None:
    rankings = [Ranking(classifier.classes, _top_k(arguments, classifier.classes))]
    stage = classifier.explainable_stage(arguments.stage) if arguments.explain else 0
    explained: list[tuple[str, np.ndarray]] = []
    unreadable: list[str] = []
    read = 0
    with _opened(arguments.output) as file:
        lines = FORMATS[arguments.format](file, rankings)
        for names, pixels in _batches(classifier, _paths(arguments, unreadable), unreadable, quiet=file.isatty()):
            lines.write(names, [classifier.predict(pixels)])
            read += len(names)
            if arguments.explain:
                explained += list(zip(names, pixels, strict=True))[: MOST_EXPLAINED - len(explained)]
    if explained:
        _write_sheet(arguments.explain, classifier, explained, stage)
        of_all = f", the first {len(explained)} of {read} pictures" if read > len(explained) else ""
        print(f"written to {arguments.explain}{of_all}", file=sys.stderr)
    _report(read, unreadable)


def _segment(arguments: argparse.Namespace, segmenter: "Segmenter") -> None:
    from convnext_jax.report.mask_files import MaskFiles

    rankings = [Ranking(segmenter.classes, _top_k(arguments, segmenter.classes), "largest", "classes", "share")]
    if segmenter.image_classes:
        rankings.insert(0, Ranking(segmenter.image_classes, _top_k(arguments, segmenter.image_classes)))
    unreadable: list[str] = []
    read = 0
    with writing(arguments.masks, "--masks"):
        arguments.masks.mkdir(parents=True, exist_ok=True)
    files = MaskFiles(arguments.masks, len(segmenter.classes))
    # Masks that were written into a folder that is read are no pictures.
    own = os.path.join(os.path.realpath(arguments.masks), "")
    paths = (path for path in _paths(arguments, unreadable) if not os.path.realpath(path).startswith(own))
    with _opened(arguments.output) as file:
        lines = FORMATS[arguments.format](file, rankings)
        for names, pixels in _batches(segmenter, paths, unreadable, quiet=file.isatty()):
            masks, probabilities = segmenter.predict_both(pixels)
            of_images = [] if probabilities is None else [probabilities]
            written = [_write_mask(files, segmenter, name, mask) for name, mask in zip(names, masks, strict=True)]
            lines.write(names, [*of_images, _shares(masks, len(segmenter.classes))], written)
            read += len(names)
    if read:
        print(f"written to {arguments.masks}", file=sys.stderr)
    _report(read, unreadable)


def _write_mask(files: "MaskFiles", segmenter: "Segmenter", picture: str, mask: "np.ndarray") -> str:
    """Writes a mask at the size of its picture, which is read again: not all of a batch need fit into the memory."""
    pixels = segmenter.preprocess.original(picture)
    with writing(files.folder, "--masks"):
        return files.write(picture, pixels, segmenter.preprocess.at_full_size(mask, *pixels.shape[:2]))


def _shares(masks: "np.ndarray", count: int) -> "np.ndarray":
    """Returns the share of the pixels that each class has in each mask, float64 [N,K]."""
    import numpy as np

    return np.stack([np.bincount(mask.ravel(), minlength=count) / mask.size for mask in masks])


def _top_k(arguments: argparse.Namespace, classes: Sequence[str]) -> int:
    count = len(classes)
    top_k = arguments.top_k or min(DEFAULT_TOP_K, count)
    if top_k > count:
        raise UserError(
            f"--top_k {top_k}: the network in {arguments.workdir} has {count} classes; take {count} or fewer"
        )
    return top_k


def _paths(arguments: argparse.Namespace, unreadable: list[str]) -> Iterator[str]:
    from convnext_jax.data.picture_paths import picture_paths

    _keep_bytes(sys.stdin)
    return picture_paths(arguments.pictures, unreadable)


def _report(read: int, unreadable: Sequence[str]) -> None:
    for message in unreadable:
        print(message, file=sys.stderr)
    if unreadable:
        raise Failure(f"{len(unreadable)} of {read + len(unreadable)} pictures could not be read")
    if not read:
        raise UserError("no pictures were given")


def _batches(
    network: "TrainedNetwork", paths: Iterator[str], unreadable: list[str], *, quiet: bool
) -> Iterator[tuple[list[str], "np.ndarray"]]:
    """Yields the paths and the pixels, uint8 [N,H,W,C], of a batch of pictures at a time."""
    import numpy as np
    from tqdm import tqdm

    def decode(path: str) -> "np.ndarray | UserError":
        try:
            return network.preprocess(path)
        except UserError as error:
            return error

    # Lines that appear on a terminal show the progress themselves.
    bar = tqdm(desc="predicting", unit=" pictures", delay=2, leave=False, disable=True if quiet else None)
    with bar, ThreadPoolExecutor(min(_DECODERS, os.cpu_count() or 1)) as pool:
        while chosen := list(itertools.islice(paths, network.batch_size)):
            with warnings.catch_warnings():
                # Each decoder silences warnings for itself, and threads share the filters.
                warnings.simplefilter("ignore")
                decoded = list(zip(chosen, pool.map(decode, chosen), strict=True))
            bar.update(len(chosen))
            unreadable += [str(result) for _, result in decoded if isinstance(result, UserError)]
            read = [(path, result) for path, result in decoded if not isinstance(result, UserError)]
            if read:
                yield [path for path, _ in read], np.stack([pixels for _, pixels in read])


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
