"""Rows that do not fit go aside with their reason, the rest is scored, and the counts add up; rows that are unlike the
training rows are told beside the scores, or block them."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import intake, scoring
from components.contract import Column, Spec
from components.errors import BadInput, Drifted, TidemillError
from components.profile import measure
from components.scoring import Scored, score
from components.scoring.drift import Terms

from .test_scoring import BAD, HEADER, JOB, ONE_THREAD, REPOSITORY, SPEC, Gauge, files, level, rows, text, write

ASIDE = dataclasses.replace(JOB, quarantine=0.5)


def aside(file: Path) -> list[dict[str, Any]]:
    return pq.read_table(file).to_pylist() if file.exists() else []  # type: ignore[no-any-return]


def adds_up(scored: Scored, output: Path) -> None:
    """Whatever is asked, the answer is the same: by the result, the receipt and the files themselves."""
    told = json.loads(scored.receipt.read_text())
    assert scored.rows_in == scored.rows + scored.quarantined
    assert [told[name] for name in ("rows_in", "rows", "quarantined")] == [
        scored.rows_in,
        scored.rows,
        scored.quarantined,
    ]
    folder = output.is_dir()
    assert pq.read_table(output).num_rows == scored.rows
    place = output / "_quarantine" if folder else output.with_name(f"{output.name}.quarantine.parquet")
    found = list(place.rglob("*.parquet")) if folder else [place] if place.exists() else []
    assert sum(pq.read_metadata(file).num_rows for file in found) == scored.quarantined
    assert sum(part["quarantined"] for part in told["files"].values()) == scored.quarantined


LINES = [f"s{i},{i / 2},x,2024-05-{i + 1:02}" for i in range(12)]


def faulty(file: Path, lines: list[str] | None = None) -> Path:
    """Rows 2, 5, 7 and 11 do not fit: a word, a short line, two faults at once, a long line."""
    lines = lines or [
        *LINES[:2],
        "s2,tall,x,2024-05-03",
        *LINES[3:5],
        "s5,1",
        LINES[6],
        "s7,small,x,soon",
        *LINES[8:11],
        "s11,1,x,2024-05-12,more",
    ]
    text(HEADER + "\n".join(lines) + "\n")(file)
    return file


# ── counts ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("batch_rows", [3, 4, 1000])
def test_a_csv_gives_its_good_rows_and_says_why_of_the_others(tmp_path: Path, batch_rows: int) -> None:
    output = tmp_path / "out" / "scores.parquet"
    scored = score(Gauge(), faulty(tmp_path / "in.csv"), output, dataclasses.replace(ASIDE, batch_rows=batch_rows))
    assert (scored.rows_in, scored.rows, scored.quarantined) == (12, 8, 4)
    adds_up(scored, output)
    assert pq.read_table(output)["station"].to_pylist() == [f"s{i}" for i in (0, 1, 3, 4, 6, 8, 9, 10)]
    found = aside(output.with_name("scores.parquet.quarantine.parquet"))
    assert [(r["row"], r["id"], r["column"], r["value"]) for r in found] == [
        (2, "s2", "height", "tall"),
        (5, None, None, None),
        (7, "s7", "height", "small"),
        (11, None, None, None),
    ]
    assert found[0]["reason"] == "column 'height': got 'tall', expected a number"
    assert "'height': got 'small'" in found[2]["reason"] and "'day': got 'soon', expected a date" in found[2]["reason"]
    assert found[1]["reason"] == "expected 4 values in the line, got 2" and found[1]["raw"] == "s5,1"
    assert json.loads(found[0]["raw"])["station"] == "s2"


def test_good_rows_get_the_scores_that_they_get_alone(tmp_path: Path) -> None:
    good = [LINES[i] for i in (0, 1, 3, 4, 6, 8, 9, 10)]
    score(Gauge(), faulty(tmp_path / "all.csv"), tmp_path / "all.parquet", ASIDE)
    score(Gauge(), faulty(tmp_path / "good.csv", good), tmp_path / "good.parquet", ASIDE)
    assert pq.read_table(tmp_path / "all.parquet") == pq.read_table(tmp_path / "good.parquet")


def test_rows_without_an_id_keep_their_numbers(tmp_path: Path) -> None:
    source, output = faulty(tmp_path / "in.csv"), tmp_path / "scores.parquet"
    score(Gauge(), source, output, dataclasses.replace(ASIDE, id="row"))
    assert pq.read_table(output)["row"].to_pylist() == [0, 1, 3, 4, 6, 8, 9, 10]
    assert [r["id"] for r in aside(tmp_path / "scores.parquet.quarantine.parquet")] == [None] * 4


def test_a_parquet_file_too(tmp_path: Path) -> None:
    table = rows(20)
    heights = [None if v is None else str(v) for v in table["height"].to_pylist()]
    heights[3], heights[18] = "tall", "small"
    table = table.set_column(table.schema.get_field_index("height"), "height", pa.array(heights))
    output = tmp_path / "scores.parquet"
    scored = score(Gauge(), write(tmp_path / "in.parquet", table), output, ASIDE)
    assert (scored.rows_in, scored.rows, scored.quarantined) == (20, 18, 2)
    adds_up(scored, output)
    good = rows(20).filter(pa.array([i not in (3, 18) for i in range(20)]))
    assert pq.read_table(output)["level"].to_pylist() == level(good).to_pylist()
    assert [r["id"] for r in aside(scored.quarantine or Path())] == ["s3", "s18"]


IMAGES = Spec("d", "regression", (Column("image", "tensor", "float32", (2, 2)),))


class Brightness(Gauge):
    """Refuses what is not finite, as families do."""

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        pixels = batch["image"].to_numpy_ndarray()
        if not np.isfinite(pixels).all():
            raise BadInput("pixels that are not finite")
        return pa.record_batch([pa.array(pixels.sum(axis=(1, 2)).astype(np.float64))], schema=self.outputs())


def test_tensors_and_rows_that_the_model_itself_refuses(tmp_path: Path) -> None:
    images: list[Any] = [[float(i)] * 4 for i in range(10)]
    images[2], images[4], images[9] = [1.0, 2.0], None, [0.0, float("nan"), 0.0, 0.0]
    source, output = write(tmp_path / "in.parquet", pa.table({"image": pa.array(images)})), tmp_path / "scores.parquet"
    scored = score(Brightness(IMAGES), source, output, ASIDE)
    adds_up(scored, output)
    found = aside(scored.quarantine or Path())
    assert [(r["row"], r["column"]) for r in found] == [(2, "image"), (4, "image"), (9, None)]
    assert [r["value"] for r in found] == ["[1.0, 2.0]", None, None]
    assert found[2]["reason"] == "pixels that are not finite"
    assert pq.read_table(output)["row"].to_pylist() == [0, 1, 3, 5, 6, 7, 8]
    with pytest.raises(BadInput, match="not finite"):
        images[2] = images[4] = [0.0] * 4
        write(source, pa.table({"image": pa.array(images)}))
        score(Brightness(IMAGES), source, output, JOB)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "in"
    faulty(place / "a.csv")
    write(place / "b.parquet", rows(9))
    (place / "more").mkdir()
    faulty(place / "more" / "c.csv")
    return place


def test_a_folder_has_a_quarantine_beside(tmp_path: Path, folder: Path) -> None:
    output = tmp_path / "out"
    scored = score(Gauge(), folder, output, ASIDE)
    assert (scored.rows_in, scored.rows, scored.quarantined) == (33, 25, 8)
    adds_up(scored, output)
    assert sorted(files(output)) == [
        "_quarantine/a.csv.parquet",
        "_quarantine/more/c.csv.parquet",
        "_receipt.json",
        "a.csv.parquet",
        "b.parquet",
        "more/c.csv.parquet",
    ]
    again, before = score(Gauge(), folder, output, ASIDE), files(output)
    assert (again.unchanged, again.kept, again.quarantined) == (True, 3, 8)
    faulty(folder / "a.csv", LINES)
    mended = score(Gauge(), folder, output, ASIDE)
    assert (mended.rows_in, mended.quarantined, mended.kept) == (33, 4, 2)
    adds_up(mended, output)
    assert "_quarantine/a.csv.parquet" not in files(output) and len(before) == 6


@pytest.mark.parametrize("harm", ["gone", "altered"])
def test_a_quarantine_that_was_tampered_with_is_made_again(tmp_path: Path, folder: Path, harm: str) -> None:
    score(Gauge(), folder, tmp_path / "out", ASIDE)
    left = files(tmp_path / "out")
    harmed = tmp_path / "out" / "_quarantine" / "a.csv.parquet"
    if harm == "gone":
        harmed.unlink()
    else:
        harmed.write_bytes(harmed.read_bytes()[:20] + b"x" + harmed.read_bytes()[21:])
    scored = score(Gauge(), folder, tmp_path / "out", ASIDE)
    assert (scored.unchanged, scored.kept, files(tmp_path / "out")) == (False, 2, left)


CHILD = """
import sys, time
from pathlib import Path
from components.scoring import score
from tests.components.test_quarantine import ASIDE
from tests.components.test_scoring import Gauge
def wait(done):
    if done == int(sys.argv[3]):
        print("waiting", flush=True)
        time.sleep(60)
