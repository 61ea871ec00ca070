"""Hook of mkdocs: a page for each notebook, with its text, its code and its outputs, and a copy to download.

It comes before the hook that points links to files of the repository to the site.
"""

import base64
import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

NOTEBOOKS = Path(__file__).resolve().parent.parent.parent / "notebooks"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages, their pictures and the copies."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text, pictures = to_markdown(json.loads(path.read_text(encoding="utf-8")), path.name)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def to_markdown(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """Returns a notebook as a page, and its pictures by file name.

    Args:
      notebook: its content.
      name: its file name.
    """
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                file = f"{Path(name).stem}_{cell['id']}.png"
                pictures[file] = base64.b64decode(data["image/png"])
                parts.append(f"![output of the cell above]({file})")
            else:
                text = "".join(output.get("text") or data["text/plain"]).rstrip()
                parts.append(f"```text\n{text}\n```")
    download = f'<a href="{name}" download>Download this notebook</a>'
    parts.insert(1, download)
    return "\n\n".join(parts) + "\n", pictures
