"""The legend of a comparison: of the page, where it shows and hides runs, and of the picture."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from convnext_jax.report import page as html
from convnext_jax.report.comparison_charts import style_of
from convnext_jax.report.group_names import differing_settings, setting_text, short_fields
from convnext_jax.report.run_figures import figures_of
from convnext_jax.report.run_groups import Group

# A box of the legend shows and hides the lines of a group, and stays as it is when the page is loaded again. While the
# pointer or the focus is on it, the other lines are pale.
SCRIPT = """
for (const section of document.querySelectorAll("section")) {
  const boxes = [...section.querySelectorAll(".legend input")];
  const style = (box, name, value) => {
    for (const line of section.querySelectorAll("." + box.value)) line.style[name] = value;
  };
  const apply = () => {
    for (const box of boxes) {
      style(box, "display", box.checked ? "" : "none");
      try { sessionStorage.setItem(section.id + box.name, box.checked ? "" : "hidden"); } catch { /* not allowed */ }
    }
  };
  const point = (chosen) => boxes.forEach((box) => style(box, "opacity", chosen && box !== chosen ? 0.12 : ""));
  for (const box of boxes) {
    try { box.checked = !sessionStorage.getItem(section.id + box.name); } catch { /* not allowed */ }
    box.addEventListener("change", apply);
    for (const event of ["pointerenter", "focusin"]) box.parentElement.addEventListener(event, () => point(box));
    for (const event of ["pointerleave", "focusout"]) box.parentElement.addEventListener(event, () => point(null));
  }
  for (const button of section.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      for (const box of boxes) box.checked = button.value === "all";
      apply();
    });
  }
  apply();
}
""".strip()


def page_legend(groups: Sequence[Group]) -> str:
    """Returns the legend of all charts, with a box for each group that shows and hides its lines."""
    entries = []
    for index, label in enumerate(_labels(groups)):
        entries.append(
            f'<label><input type="checkbox" checked autocomplete="off" name="{html.text(groups[index].name)}"'
            f' value="group-{index}">{_swatch(index)}{html.text(label)}</label>'
        )
    if len(groups) > 2:
        buttons = (f'<button type="button" value="{which}">{which}</button>' for which in ("all", "none"))
        entries.append(f"<span>{' '.join(buttons)}</span>")
    return f'<fieldset class="legend" aria-label="Groups that are shown">{"".join(entries)}</fieldset>'


def picture_legend(groups: Sequence[Group]) -> list[Artist]:
    """Returns what the legend of the picture is made of."""
    colors = html.light_series()
    handles: list[Artist] = []
    for index, label in enumerate(_labels(groups)):
        number, marker = style_of(index)
        handles.append(Line2D([], [], color=colors[number], marker=marker, markersize=5, label=label))
    gray = "0.4"
    if any(figures.weights == "EMA" for group in groups for figures in figures_of(group)):
        handles.append(Line2D([], [], color=gray, linestyle="--", label="moving average (EMA)"))
    handles.append(
        Line2D([], [], color=gray, linestyle="", marker="*", markersize=9, label="best evaluation of a seed")
    )
    if any(len(group.runs) > 1 for group in groups):
        handles.append(Patch(color=gray, alpha=0.18, linewidth=0, label="lowest to highest seed"))
    return handles


def _labels(groups: Sequence[Group]) -> list[str]:
    """Returns the names of the groups with the first two settings in which they differ."""
    fields = differing_settings([group.settings for group in groups])[:2]
    names = short_fields(fields)
    labels = []
    for group in groups:
        settings = group.settings
        values = [
            f"{name}={setting_text(settings[field])}"
            for name, field in zip(names, fields, strict=True)
            if field in settings
        ]
        labels.append(f"{group.label}: {', '.join(values)}" if values else group.label)
    return labels


def _swatch(index: int) -> str:
    """Returns a piece of the line of a group."""
    number, marker = style_of(index)
    shapes = {
        "": "",
        "o": '<circle cx="18" cy="6" r="4"/>',
        "s": '<rect x="14" y="2" width="8" height="8"/>',
        "^": '<path d="M13 10 18 2 23 10Z"/>',
        "D": '<path d="M18 1 23 6 18 11 13 6Z"/>',
        "v": '<path d="M13 2 18 10 23 2Z"/>',
        "P": '<path d="M16 2h4v2h2v4h-2v2h-4v-2h-2v-4h2z"/>',
        "X": '<path d="M14 2l4 3 4-3v8l-4-3-4 3z"/>',
    }
    color = f"var(--series-{number})"
    return (
        f'<svg viewBox="0 0 36 12" aria-hidden="true" fill="{color}" stroke="{color}">'
        f'<path d="M0 6H36" stroke-width="2"/>{shapes[marker]}</svg>'
    )
