"""How a plot looks: figures on matplotlib's Agg canvas, without pyplot and its global state, the same bytes each time.

Colours are Okabe and Ito's, which colour-blind readers can tell apart (Okabe & Ito 2008, "Color universal design").
"""

from __future__ import annotations

import textwrap
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#B8B8B8", "#262626"
DPI = 110
NUMBERED = 12  # classes up to which a confusion matrix has its counts written in it
COLUMNS, LINES = 105, 3  # characters of a line, and lines, in which a text is shown
LINE_INCHES = 0.17  # height of such a line
DRAWN = 4000  # points that a scatter plot holds at most
_drawing = threading.Lock()  # matplotlib's fonts are not made for threads

Floats = NDArray[np.floating[Any]]


def figure(width: float, height: float, title: str) -> Figure:
    made = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    made.suptitle(title, fontsize=12, color=INK, x=0.01, ha="left")
    return made


def save(made: Figure, file: Path) -> Path:
    """As PNG, without the date and the software that would change its bytes."""
    with _drawing, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a text in a script that the font lacks is drawn as boxes
        made.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file


def plain(axes: Any, x: str, y: str) -> None:
    """Labels, a light grid, no box."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)


def spread(values: Floats, share: float = 0.98) -> tuple[float, float]:
    """Limits that hold this share of the values: the first epochs of a bad trial must not flatten the rest."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = np.quantile(finite, [1 - share, share])
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    return float(low - room), float(high + room)


def curves(
    axes: Any,
    rest: Sequence[Sequence[float]],
    best: Sequence[float],
    best_epoch: int,
    again: Sequence[Sequence[float]] = (),
) -> None:
    """Every trial's metric by epoch, the best trial's on top with its best epoch marked, and below it what came of the
    same configuration `again`, with other seeds."""
    for index, curve in enumerate(rest):
        label = f"{len(rest)} other trial{'s' if len(rest) > 1 else ''}" if index == 0 else None
        marker = "." if len(curve) == 1 else None
        axes.plot(range(1, len(curve) + 1), curve, color=GREY, linewidth=1, marker=marker, label=label)
    for index, curve in enumerate(again):
        label = f"the same, {len(again)} other seed{'s' if len(again) > 1 else ''}" if index == 0 else None
        axes.plot(range(1, len(curve) + 1), curve, color=BLUE, linewidth=1, alpha=0.5, label=label)
    axes.plot(range(1, len(best) + 1), best, color=BLUE, linewidth=2.2, label="best trial")
    if 1 <= best_epoch <= len(best):
        axes.plot(
            [best_epoch], [best[best_epoch - 1]], "o", color=BLUE, markersize=7, label=f"best: epoch {best_epoch}"
        )
    axes.set_ylim(*spread(np.array([value for curve in (*rest, *again, best) for value in curve])))


def epochs(axes: Any, y: str) -> None:
    """A plain plot over whole epochs, with a legend."""
    plain(axes, "epoch", y)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=9)


