"""Draws a run's figures.

    python benchmarks/plot.py RESULTS.json PICTURE.svg|png

Needs matplotlib (extra ``bench``). White ground and dark words, so that it is legible on dark pages, too; colours that
everybody can tell apart (Okabe and Ito), and each bar says its value.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from figures import panels

COLOURS = {"own": "#0072B2", "floor": "#999999", "other": "#E69F00"}
INK = "#222222"
COLUMNS = 3


def draw(result: Mapping[str, Any], target: Path) -> None:
    """
    Args:
        result: as ``run.py --json`` writes it.
        target: its suffix says the format.

    Raises:
        ValueError: nothing was measured that is drawn.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = panels(result)
    if not shown:
        raise ValueError("nothing was measured that is drawn: W1 at 16 connections, W2, W3 or W4 with 500")
    rows = -(-len(shown) // COLUMNS)
    # The salt and no date: the same figures make the same file.
    with mpl.rc_context({"svg.hashsalt": "imagegate", "font.size": 9, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(11, 0.6 + 2.5 * rows), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08, hspace=0.05)
        axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for axis, panel in zip(axes, shown, strict=False):
            names, values = [each.server for each in panel.bars], [each.value for each in panel.bars]
            bars = axis.barh(names, values, color=[COLOURS[each.kind] for each in panel.bars], height=0.68)
            axis.bar_label(bars, [each.label for each in panel.bars], padding=3, color=INK)
            axis.invert_yaxis()
            axis.set_xlim(0, max(values) * 1.18)
            axis.set_title(panel.title, loc="left", fontsize=10, fontweight="bold")
            axis.set_xlabel(panel.unit, loc="left")
            axis.tick_params(axis="y", length=0, colors=INK)
            axis.set_xticks([])
            axis.spines[["top", "right", "bottom"]].set_visible(False)
            axis.spines["left"].set_color("#bbbbbb")
        for axis in axes[len(shown) :]:
            axis.set_visible(False)
        figure.suptitle(f"Less is better. {result['machine']}, {result['date']}", x=0.01, ha="left", fontsize=9)
        figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None, dpi=110)


if __name__ == "__main__":
    _, source, target = sys.argv
    draw(json.loads(Path(source).read_text("utf-8")), Path(target))