score(Gauge(before=wait), Path(sys.argv[1]), Path(sys.argv[2]), ASIDE)
"""


def test_killed_between_files_it_goes_on_and_the_counts_add_up(tmp_path: Path, folder: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(folder), str(tmp_path / "out"), "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, env=ONE_THREAD, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "waiting\n"
        deadline = time.monotonic() + 10
        while not list((tmp_path / "out").rglob("*b.parquet*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    left = [name for name in files(tmp_path / "out") if not name.endswith(".tmp")]
    assert left == [".a.csv.parquet.whole", "_quarantine/.a.csv.parquet.whole"], "nothing is delivered"
    scored = score(Gauge(), folder, tmp_path / "out", ASIDE)
    assert (scored.rows_in, scored.quarantined, scored.kept) == (33, 8, 1)
    adds_up(scored, tmp_path / "out")
    score(Gauge(), folder, tmp_path / "whole", ASIDE)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_what_a_run_that_died_has_left_of_another_model_is_not_delivered(tmp_path: Path, folder: Path) -> None:
    def fail(done: int) -> None:
        if done == 3:
            raise ZeroDivisionError

    score(Gauge(), folder, tmp_path / "out", ASIDE)
    before = files(tmp_path / "out")
    with pytest.raises(ZeroDivisionError):
        score(Gauge(before=fail), folder, tmp_path / "out", dataclasses.replace(ASIDE, model_version="8"))
    assert len(files(tmp_path / "out")) > len(before), "a whole file of the new model waits"
    scored = score(Gauge(), folder, tmp_path / "out", ASIDE)
    assert (scored.kept, files(tmp_path / "out")) == (3, before)


# ── too many, or not rows at all ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("whole", [True, False])
def test_over_the_share_all_is_refused_and_what_stood_there_stands(tmp_path: Path, folder: Path, whole: bool) -> None:
    source = folder if whole else folder / "a.csv"
    output = tmp_path / "out" if whole else tmp_path / "out.parquet"
    shares = dataclasses.replace(ASIDE, quarantine=0.2)
    score(Gauge(), source, output, dataclasses.replace(ASIDE, model_version="6"))
    before = files(output) if whole else output.read_bytes()
    with pytest.raises(BadInput) as raised:
        score(Gauge(), source, output, shares)
    message = str(raised.value)
    assert ("8 of 33 rows" if whole else "4 of 12 rows") in message
    assert "row 2 of a.csv" in message and "got 'tall', expected a number" in message and "quarantine" in message
    assert (files(output) if whole else output.read_bytes()) == before
    assert not list(tmp_path.rglob(".*.whole"))
    assert score(Gauge(), source, output, dataclasses.replace(shares, quarantine=0.34)).quarantined


@pytest.mark.parametrize("fault", [name for name in BAD if name not in ("a short line",)])
def test_what_is_wrong_with_the_whole_input_is_still_refused(tmp_path: Path, fault: str) -> None:
    name, make, _ = BAD[fault]
    make(tmp_path / name)
    output = tmp_path / "out" / "scores.parquet"
    with pytest.raises(BadInput):
        score(Gauge(), tmp_path / name, output, dataclasses.replace(ASIDE, quarantine=0.05))
    assert not output.parent.exists() or files(output.parent) == {}


def test_nearly_everything_may_go_aside_if_that_is_allowed(tmp_path: Path) -> None:
    lines = [f"s{i},tall{i},x,2024-05-01" for i in range(50)]
    output = tmp_path / "scores.parquet"
    scored = score(Gauge(), faulty(tmp_path / "in.csv", lines), output, dataclasses.replace(ASIDE, quarantine=1.0))
    assert (scored.rows_in, scored.rows, scored.quarantined) == (50, 0, 50)
    adds_up(scored, output)


def test_counts_that_do_not_add_up_are_never_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Losing(intake.Table):
        def batches(self, rows: int) -> Any:
            for piece in super().batches(rows):
                yield dataclasses.replace(piece, ids=piece.ids.slice(1), inputs=piece.inputs.slice(1))

    opened = scoring.intake.open_file
    monkeypatch.setattr(scoring.intake, "open_file", lambda *given: Losing(**vars(opened(*given))))
    for name in ("in.csv", "in.parquet"):
        with pytest.raises(TidemillError, match="does not add up"):
            score(Gauge(), write(tmp_path / name, rows()), tmp_path / "out" / "scores.parquet", ASIDE)
    assert files(tmp_path / "out") == {}


# ── drift ───────────────────────────────────────────────────────────────────────────────────────────────


def known(count: int = 400) -> Gauge:
    """A model with a profile of rows like `rows` makes them."""
    gauge = Gauge()
    gauge.profile = measure(gauge, rows(count).select([c.name for c in SPEC.columns]))
    return gauge


WARN = dataclasses.replace(ASIDE, drift=Terms())
BLOCK = dataclasses.replace(ASIDE, drift=Terms(block=True))


def shifted(count: int = 400) -> pa.Table:
    table = rows(count)
    heights = [None if v is None else v + 300 for v in table["height"].to_pylist()]
    return table.set_column(table.schema.get_field_index("height"), "height", pa.array(heights, pa.float64()))


@pytest.mark.parametrize("name", ["in.parquet", "in.csv"])
def test_what_drifts_is_told_beside_the_scores(tmp_path: Path, name: str) -> None:
    output = tmp_path / "out" / "scores.parquet"
    same = score(known(), write(tmp_path / name, rows(400)), output, WARN)
    assert same.drift["drifting"] == [] and same.drift["rows_compared"] == 400
    scored = score(known(), write(tmp_path / name, shifted()), output, WARN)
    told = json.loads((output.parent / "scores.parquet.drift.json").read_text())
    assert told == scored.drift
    assert told["drifting"] == ["height"] and (told["rows_in"], told["quarantined"]) == (400, 0)
    assert score(known(), tmp_path / name, output, WARN).unchanged
    (output.parent / "scores.parquet.drift.json").unlink()
    again = score(known(), tmp_path / name, output, WARN)
    assert (again.unchanged, again.kept, again.drift) == (False, 1, told)


def test_without_a_profile_or_a_wish_nothing_is_compared(tmp_path: Path) -> None:
    output, source = tmp_path / "out" / "scores.parquet", write(tmp_path / "in.parquet", shifted())
    score(known(), source, output, WARN)
    for model, job in ((Gauge(), WARN), (known(), ASIDE)):
        scored = score(model, source, output, job)
        assert scored.drift is None
        assert sorted(files(output.parent)) == ["scores.parquet", "scores.parquet.receipt.json"]


def test_a_folder_is_compared_as_one_and_kept_files_count(tmp_path: Path) -> None:
    for i, table in enumerate([rows(200), rows(200, 200), shifted()]):
        write(tmp_path / "in" / f"{i}.parquet", table)
    first = score(known(), tmp_path / "in", tmp_path / "out", WARN)
    assert first.drift["drifting"] == ["height"] and first.drift["rows_compared"] == 800
    (tmp_path / "out" / "2.parquet").unlink()
    again = score(known(), tmp_path / "in", tmp_path / "out", WARN)
    assert (again.kept, again.drift) == (2, first.drift)


@pytest.mark.parametrize("whole", [True, False])
def test_blocked_nothing_is_delivered_and_what_stood_there_stands(tmp_path: Path, whole: bool) -> None:
    file, model = tmp_path / "in" / "a.parquet", known()
    source, output = (file.parent, tmp_path / "out") if whole else (file, tmp_path / "out" / "scores.parquet")
    write(file, rows(400))
    score(model, source, output, BLOCK)
    before = files(tmp_path / "out")
    write(file, shifted())
    with pytest.raises(Drifted) as raised:
        score(model, source, output, BLOCK)
    assert "height (PSI " in str(raised.value) and raised.value.exit_code == 3
    left = files(tmp_path / "out")
    name = "_blocked.json" if whole else "scores.parquet.blocked.json"
    assert name in str(raised.value)
    assert json.loads(left.pop(name))["drifting"] == ["height"]
    assert left == before
    scored = score(model, source, output, dataclasses.replace(BLOCK, drift=Terms()))
    assert scored.drift["drifting"] == ["height"]
    assert name not in files(tmp_path / "out"), "it is delivered now"
