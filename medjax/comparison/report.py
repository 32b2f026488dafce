"""A report: sections of paragraphs, tables and figures, as Markdown and as one HTML file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medjax.comparison.figures import save

TEMPLATE = Path(__file__).with_name("report.html.jinja")
FIGURES = "figures"


class Table(NamedTuple):
    """Cells as they are shown."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def filled(self) -> Table:
        """Without the columns in which nothing stands."""
        kept = [i for i in range(len(self.header)) if any(row[i] for row in self.rows)]
        lines = [[line[i] for i in kept] for line in (self.header, *self.rows)]
        return Table(self.caption, lines[0], lines[1:])


class Picture(NamedTuple):
    """A figure and the name of its files."""

    name: str
    caption: str
    figure: Any


class Section(NamedTuple):
    """Paragraphs (str), tables and pictures in their order."""

    title: str
    blocks: Sequence[str | Table | Picture]


def write_report(folder: Path, title: str, sections: Sequence[Section]) -> None:
    """Writes `report.md`, `report.html` and `figures/`."""
    figures = folder / FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    for path in (*figures.glob("*.svg"), *figures.glob("*.png")):
        path.unlink()
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Picture):
                save(block.figure, figures, block.name)
    (folder / "report.md").write_text(_markdown(title, sections), encoding="utf-8")
    (folder / "report.html").write_text(_html(title, sections, figures), encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Values as numbers, one row a score."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _markdown(title: str, sections: Sequence[Section]) -> str:
    parts = [f"# {title}"]
    for section in sections:
        parts.append(f"## {section.title}")
        for block in section.blocks:
            if isinstance(block, str):
                parts.append(block)
            elif isinstance(block, Picture):
                parts.append(f"![{block.caption}]({FIGURES}/{block.name}.svg)\n\n*{block.caption}*")
            else:
                block = block.filled()
                lines = [block.header, ["---"] * len(block.header), *block.rows]
                shown = [
                    "| " + " | ".join(c.replace("|", "/") for c in own) + " |" for own in lines
                ]
                parts.append(f"*{block.caption}*\n\n" + "\n".join(shown))
    return "\n\n".join(parts) + "\n"


def _html(title: str, sections: Sequence[Section], figures: Path) -> str:
    from jinja2 import Environment

    def drawing(name: str) -> str:
        text = (figures / f"{name}.svg").read_text(encoding="utf-8")
        return text[text.index("<svg") :]

    def kind(block: Any) -> str:
        return type(block).__name__

    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = page.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, sections=sections, drawing=drawing, kind=kind)
