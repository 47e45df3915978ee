"""A sweep's storage: what was planned, what its trials have reached, and the mark that it is finished.

<storage>/sweep.json       whose storage it is, every configuration drawn, in order, and the seeds of replicas
<storage>/<key>/…          checkpoints of one trial
<storage>/lease.json       who works on it now
<storage>/finished.json    the trials, once all have ended
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import posixpath
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from .. import checkpoints, families
from ..contract import Hyper, Json, Objective
from ..errors import ParamsError, TidemillError, Unreachable
from ..sweep import FINISHED_FILE, PLANNED_FILE, Request, Trial
from . import configurations, lease
from .lease import Lease
from .ledger import Ledger


@dataclass(frozen=True)
class Archive:
    """The storage of one request."""

    request: Request

    @contextlib.contextmanager
    def opened(self, fresh: bool) -> Iterator[Lease]:
        """Hold the storage, once it is sure that it answers and belongs to this request; `fresh` empties it first.

        Raises Unreachable, Busy if somebody else works on it, or ParamsError if it holds another sweep.
        """
        if self.request.storage.startswith("memory:"):
            raise ParamsError("storage lives in one process alone", where=self.request.storage, fix="use a folder")
        with contextlib.ExitStack() as stack:
            with self._answering():
                mine = stack.enter_context(lease.held(self.request.storage))
                checkpoints.clear(self.request.storage)  # a driver may have died in the midst of finished.json
            self._open(fresh)
            yield mine

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except TidemillError:
            raise
        except Exception as error:  # whatever the storage's own client raises
            raise _unreachable(self.request.storage, error) from error

    def _open(self, fresh: bool) -> None:
        with self._answering():
            sweep = self._sweep()
            if fresh and sweep:
                self._empty(sweep)
                sweep = {}
            if not sweep:
                self.plan([])
        if sweep and sweep["request"] != self._identity():
            raise ParamsError(
                "the storage holds another sweep",
                where=self.request.storage,
                why="its family, settings, search, seed or data are not those asked for",
                fix="name another storage, or start afresh",
            )

    def plan(self, hypers: Sequence[Hyper], replicas: Sequence[tuple[Hyper, int]] = ()) -> None:
        """Note every configuration drawn so far, and which of them are learnt again with which seeds."""
        planned: dict[str, Json] = {"planned": [dict(hyper) for hyper in hypers], "request": self._identity()}
        if replicas:
            planned["replicas"] = [[dict(hyper), seed] for hyper, seed in replicas]
        checkpoints.write_json(self._at(PLANNED_FILE), planned)

    def restore(self, ledger: Ledger) -> None:
        """Put into the ledger what was planned, and what the trials' checkpoints say."""
        for hyper, seed in _noted(self._sweep()):
            self.recall(ledger, ledger.add(hyper, seed))

    def recall(self, ledger: Ledger, key: str) -> None:
        """Put into the ledger what a trial's last checkpoint says."""
        found = checkpoints.newest_record(self._at(key))
        if found is not None:
            place, record = found
            ledger.learn(key, 1, record["curve"])
            entry = ledger.trials[key]
            entry.best, entry.best_epoch, entry.checkpoint = record["best"], record["best_epoch"], place
            entry.seconds = record.get("seconds", 0.0)

    def finish(self, trials: Sequence[Trial]) -> None:
        """Mark the sweep as finished. Checkpoints are named relative to the storage, which may be moved."""
        rows = [trial.to_json() for trial in trials]
        for row in rows:
            row["checkpoint"] = row["checkpoint"] and posixpath.basename(row["checkpoint"])
        checkpoints.write_json(self._at(FINISHED_FILE), rows)

    def finished(self) -> list[Trial] | None:
        """The trials of a sweep that was finished, best first; None if it was not, or if its best weights are no
        longer whole: then what is damaged is removed, to be learnt again."""
        rows = checkpoints.read_json(self._at(FINISHED_FILE))
        if rows is None:
            return None
        keys = {configurations.key(hyper, seed) for hyper, seed in _noted(self._sweep())}
        if not (isinstance(rows, list) and rows and all(_told(row, keys) for row in rows)):
            checkpoints.remove(self._at(FINISHED_FILE))
            return None
        trials = [Trial(**row) for row in rows]
        trials = [dataclasses.replace(t, checkpoint=self._place(t)) for t in trials]
        try:
            checkpoints.read(trials[0].checkpoint)
        except checkpoints.Damaged:
            checkpoints.remove(trials[0].checkpoint)
            checkpoints.remove(self._at(FINISHED_FILE))
            return None
        return trials

    def _place(self, trial: Trial) -> str:
        return posixpath.join(self._at(trial.key), trial.checkpoint) if trial.checkpoint else ""

    def _sweep(self) -> dict[str, Json]:
        return checkpoints.read_json(self._at(PLANNED_FILE)) or {}

    def _empty(self, sweep: dict[str, Json]) -> None:
        checkpoints.remove(self._at(FINISHED_FILE))
        for hyper, seed in _noted(sweep):
            checkpoints.remove(self._at(configurations.key(hyper, seed)))
        checkpoints.remove(self._at(PLANNED_FILE))

    def _identity(self) -> Json:
        """What makes a request the same. The caller tells the data's bytes apart, by the storage's name."""
        request = self.request
        identity = {
            "family": families.import_path(request.family),
            "rows": {split: table.num_rows for split, table in sorted(request.data.splits.items())},
            "search": request.search.model_dump(mode="json"),
            "seed": request.seed,
            "settings": dict(request.settings),
            "spec": request.data.spec.to_json(),
            "threads": request.resources.cpus,
        }
        return json.loads(json.dumps(identity))  # as it is read back: JSON has no tuples

    def _at(self, *names: str) -> str:
        return posixpath.join(self.request.storage, *names)


def _noted(sweep: dict[str, Json]) -> list[tuple[Hyper, int | None]]:
    """(configuration, seed) of each trial that sweep.json names; a seed is a replica's."""
    return [*((hyper, None) for hyper in sweep.get("planned", [])), *((h, s) for h, s in sweep.get("replicas", []))]


def _told(row: Json, keys: Collection[str]) -> bool:
    """Whether a row of finished.json is a trial of the sweep, whose `keys` are those of what was planned: settings that
    population based training has moved have another hash. Others may write to the storage, and what is named there is
    read and, if damaged, removed: so a trial is named by its key and a checkpoint by its epoch, and neither by a path.
    """
    names = {field.name for field in dataclasses.fields(Trial)}
    if not isinstance(row, dict) or {*row, "seed"} != names or not isinstance(row["hyper"], dict):
        return False
    if type(row.get("seed")) not in (int, type(None)):
        return False
    return row["key"] in keys and (row["checkpoint"] == "" or checkpoints.is_name(row["checkpoint"]))


def _unreachable(storage: str, error: Exception) -> Unreachable:
    why = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
    return Unreachable(
        "the storage for checkpoints does not answer", where=storage, why=why, fix="see TIDEMILL_STORAGE"
    )


def ranked(trials: Sequence[Trial], objective: Objective) -> list[Trial]:
    """The search's best first, ties by key; what failed or never had a finite value comes last. Then replicas, by
    their seeds, since these are not ranked at all."""

    def order(trial: Trial) -> tuple[bool, int, bool, float, str]:
        again = trial.seed is not None
        return again, trial.seed or 0, trial.status == "failed", objective.key(trial.best), trial.key

    return sorted(trials, key=order)
