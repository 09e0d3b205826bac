"""Tables of text, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table", "plain_table"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text; the columns named in ``right`` hold numbers."""

    title: str
    columns: tuple[str, ...]
    right: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]

    def to_markdown(self) -> str:
        """The table as Markdown, with its title over it."""
        rule = ["---:" if column in self.right else "---" for column in self.columns]
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in (self.columns, rule, *self.cells)]
        lines = [f"| {' | '.join(row)} |" for row in escaped]
        return "\n".join([f"## {self.title}", "", *lines])


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text; the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)
