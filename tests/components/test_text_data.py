"""Text from a user's table to its scores: what is asked for is learnt from, and what is wrong with a text is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import datasets, families, letters, model
from components.contract import SPLITS, Data, Spec
from components.datasets import parquet, promises
from components.errors import BadInput, DataError, ParamsError
from components.expectations import Expectations
from components.model import Model
from components.params import DatasetBlock
from components.profile import Tally, measure
from components.scoring import score
from components.scoring.drift import Terms, compare
from components.validation import Failure, validate
from components.workspace import Workspace

from .cases import one_thread, reviews  # noqa: F401
from .test_scoring import JOB

SAID = reviews("classification", 500)
WHOLE = pa.concat_tables(SAID.splits.values())
ASIDE = dataclasses.replace(JOB, quarantine=0.9)


class Project:
    """A workspace with one table of reviews."""

    def __init__(self, root: Path, columns: dict[str, Sequence[Any]] | None = None, **block: Any) -> None:
        self.workspace, self.root = Workspace(root), root
        table = columns or {
            "id": range(len(WHOLE)),
            "review": WHOLE["text"].to_pylist(),
            "author": [f"a{i % 7}" for i in range(len(WHOLE))],
            "stars": [i % 5 for i in range(len(WHOLE))],
            "verdict": WHOLE["target"].to_pylist(),
        }
        pd.DataFrame(dict(table)).to_csv(root / "reviews.csv", index=False)
        self.block = DatasetBlock(table="reviews.csv", target="verdict", **{"text": "review", **block})

    def promised(self) -> Expectations:
        return datasets.expectations(self.workspace, "mine", self.block)

    def load(self) -> Data:
        recipe = datasets.recipe(self.workspace, "mine", self.block, lambda _: None)
        self.workspace.data("mine").parent.mkdir(exist_ok=True)
        parquet.write(recipe.build(), self.workspace.data("mine"), recipe.note)
        promised = self.promised()
        return datasets.load(self.workspace, "mine", promised, promised.tasks()[0])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("project"))
    made.load()
    return made


@pytest.fixture(scope="module")
def champion(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A net for the project's reviews, with its profile."""
    data, folder = project.load(), tmp_path_factory.mktemp("model")
    hyper = {"embedding": 8, "width": 6, "lr": 1e-2, "batch_rows": 32}
    epoch = next(families.family("rnn").fit(data, hyper, 0, None))
    model.save(folder, families.import_path("rnn"), data.spec, hyper, epoch.state())
    model.keep_profile(folder, measure(model.load(folder), data.splits["train"]))
    return model.load(folder)


# ── a user's table ──────────────────────────────────────────────────────────────────────────────────────


def test_a_text_that_is_named_is_the_only_input(project: Project) -> None:
    rules = project.promised().columns
    assert {name: (rule.role, rule.kind) for name, rule in rules.items()} == {
        "id": ("id", "number"),
        "review": ("input", "text"),
        "author": ("ignored", "text"),
        "stars": ("ignored", "number"),
        "verdict": ("target", "category"),
    }
    longest = max(len(t) for t in project.load().splits["train"]["review"].to_pylist())
    assert longest < rules["review"].longest < 12 * longest
    assert (rules["review"].damaged, rules["review"].foreign) == (0.05, 0.05) and rules["review"].unknown < 0.2
    (column,) = project.promised().spec("mine", "classification").columns
    assert (column.name, column.kind, column.longest) == ("review", "text", rules["review"].longest)
    said = project.workspace.expectations("mine").read_text()
    assert "not learnt from, since params.yaml names the text 'review'" in said and "longest: " in said


def test_text_that_nobody_asked_for_is_ignored_with_the_way_to_learn_from_it(tmp_path: Path) -> None:
    project = Project(tmp_path, text=None)
    assert project.promised().columns["review"].role == "ignored"
    assert [c.name for c in project.promised().spec("mine", "classification").columns] == ["author", "stars"]
    said = project.workspace.expectations("mine").read_text()
    assert "free text: kept, not learnt from; to learn from it alone: `text: COLUMN` in params.yaml" in said


def test_an_edited_role_is_enough_to_learn_from_a_text(tmp_path: Path) -> None:
    project = Project(tmp_path, text=None)
    promised = project.promised()
    rules = dict(promised.columns) | {"review": promised.columns["review"].model_copy(update={"role": "input"})}
    promises.write(project.workspace.expectations("mine"), promised.model_copy(update={"columns": rules}), {})
    data = project.load()
    assert {c.name: c.kind for c in data.spec.columns} == {"review": "text", "author": "category", "stars": "category"}
    assert next(c.longest for c in data.spec.columns if c.name == "review") == 1_000_000


