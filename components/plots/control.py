"""What a policy looks like: returns over the steps that they took to learn, returns of the test episodes, and a
filmstrip of the first of them where its environment can draw without a screen.

Beside the best trial's learning curve stand median and range over the seeds that its configuration was learnt with, if
there are two; else those over the search's trials, which are other configurations. Both where two are at least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import environments
from ..contract import Column
from ..sweep import Trial, same_again, searched
from ..workspace import exported
from . import figures

if TYPE_CHECKING:
    from . import Seen

Floats = NDArray[np.floating[Any]]
STEPS = "train/steps"  # of the environment, from a trial's beginning to an epoch's end
FRAMES, ACROSS = 12, 4
# Drawing libraries are told that there is no screen, no loudspeaker, and nobody to greet.
UNSEEN = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}


def draw(folder: Path, seen: Seen) -> list[tuple[str, list[list[Any]]]]:
    """Write the pictures; returns the tables behind them, by name. What cannot be drawn is said in episode.txt."""
    if not seen.spec.environment:
        return []
    tables = [("steps.csv", _steps(folder, seen)), ("returns.csv", _returns(folder, seen))]
    try:
        frames, captions, title = _filmed(seen)
    except Exception as error:  # whatever a drawing library does without a screen: said, and no reason to lose a model
        said = " ".join(str(error).split()) or type(error).__name__
        (folder / "episode.txt").write_text(
            f"No picture of an episode: environment {seen.spec.environment!r} cannot be drawn here ({said}).\n",
            encoding="utf-8",
        )
        return tables
    made = figures.figure(9.6, 1.0 + 2.4 * -(-len(frames) // ACROSS), f"{seen.title}: {title}")
    figures.pictures(made, frames, captions, ACROSS)
    figures.save(made, folder / "episode.png")
    return tables


# ── over steps ──────────────────────────────────────────────────────────────────────────────────────────


def _steps(folder: Path, seen: Seen) -> list[list[Any]]:
    """By number, the best trial's first: the seeds, or the trials."""
    metric, what = f"val/{seen.objective.metric}", "seed"
    curves = _curves(same_again(seen.trials[0], seen.trials), metric)
    if len(curves) < 2:
        what, curves = "trial", _curves(searched(seen.trials), metric)
    if curves:
        made = figures.figure(7.2, 4.4, f"{seen.title}: {metric} by steps in the environment, {len(curves)} {what}s")
        axes = made.add_subplot()
        if (band := spread(curves)) is not None:
            step_P, low_P, median_P, high_P = band
            label = f"range of {what}s"
            axes.fill_between(step_P, low_P, high_P, color=figures.GREY, alpha=0.4, linewidth=0, label=label)
            axes.plot(step_P, median_P, color=figures.INK, linewidth=1.2, linestyle="--", label=f"median of {what}s")
        axes.plot(*curves[0].T, color=figures.BLUE, linewidth=2.2, marker=".", label="best trial")
        figures.plain(axes, "steps in the environment", metric)
        axes.legend(frameon=False, fontsize=9)
        figures.save(made, folder / "steps.png")
    rows = [[number, int(step), value] for number, curve in enumerate(curves, 1) for step, value in curve]
    return [[what, "step", metric], *rows]


def _curves(trials: Sequence[Trial], metric: str) -> list[Floats]:
    return [curve for trial in trials if len(curve := _curve(trial, metric))]


def _curve(trial: Trial, metric: str) -> Floats:
    """(steps, value) of each epoch that tells both."""
    told = [(m[STEPS], m[metric]) for m in trial.curve if {STEPS, metric} <= m.keys()]
    return np.array([pair for pair in told if np.isfinite(pair).all()], np.float64).reshape(-1, 2)


def spread(curves: Sequence[Floats]) -> tuple[Floats, Floats, Floats, Floats] | None:
    """Steps, and lowest, median and highest value there, where two curves are at least; between its epochs a curve is a
    straight line. None if no two ever are."""
    step_P = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
    value_CP = np.stack([np.interp(step_P, curve[:, 0], curve[:, 1], np.nan, np.nan) for curve in curves])
    there_P = np.isfinite(value_CP).sum(0) >= 2
    if not there_P.any():
        return None
    value_CP = value_CP[:, there_P]
    low_P, median_P, high_P = (made(value_CP, axis=0) for made in (np.nanmin, np.nanmedian, np.nanmax))
    return step_P[there_P], low_P, median_P, high_P


