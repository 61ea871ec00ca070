"""Puts the table of comparisons into the README, from their records.

    python benchmarks/comparison_table.py benchmarks/results/compare_*.json

It stands between the two comments that name this file.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.comparison.table import insert_table, readme_table
from convnext_jax.tools import command_line
from convnext_jax.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """The command."""
    parser = command_line.Parser(__doc__ or "")
    parser.add_argument("records", type=Path, nargs="+", metavar="RECORD", help="JSON files of benchmarks/compare.py")
    options = parser.parse_args()
    records = {}
    for file in options.records:
        file = file.resolve()
        if not file.is_file() or not file.is_relative_to(ROOT):
            raise UserError(f"{file} is no file of this repository")
        records[file.relative_to(ROOT).as_posix()] = json.loads(file.read_text())
    readme = ROOT / "README.md"
    readme.write_text(insert_table(readme.read_text(), readme_table(records)))


if __name__ == "__main__":
    command_line.run_main(main)
