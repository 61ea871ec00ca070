"""Shows what a step of a run was given and where its numbers grew.

``python -m convnext_jax.tools.replay --workdir runs/c100 --step 1234``
"""

import io
import math
import sys
from pathlib import Path
from typing import Any

from convnext_jax.errors import writing
from convnext_jax.storage.cloud import to_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_folder, data_options


@data_options("data_dir")
def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Takes a step of a run again, from the latest checkpoint before it, and writes what it was given and what\n"
        "came out: pictures.png, examples.json (index, label and loss of each) and statistics.json (loss, gradient\n"
        "norm, and the largest values of each stage and parameter and of its gradient). The run is not changed."
    )
    parser.add_argument("--workdir", type=to_path, required=True, metavar="DIR", help="the workdir of train.py")
    parser.add_argument("--step", type=int, required=True, help="the step, as a log or a message names it")
    parser.add_argument("--data_dir", metavar="DIR", help="where the data are on this machine, if elsewhere")
    parser.add_argument(
        "--output", type=to_path, metavar="DIR", help="the folder to write (default: replay_<step> in the workdir)"
    )
    arguments = parser.parse_args()
    output: Path = arguments.output or arguments.workdir / f"replay_{arguments.step}"
    check_new_folder("--output", output)

    # These take seconds to import; a mistake above was answered without them.
    import jax

    from convnext_jax.report.pictures import picture_grid
    from convnext_jax.run.compilation_cache import keep_compiled_programs
    from convnext_jax.run.jax_settings import start_jax
    from convnext_jax.run.replay import replay
    from convnext_jax.sharding import make_mesh
    from convnext_jax.storage.files import write_bytes, write_json
    from convnext_jax.workdir.claim import read_experiment

    start_jax()
    keep_compiled_programs()
    fsdp = read_experiment(arguments.workdir).run.fsdp
    again = replay(
        arguments.workdir,
        arguments.step,
        make_mesh(fsdp=fsdp if jax.device_count() % fsdp == 0 else 1),  # there may be fewer devices here
        data_dir=arguments.data_dir,
        say=lambda text: print(text, file=sys.stderr),
    )
    captions = [(f"{each['index']}: {each['label']}", f"loss {each['loss']:.3g}") for each in again.examples]
    picture = io.BytesIO()
    picture_grid(again.images, captions).save(picture, format="png")
    with writing(output, "--output"):
        output.mkdir(parents=True, exist_ok=True)
        write_bytes(output / "pictures.png", picture.getvalue())
        write_json(output / "examples.json", _plain({"step": again.step, "examples": again.examples}))
        numbers = {"step": again.step, "from_step": again.from_step, **again.statistics}
        write_json(output / "statistics.json", _plain(numbers))
    statistics = again.statistics
    command_line.print_fields(
        {
            **{name: f"{statistics[name]:.6g}" for name in ("loss", "grad_norm", "lr")},
            **{name: f"at most {value:.4g}" for name, value in statistics["stages"].items()},
            "largest gradient": _largest(statistics["parameters"], "gradient_largest"),
            "largest parameter": _largest(statistics["parameters"], "largest"),
        }
    )
    print(f"written to {output}")


def _plain(content: Any) -> Any:
    """Returns JSON content with a text for each number that JSON does not have, ``nan``, ``inf`` or ``-inf``."""
    if isinstance(content, dict):
        return {name: _plain(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_plain(value) for value in content]
    return str(content) if isinstance(content, float) and not math.isfinite(content) else content


def _largest(parameters: dict[str, dict[str, float]], which: str) -> str:
    # A value that is not a number is larger than all.
    name = max(parameters, key=lambda each: (not parameters[each][which] <= float("inf"), parameters[each][which]))
    return f"{parameters[name][which]:.4g} in {name}"


if __name__ == "__main__":
    command_line.run_main(main)
