"""Writes a trained network in the format of other software.

``python -m convnext_jax.tools.export --workdir runs/c100 --format onnx --output exported``
"""

from convnext_jax.errors import UserError, nearest
from convnext_jax.precision import DTYPES
from convnext_jax.storage.cloud import local_path, to_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_folder, data_options

_FORMATS = """\
timm, transformers, torchvision, facebookresearch, and the other layouts of docs/weights.md: model.safetensors in the
names of that library, with the settings that it reads; onnx: an ONNX model with any batch size; onnx_int8: that in 8
bits, calibrated on training images; stablehlo: a program for CPU, CUDA and TPU that needs jax alone; convnext_jax: a
folder of weights. Beside them a model card, README.md, with the Python that loads them."""


@data_options("data_dir")
def main() -> None:
    """The command."""
    parser = command_line.Parser("Writes a trained network in the format of other software.", _FORMATS)
    parser.add_argument(
        "--workdir", type=to_path, required=True, metavar="DIR", help="a workdir of train.py, or a folder of weights"
    )
    parser.add_argument("--format", required=True, metavar="NAME", help="what to write; see below")
    parser.add_argument("--output", type=local_path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument("--step", default="latest", help="which checkpoint: latest (default), best, or a step")
    parser.add_argument("--weights", default="raw", choices=("raw", "ema"), help="raw (default), or the moving average")
    parser.add_argument("--image_size", type=int, metavar="PIXELS", help="of a folder of weights, which does not know")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="what a stablehlo program computes in, or what the parameters of convnext_jax are stored in (float32)",
    )
    parser.add_argument("--data_dir", metavar="DIR", help="for onnx_int8: where the data are, if elsewhere")
    arguments = parser.parse_args()
    dtype = arguments.dtype or "float32"
    if dtype != "float32" and arguments.format not in ("stablehlo", "convnext_jax"):
        parser.error(f"--dtype {dtype} is for --format stablehlo and convnext_jax; the others are in float32")
    if dtype == "auto" and arguments.format == "convnext_jax":
        parser.error("--dtype auto is for --format stablehlo; take --dtype float32 or bfloat16")
    if arguments.output.exists():
        raise UserError(f"{arguments.output} exists already; choose another --output")
    check_new_folder("--output", arguments.output)
    _check_format(arguments.format)

    # These take seconds to import; a mistake above was answered without them.
    from convnext_jax.evaluate.opened_classifier import open_classifier
    from convnext_jax.export.folder import write_export
    from convnext_jax.run.compilation_cache import keep_compiled_programs
    from convnext_jax.run.jax_settings import start_jax

    start_jax()
    keep_compiled_programs()
    network = open_classifier(
        arguments.workdir,
        step=arguments.step,
        weights=arguments.weights,
        image_size=arguments.image_size,
        dtype=dtype if arguments.format == "stablehlo" else "float32",
        if_masks="such a network cannot be exported; tools.predict --masks DIR uses it",
    )
    for line in write_export(network, arguments.format, arguments.output, arguments.data_dir, stored=dtype):
        print(line)
    print(f"{network.model}, {network.origin.text}: written to {arguments.output}; see its README.md")


def _check_format(form: str) -> None:
    from convnext_jax.export import PROGRAMS
    from convnext_jax.models.table import MODELS

    layouts = {layout for architecture in MODELS.values() for layout in architecture.torch_layouts}
    known = sorted(layouts.union(PROGRAMS))
    if form not in known:
        raise UserError(f"--format {form}: unknown; {nearest(form, known)}")


if __name__ == "__main__":
    command_line.run_main(main)