def confusion(made: Figure, counts_KK: NDArray[np.integer[Any]], classes: Sequence[str]) -> None:
    """Rows are the truth; shades are shares of a row, numbers are counts."""
    axes = made.add_subplot()
    share_KK = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1)
    shades = axes.imshow(share_KK, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(classes)) if len(classes) <= 30 else range(0, len(classes), len(classes) // 15)
    turned = 45 if len(classes) > 4 and max(len(classes[i]) for i in ticks) > 3 else 0
    axes.set_xticks(list(ticks), [classes[i] for i in ticks], rotation=turned, ha="right" if turned else "center")
    axes.set_yticks(list(ticks), [classes[i] for i in ticks])
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("actual", color=INK)
    if len(classes) <= NUMBERED:
        for (row, column), count in np.ndenumerate(counts_KK):
            ink = "white" if share_KK[row, column] > 0.5 else (INK if count else "#AAAAAA")
            axes.text(column, row, str(count), ha="center", va="center", fontsize=9, color=ink)
    made.colorbar(shades, ax=axes, fraction=0.045, label="share of the actual class")


def calibration(made: Figure, probability_N: Floats, positive_N: NDArray[np.bool_], name: str) -> None:
    """How often a row is positive among rows of like probability, over how many rows there are of each."""
    top, below = made.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    edges = np.linspace(0, 1, 11)
    bin_N = np.clip(np.digitize(probability_N, edges) - 1, 0, 9)
    count_B = np.bincount(bin_N, minlength=10)
    filled_B = count_B > 0
    mean_B = np.bincount(bin_N, probability_N, 10)[filled_B] / count_B[filled_B]
    share_B = np.bincount(bin_N, positive_N, 10)[filled_B] / count_B[filled_B]
    error = float(np.sum(np.abs(mean_B - share_B) * count_B[filled_B]) / len(probability_N))
    top.plot([0, 1], [0, 1], "--", color=GREY, label="perfect")
    top.plot(mean_B, share_B, color=BLUE, linewidth=1.5, label=f"model (expected error {error:.3f})")
    top.scatter(mean_B, share_B, s=25 + 250 * count_B[filled_B] / count_B.max(), color=BLUE)
    top.set_ylim(-0.03, 1.03)
    top.legend(frameon=False, loc="upper left")
    plain(top, "", f"share that is {name}")
    below.hist(probability_N, bins=edges.tolist(), color=BLUE)
    plain(below, f"probability of {name}", "rows")
    below.set_xlim(-0.03, 1.03)


def residuals(made: Figure, predicted_N: Floats, truth_N: Floats, unit: str) -> None:
    """Predicted against true on the left, the distribution of errors on the right."""
    left, right = made.subplots(1, 2)
    step = max(1, len(truth_N) // DRAWN)
    ends = [float(min(predicted_N.min(), truth_N.min())), float(max(predicted_N.max(), truth_N.max()))]
    left.plot(ends, ends, "--", color=GREY, label="perfect")
    left.plot(truth_N[::step], predicted_N[::step], ".", color=BLUE, alpha=0.5, markersize=5)
    left.legend(frameon=False, loc="upper left")
    plain(left, f"true {unit}", f"predicted {unit}")
    error_N = predicted_N - truth_N
    end = max(map(abs, spread(error_N, 0.995)))
    right.hist(np.clip(error_N, -end, end), bins=41, range=(-end, end), color=BLUE)
    right.axvline(0, color=INK, linewidth=1)
    plain(right, f"predicted minus true {unit}", "rows")


def histograms(made: Figure, groups: Mapping[str, Floats], x: str) -> None:
    """One histogram below the other, over the same bins."""
    every = np.concatenate(list(groups.values()))
    low, high = spread(every, 0.995)
    rows = np.atleast_1d(made.subplots(len(groups), 1, sharex=True))
    for axes, (name, values) in zip(rows, groups.items(), strict=True):
        axes.hist(np.clip(values, low, high), bins=50, range=(low, high), color=BLUE)
        axes.axvline(float(np.median(values)), color=ORANGE, linewidth=1.5)
        plain(axes, "", name)
        axes.yaxis.label.set(rotation=0, ha="right", va="center")
        axes.set_yticks([])
    rows[-1].set_xlabel(f"{x} (line: median)", color=INK)


def pictures(made: Figure, images: Sequence[Floats], captions: Sequence[str], columns: int) -> None:
    """A grid of images: height × width, or channels × height × width with 1, 3 or 4 channels."""
    axes, lines = made.add_subplot(), -(-len(images) // columns)  # one: a subplot for each image takes seconds
    axes.set_axis_off()
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        line, column = divmod(index, columns)
        left, top = 1.1 * column, -1.3 * line
        grey = image.ndim == 2 or len(image) == 1
        axes.imshow(_pixels(image), cmap="gray_r" if grey else None, extent=(left, left + 1, top - 1, top))
        axes.text(left + 0.5, top + 0.06, caption, ha="center", fontsize=8.5, color=INK)
    axes.set_xlim(-0.05, 1.1 * columns)
    axes.set_ylim(-1.3 * lines + 0.2, 0.3)


def texts(made: Figure, said: Sequence[Sequence[str]], captions: Sequence[str]) -> None:
    """Groups of texts, one below the other, each text in LINES lines at most (two, where it is not alone), each group
    under its caption. The figure becomes as high as they need."""
    most = LINES if all(len(group) == 1 for group in said) else 2
    groups = [[line for text in group for line in _lines(text, most)] for group in said]
    axes, top = made.add_subplot(), 0.0
    axes.set_axis_off()
    for lines, caption in zip(groups, captions, strict=True):
        # Without mathematics: a $ in a text is a dollar.
        axes.text(0, top, caption, fontsize=9, color=ORANGE, va="top", parse_math=False)
        axes.text(0, top - 1.1, "\n".join(lines), fontsize=9, color=INK, va="top", parse_math=False)
        top -= len(lines) + 1.8
    made.set_figheight(0.6 - LINE_INCHES * top)
    axes.set_xlim(0, 1)
    axes.set_ylim(min(top, -1), 0.5)


def _lines(text: str, most: int) -> list[str]:
    plain = "".join(c if c.isprintable() else " " for c in text)
    return textwrap.wrap(plain, COLUMNS, max_lines=most, placeholder=" …") or ["(nothing)"]


def strips(made: Figure, series: Sequence[Floats], captions: Sequence[str], columns: int) -> None:
    """A grid of series, channels × steps, each from its own smallest to its own largest value; a line a channel."""
    axes, lines = made.add_subplot(), -(-len(series) // columns)
    axes.set_axis_off()
    for index, (one, caption) in enumerate(zip(series, captions, strict=True)):
        line, column = divmod(index, columns)
        left, top = 1.1 * column, -1.3 * line
        across = np.linspace(left, left + 1, one.shape[1])
        finite = one[np.isfinite(one)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        heights = top - 1 + (one.astype(np.float64) - low) / ((high - low) or 1.0)
        for channel, height in enumerate(heights):
            axes.plot(across, height, linewidth=1, color=(BLUE, ORANGE, GREEN, GREY)[channel % 4])
        axes.text(left + 0.5, top + 0.06, caption, ha="center", fontsize=8.5, color=INK)
    axes.set_xlim(-0.05, 1.1 * columns)
    axes.set_ylim(-1.3 * lines + 0.2, 0.3)


def _pixels(image: Floats) -> Floats:
    pixels = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] not in (3, 4) else pixels
    low, high = float(pixels.min()), float(pixels.max())
    return (pixels.astype(np.float64) - low) / ((high - low) or 1.0)
