"""Writes FIGURES.md and figures.svg from a run's figures, and puts the picture into README.md's.

    python benchmarks/page.py [RESULTS.json]

What people wrote between the marks of FIGURES.md stays; goals that are not reached and not named there are told. What
is different from the last figures, and why, is written in CHANGES.md, whose first section the page has.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from figures import BLOCK, PROSE, between, put_between, summary, untold
from figures_page import page

HERE = Path(__file__).parent


def changes() -> str:
    """Return the newest section of CHANGES.md."""
    return (HERE / "CHANGES.md").read_text("utf-8").partition("\n## ")[2].partition("\n## ")[0].partition("\n")[2]


def main() -> None:
    from plot import draw

    source = Path(*sys.argv[1:] or [HERE / "figures.json"])
    result = json.loads(source.read_text("utf-8"))
    draw(result, HERE / "figures.svg")
    target = HERE / "FIGURES.md"
    prose = (between(target.read_text("utf-8"), PROSE) if target.exists() else None) or ""
    target.write_text(page(result, prose, changes()), "utf-8")
    if source.resolve() != (HERE / "figures.json").resolve():
        (HERE / "figures.json").write_text(source.read_text("utf-8"), "utf-8")
    for readme, folder in ((HERE.parent / "README.md", "benchmarks/"), (HERE / "README.md", "")):
        told = f"![{summary(result)}]({folder}figures.svg)\n\n"
        told += (
            f"Measured on {result['date']}; [all figures]({folder}FIGURES.md), also of the goals that are not reached."
        )
        readme.write_text(put_between(readme.read_text("utf-8"), BLOCK, told), "utf-8")
    for note in result["notes"]:
        if note.startswith("OTHERS"):
            print(note, file=sys.stderr)
    for name in untold(result, prose):
        print(f"not reached, and FIGURES.md does not say why: {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
