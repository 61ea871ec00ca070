"""Runs the notebooks from top to bottom and keeps their outputs: ``python notebooks/execute.py``.

``python notebooks/execute.py notebooks/train_digits.ipynb --output /tmp/short.ipynb --set epochs=1`` runs one of them
with another value of a parameter. The cells are plain Python, so Jupyter is not needed, and each notebook has a process
of its own, in which a warning is an error.
"""

import argparse
import ast
import base64
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# One warning is of ml_collections, which loads config files with a deprecated function of importlib.
WARNINGS = "error,ignore:the load_module() method is deprecated:DeprecationWarning"
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

Notebook = dict[str, Any]
Output = dict[str, Any]


def source(cell: dict[str, Any]) -> str:
    """Returns the text of a cell, which the format keeps as lines."""
    return "".join(cell["source"])


def code_cells(notebook: Notebook) -> list[dict[str, Any]]:
    """Returns the cells with code, in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def digest(notebook: Notebook) -> str:
    """Returns the SHA-256 of the code, by which outputs of other code are noticed."""
    return hashlib.sha256(json.dumps([source(cell) for cell in code_cells(notebook)]).encode()).hexdigest()


def read(path: Path) -> Notebook:
    """Returns the content of a notebook."""
    return json.loads(path.read_text(encoding="utf-8"))


def execute(notebook: Notebook, parameters: dict[str, Any]) -> Notebook:
    """Runs the cells in this process and returns the notebook with their outputs.

    Args:
      notebook: its content; it is not changed.
      parameters: variables to set after the cell with the tag ``parameters``, which has them.

    Raises:
      ValueError: that cell has no such variable.
    """
    notebook = json.loads(json.dumps(notebook))
    variables: dict[str, Any] = {"__name__": "__main__"}
    for count, cell in enumerate(code_cells(notebook), 1):
        cell["outputs"] = _run_cell(source(cell), f"cell {cell['id']}", count, variables)
        cell["execution_count"] = count
        if "parameters" in cell["metadata"].get("tags", ()):
            if unknown := parameters.keys() - variables.keys():
                raise ValueError(f"there are no parameters {', '.join(sorted(unknown))}")
            variables |= parameters
    notebook["metadata"] = _METADATA | {"executed": digest(notebook)}
    return notebook


def _run_cell(code: str, name: str, count: int, variables: dict[str, Any]) -> list[Output]:
    """Runs a cell and returns what it printed, the figures that it showed and the value of its last line."""
    import matplotlib.pyplot as plt

    outputs: list[Output] = []
    printed = io.StringIO()

    def keep_printed() -> None:
        if text := printed.getvalue():
            outputs.append({"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)})
        printed.seek(0)
        printed.truncate()

    def show() -> None:
        keep_printed()
        for number in plt.get_fignums():
            picture = io.BytesIO()
            plt.figure(number).savefig(picture, format="png", dpi=90, metadata={"Software": None})
            data = {"image/png": base64.b64encode(picture.getvalue()).decode()}
            outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
        plt.close("all")

    plt.show = show
    tree = ast.parse(code, name)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, name, "exec"), variables)
        value = None if last is None else eval(compile(ast.Expression(last.value), name, "eval"), variables)
    keep_printed()
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        outputs.append({"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"})
    return outputs


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Runs notebooks and keeps their outputs.")
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="which ones (default: all)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the outputs go (default: the notebook)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter, in Python")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in the process of one notebook
    arguments = parser.parse_args()
    notebooks = arguments.notebooks or sorted(Path(__file__).parent.glob("*.ipynb"))
    if not arguments.here:
        environment = os.environ | {"PYTHONWARNINGS": WARNINGS, "MPLBACKEND": "agg"}
        for path in notebooks:
            print(path, flush=True)
            command = [sys.executable, __file__, str(path), *sys.argv[1 + len(arguments.notebooks) :], "--here"]
            if done := subprocess.run(command, env=environment, check=False).returncode:
                sys.exit(done)
        return
    (path,) = notebooks
    output = (arguments.output or path).resolve()
    parameters = {name: ast.literal_eval(value) for name, _, value in (each.partition("=") for each in arguments.set)}
    notebook = read(path)
    os.chdir(path.parent)  # as Jupyter does it
    sys.path[0] = ""
    executed = execute(notebook, parameters)
    output.write_text(json.dumps(executed, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
