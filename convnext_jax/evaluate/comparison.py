"""Several evaluations set side by side: the seeds of one experiment, and different models on the same examples."""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

from convnext_jax.evaluate.seeds import group_by_seed
from convnext_jax.evaluate.selected import AnyEvaluation, Selection, same_examples
from convnext_jax.evaluate.uncertainty import difference_of_means
from convnext_jax.workdir.claim import identity


@dataclasses.dataclass(frozen=True)
class Group:
    """Evaluations of one experiment that differ in the seed alone.

    Attributes:
      name: what the group is called.
      evaluations: one for each seed.
    """

    name: str
    evaluations: tuple[AnyEvaluation, ...]


def group_seeds(evaluations: Sequence[AnyEvaluation]) -> list[Group]:
    """Groups evaluations whose runs differ in their seed alone, in the order in which they first come.

    A second run of the same seed is no further sample of the training, so it begins a group of its own. Of what is
    there twice, the first counts.
    """
    once: dict[tuple[str, Selection], AnyEvaluation] = {}
    for each in evaluations:
        once.setdefault((os.path.normpath(each.run.workdir), each.selection), each)
    groups = group_by_seed(once.values(), _all_but_the_seed, lambda each: each.run.experiment.run.seed)
    several_ways = len({each.selection.weights for each in evaluations}) > 1
    several_steps = len({each.selection.step for each in evaluations}) > 1
    names = [_name(members, several_ways, several_steps) for members in groups]
    # Two groups of seeds in one folder are called by their first seeds.
    full = [_name(members, several_ways, several_steps, of_first=True) for members in groups]
    names = [name if names.count(name) == 1 else longer for name, longer in zip(names, full, strict=True)]
    return [Group(name, tuple(members)) for name, members in zip(names, groups, strict=True)]


def _all_but_the_seed(evaluation: AnyEvaluation) -> tuple[dict[str, Any], Selection]:
    settings = identity(evaluation.run.experiment)
    return {name: value for name, value in settings.items() if name != "run.seed"}, evaluation.selection


def _name(members: Sequence[AnyEvaluation], with_weights: bool, with_step: bool, *, of_first: bool = False) -> str:
    first = members[0]
    workdir, step = first.run.workdir, first.selection.step
    in_one_folder = all(re.fullmatch(r"seed_\d+", each.run.workdir.name) for each in members)
    name = str(workdir.parent if in_one_folder and len(members) > 1 and not of_first else workdir)
    name += f" ({len(members)} seeds)" if len(members) > 1 else ""
    name += f" {first.selection.weights}" if with_weights else ""
    if not with_step:
        return name
    if step.isdecimal():
        return f"{name} step {step}"
    # A step that a word stands for may be another one for each seed.
    return f"{name} {step} step" + (f" {first.step}" if len({each.step for each in members}) == 1 else "")


def why_not_compared(first: Group, second: Group) -> str | None:
    """Returns why two groups cannot be compared, None if they can."""
    one, other = first.evaluations[0], second.evaluations[0]
    numbers = [len(group.evaluations) for group in (first, second)]
    if not same_examples(one, other):
        return "they were evaluated on different examples"
    if len(one.examples) < 2:
        return "there is a single example"
    if min(numbers) == 1 < max(numbers):
        return "one has several seeds and the other one seed"
    if min(numbers) > 1 and difference_of_means(*_figures(first, second))[1] is None:
        return "the seeds of neither vary"
    return None


def compare(first: Group, second: Group) -> dict[str, Any] | None:
    """Compares the top-1 accuracy of two groups, or the mean IoU of segmentations.

    Returns:
      ``first``, ``second``, ``figure``, ``difference`` (of the second less the first), ``interval`` (95%), ``method``
      and ``conclusion``, a sentence. Of one run each, these are about the same examples; see `AnyEvaluation.paired`. Of
      several seeds each, they are about other seeds; see `convnext_jax.evaluate.uncertainty.difference_of_means`. None
      if there is no interval; `why_not_compared` says why.
    """
    if why_not_compared(first, second) is not None:
        return None
    one, other = first.evaluations[0], second.evaluations[0]
    names = {"first": first.name, "second": second.name, "figure": one.main_figure}
    if len(first.evaluations) == len(second.evaluations) == 1:
        compared = one.paired(other)
    else:
        difference, interval = difference_of_means(*_figures(first, second))
        compared = {"difference": difference, "interval": interval, "method": "Welch's interval over the seeds"}
    return names | compared | {"conclusion": _conclusion(names, compared, len(one.examples))}


def _figures(first: Group, second: Group) -> list[list[float]]:
    """Returns the figure that two groups are compared by, of each seed of each."""
    return [[each.figures[each.main_figure] for each in group.evaluations] for group in (first, second)]


def _conclusion(names: dict[str, str], compared: dict[str, Any], examples: int) -> str:
    points, (low, high) = 100 * compared["difference"], compared["interval"]
    over = "over seeds" if "Welch" in compared["method"] else f"on these {examples:,} examples; other seeds may differ"
    p_value = f"p = {compared['p_value']:.2g}, " if "p_value" in compared else ""
    figures = f"95% interval {100 * low:+.2f} to {100 * high:+.2f} points, {p_value}{over}"
    if low <= 0 <= high:
        return f"{names['second']} and {names['first']} are not told apart: {points:+.2f} points ({figures})."
    kinds = {
        "top1": ("is more accurate", "is less accurate"),
        "mean_iou": ("has a higher mean IoU", "has a lower mean IoU"),
    }
    better = kinds[names["figure"]][0 if points > 0 else 1]
    return f"{names['second']} {better} than {names['first']} by {abs(points):.2f} points ({figures})."
