"""Tables of records: one for a single comparison in the terminal, and one for several in docs/performance.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from convnext_jax.errors import UserError

PART_NAMES = {"forward": "forward pass", "step": "training step"}


def result_table(record: Mapping[str, Any]) -> str:
    """Returns a table with a line for each part of each system, the fastest first."""
    lines = [f"{'':32} {'ms (quartiles)':>24} {'images/s':>10} {'of ceiling':>10}   times as long (quartiles)"]
    for part, words in PART_NAMES.items():
        for name in sorted(record["systems"], key=lambda name: record["systems"][name][part]["milliseconds"]["median"]):
            found = record["systems"][name][part]
            lines.append(
                f"{words:13} {name:18} {_spread(found['milliseconds'], '.1f'):>24} {found['images_per_second']:10.1f}"
                f" {found['share_of_ceiling']:10.0%}   {_spread(found['ratio'], '.2f')}"
            )
    return "\n".join(lines)


def _spread(figures: Mapping[str, float], form: str) -> str:
    return f"{figures['median']:{form}} ({figures['lower']:{form}}-{figures['upper']:{form}})"


def page_table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a Markdown table with a row for each part of each record, in the given order.

    A row gives the PyTorch system that is the fastest in that part of the record.

    Args:
      records: records that `benchmarks/compare.py` wrote, by the link to the file.
    """
    lines = [
        "| | this project | share of the ceiling | PyTorch's best | times as long | plain JAX, times as long |",
        "|---|---|---|---|---|---|",
    ]
    for link, record in records.items():
        for part, words in PART_NAMES.items():
            lines.append(_page_row(link, record, part, words))
    return "\n".join(lines)


def _page_row(link: str, record: Mapping[str, Any], part: str, words: str) -> str:
    systems, case = record["systems"], record["case"]
    figures = {name: system[part] for name, system in systems.items()}
    ours = figures[record["reference"]]
    torch = _fastest(figures, ("torch_", "timm_"))
    plain = _fastest(figures, ("plain_jax",))
    shapes = f"`{case['model']}`, `{case['stem']}`, {case['image_size']} px, batch {case['batch_size']}"
    return " | ".join(
        [
            f"| [{words}, {shapes}]({link})",
            f"{ours['milliseconds']['median']:.0f} ms, {ours['images_per_second']:.0f} images/s",
            f"{ours['share_of_ceiling']:.0%}",
            f"{figures[torch]['milliseconds']['median']:.0f} ms (`{torch}`)" if torch else "",
            f"**{figures[torch]['ratio']['median']:.2f}**" if torch else "",
            f"{figures[plain]['ratio']['median']:.2f} |" if plain else "|",
        ]
    )


def _fastest(figures: Mapping[str, Mapping[str, Any]], prefixes: Sequence[str]) -> str | None:
    names = [name for name in figures if name.startswith(tuple(prefixes))]
    return min(names, key=lambda name: figures[name]["milliseconds"]["median"], default=None)


# The lines around the table in docs/performance.md.
BEGIN, END = "<!-- benchmarks/comparison_table.py -->", "<!-- end of benchmarks/comparison_table.py -->"


def insert_table(text: str, table: str) -> str:
    """Returns the text with the table between its two marks, instead of what is there.

    Raises:
      UserError: the text does not contain each mark exactly once.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"docs/performance.md needs {BEGIN} and {END} exactly once each, around the table")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"
