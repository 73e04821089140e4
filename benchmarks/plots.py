"""Plots as SVG: the median of each point, with its quartiles as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from benchmarks.figures import Curve, Plot

_INCHES: Final = (8.0, 5.0)
_MARKERS: Final = "osD^vPX*"
_MANY: Final = 40
"""A curve of more points is drawn as a line alone."""


def draw(plots: Sequence[Plot], folder: Path, about: str) -> list[Path]:
    """Write each plot as `NAME.svg`, and return where.

    Args:
        plots: what to draw.
        folder: made if it is not there.
        about: stands under each, with its settings: the machine, and the no-op of the run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    # Text stays text, which is small and can be searched; and the same plot makes the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "licet", "font.size": 10.0}):
        for plot in plots:
            canvas = Canvas(figsize=_INCHES, layout="constrained")
            _axes(canvas.add_subplot(), plot)
            notes = "\n".join(filter(None, (plot.settings, about)))
            canvas.supxlabel(notes, fontsize=7.5, color="dimgray")
            path = folder / f"{plot.name}.svg"
            canvas.savefig(path, metadata={"Date": None})
            written.append(path)
    return written


def _axes(axes: Axes, plot: Plot) -> None:
    for number, curve in enumerate(plot.curves):
        _curve(axes, curve, _MARKERS[number % len(_MARKERS)])
    axes.set_title(plot.title)
    axes.set_xlabel(plot.across)
    axes.set_ylabel(plot.up)
    if plot.is_log_across:
        axes.set_xscale("log")
    if plot.is_log_up:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()


def _curve(axes: Axes, curve: Curve, marker: str) -> None:
    across = [point.at for point in curve.points]
    middle = [point.value.middle for point in curve.points]
    if len(curve.points) > _MANY:
        axes.plot(across, middle, label=curve.name)
        return
    below = [point.value.middle - point.value.low for point in curve.points]
    above = [point.value.high - point.value.middle for point in curve.points]
    axes.errorbar(
        across,
        middle,
        yerr=(below, above),
        label=curve.name,
        marker=marker,
        capsize=3,
        markersize=5,
    )
