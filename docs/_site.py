"""What the site adds to the documents: a first page from the README, and the API reference. Called by mkdocs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("nn", "attacks", "losses", "metrics", "data", "recipes", "report", "ops")
ROLE = re.compile(r":(?:func|class|meth|mod|math):`~?([^`]+)`")
LINK = re.compile(r"\[([^\]]+)\]\(([^)#:]+)(#[^)]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the pages that have no file under docs."""
    readme = (ROOT / "README.md").read_text().replace("](docs/", "](").replace('"docs/', '"')
    files.append(File.generated(config, "index.md", content=readme))
    for package in PACKAGES:
        page = f"# mdprop_ext.{package}\n\n::: mdprop_ext.{package}\n"
        files.append(File.generated(config, f"api/{package}.md", content=page))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Turns links to files that are no documents, such as results and sources, into their paths."""
    folder = Path(page.file.src_uri).parent

    def kept(link: re.Match[str]) -> str:
        target = (ROOT / "docs" / folder / link[2]).resolve()
        inside = target.is_relative_to(ROOT / "docs")
        path = target.relative_to(ROOT / "docs" if inside else ROOT)
        known = inside and files.get_file_from_path(path.as_posix()) is not None
        return link[0] if known else f"{link[1]} (`{path.as_posix()}`)"

    prose_and_code = re.split(r"(^```.*?^```)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(LINK.sub(kept, part) if index % 2 == 0 else part for index, part in enumerate(prose_and_code))


class ReadableDocstrings(Extension):
    """Turns what the docstrings take from reStructuredText, roles and formulas, into Markdown."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Changes the docstring of a module, class or function."""
        if obj.docstring is None:
            return
        text = ROLE.sub(r"`\1`", obj.docstring.value)
        text = re.sub(r"^( *)\.\. math:: *", r"\1    ", text, flags=re.MULTILINE)
        obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
