"""The report: everything that a command wrote, on one page."""

from __future__ import annotations

from pathlib import Path

from mdprop_ext._files import write_bytes
from mdprop_ext.report import sections
from mdprop_ext.report._page_style import STYLE
from mdprop_ext.report.html import Html, frame, page, paragraph
from mdprop_ext.report.run_files import RunFiles

REPORT_FILE = "report.html"
_NO_PICTURES = "There are no plots in this folder: drawing them needs matplotlib, pip install 'mdprop_ext[plot]'."


class Report:
    """A page about the results in a folder, complete in one file: style and pictures are part of it.

    It loads nothing, runs no script, follows the reader's choice of light or dark, and is the same whenever the same
    files are there. In a notebook it shows itself.

    Args:
        files: What the folder holds.

    Raises:
        ValueError: If a file lacks what it should hold.

    Example:
        >>> Report.of("runs/mdprop").save("mdprop.html")  # doctest: +SKIP
    """

    def __init__(self, files: RunFiles) -> None:
        try:
            self.title = _title(files)
            self.html: str = page(self.title, STYLE, *_content(files))
        # What JSON of other content may lead to.
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"report: the files in '{files.folder}' are damaged or of another version ({error!r})"
            ) from error

    @classmethod
    def of(cls, folder: str | Path) -> Report:
        """Makes the report of a folder that ``mdprop train``, ``eval``, ``compare`` or ``attack`` wrote.

        Args:
            folder: The folder.

        Raises:
            ValueError: If it holds no results, or a file in it is damaged.
        """
        return cls(RunFiles.read(folder))

    def save(self, path: str | Path) -> None:
        """Writes the page; the file is either old or new, never half written."""
        write_bytes(Path(path), self.html.encode())

    def __repr__(self) -> str:
        """Returns title and size."""
        return f"Report({self.title!r}, {len(self.html) / 1024:.0f} KiB of HTML)"

    def _repr_html_(self) -> str:
        return frame(self.html)


def write_report(folder: str | Path) -> Path:
    """Writes ``report.html`` beside the files that it is about.

    Args:
        folder: A folder that a command wrote.

    Returns:
        The file.

    Raises:
        ValueError: If the folder holds no results, or a file in it is damaged; nothing is written then.
    """
    path = Path(folder) / REPORT_FILE
    Report.of(folder).save(path)
    return path


def _title(files: RunFiles) -> str:
    if files.comparison is not None:
        return f"Comparison: {', '.join(files.comparison)}"
    results = files.metrics or files.attack or {}
    command = (files.provenance or {}).get("command")
    kind = {"train": "Training", "eval": "Evaluation", "attack": "Attack"}.get(str(command), "Results")
    return f"{kind}: {results['recipe']}, seed {results['seed']}"


def _content(files: RunFiles) -> list[Html]:
    content = [paragraph(f"Results in {files.folder.name or files.folder}", kind="quiet")]
    if not files.pictures:
        content.append(paragraph(_NO_PICTURES, kind="notice"))
    if files.comparison is not None:
        content.append(sections.comparison_section(files.comparison, files.pictures))
    if files.metrics is not None:
        content.append(sections.clean_section(files.metrics))
        was_asked_for = (files.provenance or {}).get("command") == "eval"
        content.append(sections.robust_section(files.metrics, files.pictures, grid_first=was_asked_for))
    if files.attack is not None:
        content.append(sections.attack_section(files.attack, files.pictures))
    if files.history:
        content.append(sections.training_section(files.history, files.pictures))
    content.append(sections.configuration_section(files.configurations, files.provenance))
    content.append(sections.environment_section(files.provenance))
    return content
