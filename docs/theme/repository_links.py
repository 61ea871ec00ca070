"""Hook of mkdocs: links from the documents to files of the repository, and the documents that lie outside of docs/.

A document is written to be read in the repository, so it links to ``../configs/digits.py`` and the like. The site has
no such files. For each file that a document links to, this hook adds a page that shows it, or a copy, below ``files/``,
and points the link there. A link to a document becomes a link to its page. So the site needs no address of a
repository.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent.parent
# Documents outside of docs/, and the pages that they become. README.md would be the home page, which index.md is.
PAGES = {
    "README.md": "overview.md",
    "README.zh-CN.md": "overview.zh-CN.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/notes.md": "benchmarks/notes.md",
    "benchmarks/recipes.md": "benchmarks/recipes.md",
    "benchmarks/remat.md": "benchmarks/remat.md",
}
# Files that are shown as a page, and how they are highlighted. Others are copied.
LANGUAGES = {".py": "python", ".sh": "sh", ".toml": "toml", ".txt": "text", "": "text"}
# A link's target, or code, which has none. The text of a link may contain code.
LINK_OR_CODE = re.compile(
    r"^```.*?^```[ ]*$|`[^`\n]+`|\]\((?P<target>[^()\s#]+)(?P<anchor>#[^()\s]*)?\)", re.MULTILINE | re.DOTALL
)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages and the copies, and points the links of all documents to them."""
    documents = {_path(file): file for file in files.documentation_pages()}
    for path, uri in PAGES.items():
        documents[path] = File.generated(config, uri, content=(ROOT / path).read_text(encoding="utf-8"))
        files.append(documents[path])
    linked: set[str] = set()
    for path, file in documents.items():
        text = file.content_string
        if (rewritten := rewrite(text, path, file.src_uri, linked)) != text:
            file.content_string = rewritten
    for file in {each.src_uri: each for path in sorted(linked) for each in _shown(path, config)}.values():
        files.append(file)
    return files


def rewrite(text: str, path: str, uri: str, linked: set[str]) -> str:
    """Returns a document with its links to the repository pointed to the site.

    Args:
      text: the document, in Markdown.
      path: where it lies in the repository.
      uri: where its page lies in the site.
      linked: gets the paths of the files that it links to and that are no documents.
    """

    def point(match: re.Match[str]) -> str:
        if match["target"] is None or ":" in match["target"]:
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match["target"]))
        if not (ROOT / target).exists():
            return match[0]  # mkdocs names it
        if target.startswith("docs/") and not target.endswith(".py"):
            page = target.removeprefix("docs/")
        elif target in PAGES:
            page = PAGES[target]
        elif target.endswith(".ipynb"):
            page = f"{target.removesuffix('.ipynb')}.md"
        else:
            linked.add(target)
            page = _uri(target)
        return f"]({posixpath.relpath(page, posixpath.dirname(uri) or '.')}{match['anchor'] or ''})"

    return LINK_OR_CODE.sub(point, text)


def _path(file: File) -> str:
    """Where a document lies in the repository; the pages of notebooks are those of another hook."""
    uri = file.src_uri
    return f"{uri.removesuffix('.md')}.ipynb" if uri.startswith("notebooks/") else f"docs/{uri}"


def _uri(path: str) -> str:
    """Where a file or a folder of the repository lies in the site."""
    if (ROOT / path).is_dir():
        return f"files/{path}/index.md"
    return f"files/{path}.md" if Path(path).suffix in LANGUAGES else f"files/{path}"


def _shown(path: str, config: MkDocsConfig) -> list[File]:
    """The page of a file, its copy, or the page of a folder with copies of the files in it."""
    file = ROOT / path
    if file.is_dir():
        inside = sorted(each for each in file.iterdir() if each.is_file() and not each.name.startswith("."))
        lines = [f"- [{each.name}]({Path(_uri(f'{path}/{each.name}')).name})" for each in inside]
        page = File.generated(config, _uri(path), content=_page(path, "\n".join(lines)))
        return [page, *(copy for each in inside for copy in _shown(f"{path}/{each.name}", config))]
    if file.suffix not in LANGUAGES:
        return [File.generated(config, _uri(path), abs_src_path=str(file))]
    code = f"````{LANGUAGES[file.suffix]}\n{file.read_text(encoding='utf-8').rstrip()}\n````"
    return [File.generated(config, _uri(path), content=_page(path, code))]


def _page(path: str, content: str) -> str:
    return f"---\ntitle: {Path(path).name}\nsearch:\n  exclude: true\n---\n\n# `{path}`\n\n{content}\n"
