"""Writes the table of comparisons in docs/performance.md from their records.

    python benchmarks/comparison_table.py benchmarks/results/compare_*.json

The table is between the two comments that name this file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.comparison.table import insert_table, page_table
from convnext_jax.errors import UserError, first_line
from convnext_jax.storage.files import parse_json, write_text
from convnext_jax.tools import command_line

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Runs the command."""
    parser = command_line.Parser(__doc__ or "")
    parser.add_argument(
        "records", type=Path, nargs="+", metavar="RECORD", help="JSON files that benchmarks/compare.py wrote"
    )
    options = parser.parse_args()
    records = {}
    for file in options.records:
        file = file.resolve()
        if not file.is_file() or not file.is_relative_to(ROOT):
            raise UserError(f"{file} is not a file in this repository")
        try:
            records[f"../{file.relative_to(ROOT).as_posix()}"] = parse_json(file.read_bytes())
        except ValueError as error:
            raise UserError(f"{file} is no record of benchmarks/compare.py ({first_line(error)})") from error
    page = ROOT / "docs" / "performance.md"
    write_text(page, insert_table(page.read_text(encoding="utf-8"), page_table(records)))


if __name__ == "__main__":
    command_line.run_main(main)