def _returns(folder: Path, seen: Seen) -> list[list[Any]]:
    return_N = np.asarray(seen.model.judge({"test": seen.rows}, "test")["return"], np.float64)
    mean, deviation = float(return_N.mean()), float(return_N.std())
    made = figures.figure(
        7.2, 4.0, f"{seen.title}: returns of {len(return_N)} test episodes, {mean:.4g} ± {deviation:.3g}"
    )
    axes = made.add_subplot()
    low, high = figures.spread(return_N, 1.0)
    axes.hist(return_N, bins=30, range=(low, high), color=figures.BLUE)
    axes.axvline(mean, color=figures.ORANGE, linewidth=1.5, label="mean")
    figures.plain(axes, "return", "episodes")
    axes.legend(frameon=False, fontsize=9)
    figures.save(made, folder / "returns.png")
    return [["episode", "return"], *([number, float(value)] for number, value in enumerate(return_N))]


# ── one episode ─────────────────────────────────────────────────────────────────────────────────────────


def _filmed(seen: Seen) -> tuple[list[Floats], list[str], str]:
    """Pictures of the first test episode, the words below each, and a title. It is played twice: how long it is, and
    so which steps are drawn, is known in the end only. Raises whatever the environment's way of drawing raises."""
    rewards = [reward for reward, _ in _episode(seen, None)]
    wanted = np.unique(np.linspace(0, len(rewards), FRAMES).round().astype(int)).tolist()
    with exported(UNSEEN):
        played = _episode(seen, wanted)
        frames = [_square(np.asarray(frame)) for _, frame in played if frame is not None]
    sums = np.cumsum([0.0, *rewards])
    captions = [f"step {step}, return {sums[step]:.4g}" for step in wanted]
    if len(frames) != len(wanted):
        raise ValueError("it draws nothing")
    return frames, captions, f"the first test episode, return {sums[-1]:.4g} after {len(rewards)} steps"


def _square(frame_HWC: Floats) -> Floats:
    """Channels first, as figures draw them, and white at two sides, so that nothing is squeezed."""
    side = max(frame_HWC.shape[:2])
    room = [((side - size) // 2, side - size - (side - size) // 2) for size in frame_HWC.shape[:2]]
    return np.pad(frame_HWC, (*room, (0, 0)), constant_values=255).transpose(2, 0, 1)


def _episode(seen: Seen, drawn: Sequence[int] | None) -> Iterator[tuple[float, Any]]:
    """Each step's reward, and the picture where it is to be `drawn`; the picture before the first step comes with the
    reward of the first."""
    column = environments.observation_column(seen.spec)
    world = environments.opened(seen.spec, None if drawn is None else "rgb_array")
    try:
        shown, _ = world.reset(seed=seen.spec.evaluation["test"][0])
        frame = world.render() if drawn is not None and 0 in drawn else None
        step, ended = 0, False
        while not ended:
            shown, reward, terminated, truncated, _ = world.step(_action(seen, column, shown, world.action_space))
            step, ended = step + 1, bool(terminated or truncated)
            if frame is not None:
                yield 0.0, frame
            frame = None
            yield float(reward), world.render() if drawn is not None and step in drawn else None
    finally:
        world.close()


def _action(seen: Seen, column: Column, shown: Any, space: Any) -> Any:
    """What the model's own output `action` says to one observation, as the environment takes it."""
    x_1O = np.asarray(shown, column.dtype or np.float32).reshape(1, *column.shape)
    rows = pa.record_batch({column.name: pa.FixedShapeTensorArray.from_numpy_ndarray(x_1O)})
    scored = seen.model.score(rows).column("action")
    if isinstance(scored, pa.FixedShapeTensorArray):
        return scored.to_numpy_ndarray()[0].astype(space.dtype)
    said = scored[0].as_py()
    return said if isinstance(said, int) else np.asarray(said, space.dtype).reshape(space.shape)