def test_texts_are_kept_as_they_are_but_for_the_spaces_around_them(tmp_path: Path) -> None:
    texts = ["  True ", "12.0", "NO!\nreally", "", "n/a", *[f"review number {i}" for i in range(95)]]
    project = Project(tmp_path, {"review": texts, "verdict": ["a", "b"] * 50})
    project.load()
    built = parquet.read(project.workspace.data("mine"))["review"].to_pylist()
    assert built[:5] == ["True", "12.0", "NO!\nreally", None, None]
    assert project.promised().columns["review"].missing > 0.05


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ({"text": "stars"}, r"reviews\.csv stars: the text column is int64|the text column is a number"),
        ({"text": "reveiw"}, r"datasets\.mine\.text: no column 'reveiw'(.|\n)*did you mean 'review'\?"),
    ],
)
def test_a_text_that_is_none_is_refused(tmp_path: Path, block: dict[str, str], fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        Project(tmp_path, **block).promised()


def test_a_text_named_later_must_agree_with_the_file(tmp_path: Path) -> None:
    Project(tmp_path, text=None).promised()
    with pytest.raises(ParamsError, match=r"'review' is input, expectations/mine\.yaml says ignored(.|\n)*delete"):
        Project(tmp_path).promised()


def test_texts_that_are_nearly_the_same_fall_into_one_split(tmp_path: Path) -> None:
    texts = [f"Snippet no {i // 2}{'!' * (i % 2)}" for i in range(400)]
    data = Project(tmp_path, {"review": texts, "verdict": ["a", "a", "b", "b"] * 100}).load()
    seen = [set(letters.bare(data.splits[split]["review"].to_pylist())) for split in SPLITS]
    assert all(seen) and not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_a_length_is_of_texts_alone(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    said = project.workspace.expectations("mine").read_text()
    file.write_text(said.replace("  stars:\n", "  stars:\n    longest: 5\n"))
    with pytest.raises(
        ParamsError, match=r"columns\.stars\.longest: got a length for a number, expected one of a text"
    ):
        promises.read(file)


# ── validation ──────────────────────────────────────────────────────────────────────────────────────────


def failures(project: Project, tmp_path: Path, at: dict[int, str | None], split: str = "val") -> dict[str, Failure]:
    """Of the project's rows with other texts in some rows of a split."""
    data = project.load()
    rows = data.splits[split]
    texts = rows["review"].to_pylist()
    for row, text in at.items():
        texts[row] = text
    place = rows.schema.get_field_index("review")
    other = rows.set_column(place, "review", pa.array(texts, pa.string()))
    found = validate(Data(data.spec, {**data.splits, split: other}), project.promised(), tmp_path / "docs")
    return {failure.rule: failure for failure in found.failures}


def test_sound_texts_pass(project: Project, tmp_path: Path) -> None:
    assert failures(project, tmp_path, {}) == {}


MANY = range(10)  # of about 100 rows of val: above the 5 % that are allowed
SPOILT: dict[str, tuple[dict[int, str | None], int]] = {
    "missing values": (dict.fromkeys(range(20)), 20),
    "characters": ({3: "nice " * 4000}, 1),
    "damaged text": ({i: f"caf\ufffd plain {i}" for i in MANY}, 10),
    "foreign text": ({i: f"Это был длинный фильм {'о' * i}" for i in MANY}, 10),
    "unknown words": ({i: f"wholly other vocabulary throughout these sentences {i}" * 3 for i in range(30)}, 30),
}


@pytest.mark.parametrize("rule", SPOILT)
def test_what_is_wrong_with_texts_is_named_with_its_rows(project: Project, tmp_path: Path, rule: str) -> None:
    spoilt, count = SPOILT[rule]
    found = failures(project, tmp_path, spoilt)
    assert rule in found
    failure = found[rule]
    ids = project.load().splits["val"]["id"].to_pylist()
    assert (failure.column, failure.split, failure.count) == ("review", "val", count)
    assert list(failure.rows) == [ids[row] for row in list(spoilt)[:5]]


def test_near_duplicates_across_splits_are_found(project: Project, tmp_path: Path) -> None:
    data = project.load()
    train, val = data.splits["train"], data.splits["val"]
    verdict = val["verdict"][0].as_py()
    text = next(
        t for t, v in zip(train["review"].to_pylist(), train["verdict"].to_pylist(), strict=True) if v == verdict
    )
    found = failures(project, tmp_path, {0: f"  {text.upper()} !!"})
    assert found.keys() == {"near-duplicates across splits"}
    assert found["near-duplicates across splits"].rows == (val["id"][0].as_py(),)
    exact = failures(project, tmp_path, {0: text})
    assert exact.keys() == {"duplicates across splits", "near-duplicates across splits"}


def test_a_text_column_of_numbers_is_of_another_kind(project: Project, tmp_path: Path) -> None:
    data = project.load()
    rows = {
        s: t.set_column(t.schema.get_field_index("review"), "review", pa.array(range(len(t))))
        for s, t in data.splits.items()
    }
    found = validate(Data(data.spec, rows), project.promised(), tmp_path / "docs")
    assert found.passed or {f.column for f in found.failures} == {"review"}


# ── scoring ─────────────────────────────────────────────────────────────────────────────────────────────


def write(file: Path, texts: Sequence[str | None]) -> Path:
    if file.suffix == ".csv":
        pd.DataFrame({"id": range(len(texts)), "review": texts}).to_csv(file, index=False)
    else:
        pq.write_table(pa.table({"id": range(len(texts)), "review": pa.array(texts, pa.string())}), file)
    return file


GIVEN = ["a superb film, a long story", "", "nice " * 4000, "   ", None, "dull, awful\nand long"]


@pytest.mark.parametrize("name", ["in.csv", "in.parquet"])
def test_empty_and_over_long_texts_go_aside_with_their_reason(champion: Model, tmp_path: Path, name: str) -> None:
    done = score(champion, write(tmp_path / name, GIVEN), tmp_path / "out.parquet", ASIDE)
    assert (done.rows_in, done.rows, done.quarantined) == (6, 2, 4)
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == [0, 5]
    most = f"expected a text of 1 to {champion.spec.columns[0].longest:,} characters"
    reasons = {r["row"]: r["reason"] for r in pq.read_table(done.quarantine).to_pylist()}
    assert reasons.keys() == {1, 2, 3, 4}
    assert reasons[2].startswith("column 'review': got 19,999 characters, 'nice nice") and reasons[2].endswith(most)
    assert all(reasons[row].endswith(most) for row in (1, 3, 4)) and "got nothing" in reasons[4]


def test_without_a_quarantine_the_first_ends_the_scoring(champion: Model, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"column 'review', row 1: got nothing, expected a text of 1 to (.|\n)*correct the value$"
    ):
        score(champion, write(tmp_path / "in.csv", GIVEN), tmp_path / "out.parquet", JOB)


def test_a_text_column_of_numbers_is_refused(champion: Model, tmp_path: Path) -> None:
    pq.write_table(pa.table({"review": [1, 2]}), tmp_path / "in.parquet")
    with pytest.raises(BadInput, match="'review' is int64, expected a text"):
        score(champion, tmp_path / "in.parquet", tmp_path / "out.parquet", ASIDE)


def test_the_longest_text_survives_its_way_into_a_model(champion: Model) -> None:
    spec = champion.spec
    assert Spec.from_json(spec.to_json()) == spec and spec.to_json()["columns"][0]["longest"] > 0
    assert (
        "longest"
        not in Spec("d", "regression", tuple(dataclasses.replace(c, longest=0) for c in spec.columns)).to_json()[
            "columns"
        ][0]
    )


# ── drift ───────────────────────────────────────────────────────────────────────────────────────────────


def drifting(champion: Model, texts: Sequence[str | None]) -> set[str]:
    tally = Tally(champion, champion.profile)
    tally.add(pa.record_batch({"review": pa.array(texts, pa.string())}))
    return set(compare(champion.profile, tally.counts(), Terms())["drifting"])


def test_texts_like_the_training_rows_do_not_drift_and_others_do(champion: Model, project: Project) -> None:
    same = project.load().splits["test"]["review"].to_pylist() * 2
    assert drifting(champion, same) == set()
    assert {"review.characters", "review.words"} <= drifting(champion, [f"{t} {t} {t}" for t in same])
    strange = [" ".join("".join(sorted(word)) for word in t.split()) for t in same]
    assert "review.unknown" in drifting(champion, strange)
    assert "review.non_ascii" in drifting(champion, [t.replace("a", "å") for t in same])


def test_a_profile_of_texts_says_what_it_counts(champion: Model) -> None:
    features = champion.profile["features"]
    named = {name for name, feature in features.items() if feature["of"] == "summary"}
    assert named == {f"review.{what}" for what in ("characters", "words", "non_ascii", "unknown")}
    assert any(feature["of"] == "codes" for feature in features.values())
    assert champion.profile["words"]["review"] == sorted(champion.profile["words"]["review"])
    assert all(np.sum(feature["counts"]) == champion.profile["rows"] for feature in features.values())
