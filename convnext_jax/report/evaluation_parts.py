"""What the pages of all evaluations have in common."""

import json
from collections.abc import Mapping
from typing import Any

from convnext_jax.evaluate.saved_run import SavedRun
from convnext_jax.report.page import code, details, text
from convnext_jax.storage.files import parse_json


def lead(figures: Mapping[str, Any]) -> str:
    """Returns in a sentence what figures are about."""
    return (
        f"{figures['model']} on {figures['dataset']} ({figures['split']}, {figures['examples']:,} examples),"
        f" step {figures['step']:,}, {figures['weights']} weights"
    )


def tiles(values: Mapping[str, str]) -> str:
    """Returns the large figures at the top, by what they are called."""
    items = "".join(
        f"<li><span>{text(name)}</span><strong>{text(value)}</strong></li>" for name, value in values.items()
    )
    return f'<ul class="tiles">{items}</ul>'


def cost_tiles(figures: Mapping[str, Any]) -> dict[str, str]:
    """Returns the costs of the network, for `tiles`."""
    return {
        "parameters": f"{figures['parameters'] / 1e6:,.2f} M",
        "multiply-adds an image": f"{figures['macs'] / 1e6:,.1f} M",
    }


def about_run(run: SavedRun, command: str) -> list[str]:
    """Returns the section on a run: the command of the page, its configuration, and where it was trained.

    Args:
      run: the run.
      command: the command line that made the page.
    """
    try:
        trained_on = parse_json((run.workdir / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        trained_on = None
    parts = ["<p>This page was made by</p>", code(command)]
    parts.append(details("Configuration", code(json.dumps(run.experiment.to_dict(), indent=2))))
    if trained_on is not None:
        parts.append(details("Where it was trained", code(json.dumps(trained_on, indent=2))))
    return parts
