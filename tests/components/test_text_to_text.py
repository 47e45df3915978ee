"""Texts that become other texts, from a user's table of two columns to what is written for new rows."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import datasets, letters, model, params, plan
from components.contract import SPLITS, Data
from components.datasets import parquet
from components.errors import BadInput, DataError, ParamsError
from components.expectations import Expectations
from components.model import Model
from components.params import DatasetBlock
from components.plan import Project
from components.profile import measure
from components.registry import artifact
from components.scoring import score
from components.validation import Failure, validate
from components.workspace import Workspace
from tests.families.parrot import Parrot

from .cases import one_thread, rewritten  # noqa: F401
from .test_scoring import JOB

PAIRS = pa.concat_tables(rewritten(400).splits.values())
ENGLISH, FRENCH = PAIRS["text"].to_pylist(), PAIRS["target"].to_pylist()
ASIDE = dataclasses.replace(JOB, quarantine=0.9)
Columns = dict[str, Sequence[Any]]
TWO: Columns = {"english": ENGLISH, "french": FRENCH}


class Table:
    """A workspace with one table of two columns, or other ones."""

    def __init__(self, root: Path, columns: Columns = TWO, form: str = "csv", **block: Any) -> None:
        self.workspace, self.place = Workspace(root), root / f"pairs.{form}"
        frame = pd.DataFrame(dict(columns))
        if form == "folder":
            self.place.mkdir()
            frame[:150].to_csv(self.place / "a.csv", index=False)
            frame[150:].to_parquet(self.place / "b.parquet", index=False)
        elif form == "parquet":
            frame.to_parquet(self.place, index=False)
        else:
            frame.to_csv(self.place, index=False)
        self.block = DatasetBlock(table=self.place.name, **{"text": "english", "target": "french", **block})

    def promised(self) -> Expectations:
        return datasets.expectations(self.workspace, "mine", self.block)

    def load(self) -> Data:
        recipe = datasets.recipe(self.workspace, "mine", self.block, lambda _: None)
        self.workspace.data("mine").parent.mkdir(exist_ok=True)
        parquet.write(recipe.build(), self.workspace.data("mine"), recipe.note)
        return datasets.load(self.workspace, "mine", self.promised(), self.promised().tasks()[0])

    def edit(self, change: Callable[[str], str]) -> None:
        file = self.workspace.expectations("mine")
        said = file.read_text()
        assert change(said) != said
        file.write_text(change(said))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Table:
    made = Table(tmp_path_factory.mktemp("pairs"))
    made.load()
    return made


# ── a user's table ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", ["csv", "parquet", "folder"])
def test_a_named_target_of_free_text_is_to_be_written(tmp_path: Path, form: str) -> None:
    table = Table(tmp_path, TWO | {"speaker": [f"s{i % 5}" for i in range(400)]}, form)
    data, promised = table.load(), table.promised()
    assert promised.tasks() == ("text2text",)
    assert [(c.name, c.kind) for c in data.spec.columns] == [("english", "text")]
    assert (data.spec.task, data.spec.target, data.spec.classes) == ("text2text", "french", ())
    wanted = dict(zip(ENGLISH, FRENCH, strict=True))
    for part in data.splits.values():
        assert part.column_names == ["english", "french"]
        assert all(wanted[row["english"]] == row["french"] for row in part.to_pylist())
    assert [len(data.splits[s]) for s in SPLITS] == [240, 80, 80]
    rule, longest = promised.columns["french"], max(map(len, FRENCH))
    assert (rule.role, rule.kind, rule.values, rule.missing) == ("target", "text", None, 0.0)
    assert rule.longest is not None and longest <= rule.longest < 12 * longest
    assert rule.damaged == rule.foreign == 0.05 and rule.unknown < 0.2
    assert promised.columns["speaker"].role == "ignored"


def test_all_rows_of_a_text_are_in_one_split_however_many_targets_it_has(tmp_path: Path) -> None:
    several = [f"{one} {word}" for word in ("", "aussi", "donc") for one in FRENCH]
    table = Table(tmp_path, {"english": [*ENGLISH, *(f"{t.upper()}!" for t in ENGLISH), *ENGLISH], "french": several})
    data = table.load()
    seen = [set(letters.bare(part["english"].to_pylist())) for part in data.splits.values()]
    assert [len(texts) for texts in seen] == [240, 80, 80]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert [len(part) for part in data.splits.values()] == [720, 240, 240]
    assert failures(table, tmp_path, {}) == {}, "several references are no duplicates"
    assert table.promised().duplicates.near == 0.0


def test_pairs_that_repeat_by_nature_stay_together(tmp_path: Path) -> None:
    table = Table(tmp_path, {"english": ENGLISH * 3, "french": FRENCH * 3})
    promised = table.promised().duplicates
    assert (promised.across, promised.near) == (0.0, 0.0) and promised.within == 1.0
    assert [len(part) for part in table.load().splits.values()] == [720, 240, 240]


def test_few_targets_are_classes_and_numbers_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    moods = Table(tmp_path / "a", {"english": ENGLISH, "french": ["très bien", "assez bien", "pas bien", "mal"] * 100})
    assert moods.promised().tasks() == ("classification", "anomaly")
    numbers = Table(tmp_path / "b", {"english": ENGLISH, "french": range(400)})
    assert numbers.promised().tasks() == ("regression",)
    for table in (moods, numbers):
        said = table.workspace.expectations("mine").read_text()
        assert "if it is a text to be written: `kind: text`, without values, min and max" in said


def test_numbers_are_written_as_they_stand_where_the_owner_says_that_they_are_texts(tmp_path: Path) -> None:
    table = Table(tmp_path, {"english": ENGLISH, "french": [f"{i:05d}" for i in range(400)]})
    assert table.promised().tasks() == ("regression",)

    def to_text(said: str) -> str:
        start = said.index("  french:")
        end = said.index("duplicates:", start)
        return f"{said[:start]}  french:\n    role: target\n    kind: text\n{said[end:]}"

    table.edit(to_text)
    data = table.load()
    assert data.spec.task == "text2text"
    assert sorted(t for part in data.splits.values() for t in part["french"].to_pylist())[:2] == ["00000", "00001"]


def test_dates_and_what_is_nearly_numbers_are_texts_to_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    days = [f"20{i % 30:02d}-{i % 12 + 1:02d}-{i % 28 + 1:02d}" for i in range(400)]
    data = Table(tmp_path / "a", {"english": ENGLISH, "french": days}).load()
    assert data.spec.task == "text2text" and data.splits["train"]["french"][0].as_py() in days
    odd = Table(tmp_path / "b", {"english": ENGLISH, "french": [*map(str, range(399)), "beaucoup"]})
    assert odd.promised().tasks() == ("text2text",)
    assert "nearly all are numbers, but not 'beaucoup'" in odd.workspace.expectations("mine").read_text()


def test_numbers_may_be_read_where_texts_are_written(tmp_path: Path) -> None:
    """A csv says nothing of types. Where Parquet says that they are numbers, they are no texts."""
    columns = {"english": range(1000, 1400), "french": [f"{text} {i}" for i, text in enumerate(FRENCH)]}
    (tmp_path / "a").mkdir()
    data = Table(tmp_path / "a", columns).load()
    assert data.spec.task == "text2text"
    assert {len(t) for part in data.splits.values() for t in part["english"].to_pylist()} == {4}
    (tmp_path / "b").mkdir()
    with pytest.raises(BadInput, match="'english' is int64, expected a text"):
        Table(tmp_path / "b", columns, "parquet").promised()


FAULTY: dict[str, tuple[Columns, dict[str, None], str]] = {
    "empty targets": (
        TWO | {"french": ["", "null", *FRENCH[2:]]},
        {},
        r"target 'french' is missing in 2 rows: 0, 1(.|\n)*one that says so, such as NA or null(.|\n)*leave out",
    ),
    "swapped with classes": (
        {"english": ["good", "bad"] * 200, "french": FRENCH},
        {},
        r"text 'english' has 2 different values, target 'french' has(.|\n)*swapped(.|\n)*`text: french` and `target",
    ),
    "a target without its text": (
        TWO,
        {"text": None},
        r"target has 400 different values(.|\n)*the text that they come of: `text: COLUMN`",
    ),
    "one target throughout": (
        TWO | {"french": ["le chat dort"] * 400},
        {},
        "target has one value only, 'le chat dort'",
    ),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_table_that_is_no_use_says_why(tmp_path: Path, case: str) -> None:
    columns, block, fault = FAULTY[case]
    with pytest.raises(DataError, match=fault):
        Table(tmp_path, columns, **block).promised()


def test_columns_the_other_way_round_are_another_task(tmp_path: Path) -> None:
    data = Table(tmp_path, text="french", target="english").load()
    assert (data.spec.columns[0].name, data.spec.target) == ("french", "english")


def pipeline(root: Path, family: str, columns: str) -> Project:
    (root / "params.yaml").write_text(
        f"datasets: {{mine: {{table: pairs.csv, {columns}}}}}\npipelines: {{p: {{dataset: mine, family: {family}}}}}\n"
    )
    return Project(Workspace(root), params.load(Workspace(root)), lambda _: None, lambda _: None)  # type: ignore[arg-type,return-value]


def test_a_family_that_writes_nothing_says_so_before_anything_runs(pairs: Table) -> None:
    root, columns = pairs.workspace.root, "text: english, target: french"
    assert plan.resolve(pipeline(root, "tests.families.parrot:Parrot", columns), "p").spec.task == "text2text"
    with pytest.raises(
        ParamsError,
        match=r"'rnn' does .*, dataset 'mine' offers text2text(.|\n)*choose .*transformer.*expectations/mine\.yaml",
    ):
        plan.resolve(pipeline(root, "rnn", columns), "p")
    with pytest.raises(ParamsError, match=r"params\.yaml:1 datasets\.mine\.text: got 'french' for text and target"):
        pipeline(root, "rnn", "text: french, target: french")


def test_what_is_written_is_written_of_one_text(tmp_path: Path) -> None:
    table = Table(tmp_path, TWO | {"speaker": [f"s{i % 5}" for i in range(400)]})
    table.promised()
    table.edit(
        lambda said: said.replace("  speaker:\n    role: ignored\n    kind: text", "  speaker:\n    kind: category")
    )
    with pytest.raises(
        ParamsError, match=r"columns\.french\.kind: got a text for inputs text, category, expected one input, a text"
    ):
        table.promised()


# ── validation ──────────────────────────────────────────────────────────────────────────────────────────


def failures(table: Table, place: Path, at: dict[int, str | None], column: str = "french") -> dict[str, Failure]:
    """Of the table's rows with other texts in some rows of val; by rule."""
    data = table.load()
    rows = data.splits["val"]
    texts = rows[column].to_pylist()
    for row, text in at.items():
        texts[row] = text
    other = rows.set_column(rows.schema.get_field_index(column), column, pa.array(texts, pa.string()))
    found = validate(Data(data.spec, {**data.splits, "val": other}), table.promised(), place / "docs")
    return {failure.rule: failure for failure in found.failures}


def test_sound_pairs_pass(pairs: Table, tmp_path: Path) -> None:
    assert failures(pairs, tmp_path, {}) == {}


MANY = range(10)  # of 80 rows: above the 5 % that are allowed
SPOILT: dict[str, tuple[dict[int, str | None], int]] = {
    "missing values": (dict.fromkeys((3, 5)), 2),
    "characters": ({3: "le chat " * 100, 4: ""}, 2),
    "damaged text": ({i: f"{FRENCH[i]} \ufffd" for i in MANY}, 10),
    "foreign text": ({i: f"мой белый кот спит {'о' * i}" for i in MANY}, 10),
    "unknown words": ({i: f"ganz andere wörter als zuvor {i}" for i in MANY}, 10),
}


@pytest.mark.parametrize("rule", SPOILT)
def test_what_is_wrong_with_targets_is_named_with_its_rows(pairs: Table, tmp_path: Path, rule: str) -> None:
    spoilt, count = SPOILT[rule]
    found = failures(pairs, tmp_path, spoilt)
    failure = found[rule]
    assert (failure.column, failure.split, failure.count) == ("french", "val", count)
    assert failure.rows == tuple(list(spoilt)[:5])


def test_an_empty_target_is_one_too_many_however_long_the_others_may_be(pairs: Table, tmp_path: Path) -> None:
    rules = dict(pairs.promised().columns)
    rules["french"] = rules["french"].model_copy(update={"longest": None})
    data = pairs.load()
    texts = ["", *data.splits["test"]["french"].to_pylist()[1:]]
    test = data.splits["test"].set_column(1, "french", pa.array(texts))
    promised = pairs.promised().model_copy(update={"columns": rules})
    found = validate(Data(data.spec, {**data.splits, "test": test}), promised, tmp_path / "docs").failures
    assert [(f.column, f.rule, f.rows) for f in found] == [("french", "characters", (0,))]
    assert found[0].detail == "got 0, expected 1 or more"


def test_the_targets_have_words_and_scripts_of_their_own(tmp_path: Path) -> None:
    """What is written may well be in another script than what is read: only then is the read one foreign there."""
    greek = str.maketrans("abcdefghijklmnopqrstuvwxyz", "αβγδεζηθικλμνξοπρςστυφχψωα")
    written = [text.translate(greek) for text in FRENCH]
    table = Table(tmp_path, {"english": ENGLISH, "french": written})
    assert failures(table, tmp_path, {}) == {}
    found = failures(table, tmp_path, dict(enumerate(FRENCH[:10])))
    assert {"foreign text", "unknown words"} == found.keys()


def test_a_text_that_is_learnt_and_tested_is_found_whatever_its_target(pairs: Table, tmp_path: Path) -> None:
    text = pairs.load().splits["train"]["english"][7].as_py()
    found = failures(pairs, tmp_path, {2: f"{text.title()} …"}, "english")
    assert found.keys() == {"near-duplicates across splits"}
    assert (found["near-duplicates across splits"].split, found["near-duplicates across splits"].rows) == ("val", (2,))


def test_a_split_of_ones_own_that_tears_a_text_apart_is_found(tmp_path: Path) -> None:
    split = ["train"] * 300 + ["val"] * 50 + ["test"] * 50
    sources = [*ENGLISH[:350], *ENGLISH[:10], *ENGLISH[360:]]
    table = Table(tmp_path, {"english": sources, "french": FRENCH, "split": split})
    found = failures(table, tmp_path, {})
    assert found.keys() == {"near-duplicates across splits"} and found["near-duplicates across splits"].count == 10


def test_the_same_pair_again_is_a_duplicate(pairs: Table, tmp_path: Path) -> None:
    data = pairs.load()
    twice = pa.concat_tables([data.splits["val"], data.splits["val"].slice(0, 30)])
    found = validate(Data(data.spec, {**data.splits, "val": twice}), pairs.promised(), tmp_path / "docs")
    assert [(f.rule, f.count) for f in found.failures] == [("duplicates within a split", 30)]


# ── scoring ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def champion(pairs: Table, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A net that has learnt the pairs, with its profile, and its folder."""
    data, folder = pairs.load(), tmp_path_factory.mktemp("model")
    *_, epoch = itertools.islice(Parrot().fit(data, {}, 0, None), 4)
    model.save(folder, "tests.families.parrot:Parrot", data.spec, {}, epoch.state())
    model.keep_profile(folder, measure(model.load(folder), data.splits["train"]))
    return model.load(folder), folder


def write(file: Path, columns: Columns) -> Path:
    file.parent.mkdir(exist_ok=True)
    frame = pd.DataFrame(dict(columns))
    frame.to_csv(file, index=False) if file.suffix == ".csv" else frame.to_parquet(file, index=False)
    return file


@pytest.mark.parametrize("name", ["in.csv", "in.parquet"])
@pytest.mark.parametrize("more", [{}, {"french": ["" for _ in range(20)]}], ids=["alone", "beside empty targets"])
def test_new_texts_are_written_for(champion: tuple[Model, Path], tmp_path: Path, name: str, more: Columns) -> None:
    done = score(champion[0], write(tmp_path / name, {"english": ENGLISH[:20]} | more), tmp_path / "out.parquet", JOB)
    assert (done.rows, done.quarantined) == (20, 0)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["row", "text", "score", "model_version", "run_key"]
    assert (str(table["text"].type), str(table["score"].type)) == ("string", "double")
    right = sum(said == wanted for said, wanted in zip(table["text"].to_pylist(), FRENCH, strict=False))
    assert right >= 15 and max(table["score"].to_pylist()) <= 0


def test_a_folder_of_texts_becomes_a_folder(champion: tuple[Model, Path], tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.csv", {"english": ENGLISH[:5]})
    write(tmp_path / "in" / "b.parquet", {"english": ENGLISH[5:9], "french": FRENCH[5:9]})
    assert score(champion[0], tmp_path / "in", tmp_path / "out", JOB).rows == 9
    assert pq.read_table(tmp_path / "out" / "b.parquet")["text"].to_pylist() == FRENCH[5:9]


def test_empty_and_over_long_texts_go_aside(champion: tuple[Model, Path], tmp_path: Path) -> None:
    given = ["my cat sleeps", "", "the dog " * 90, "a bird waits"]
    file = write(tmp_path / "in.csv", {"english": given, "id": range(4)})
    done = score(champion[0], file, tmp_path / "out.parquet", dataclasses.replace(ASIDE, ignore_extra=True))
    assert (done.rows, done.quarantined) == (2, 2) and done.quarantine
    assert pq.read_table(done.quarantine)["row"].to_pylist() == [1, 2]
    with pytest.raises(BadInput, match=r"column 'english', row 1: got nothing, expected a text of 1 to"):
        score(champion[0], file, tmp_path / "strict.parquet", dataclasses.replace(JOB, ignore_extra=True))


def test_a_registered_model_writes_for_a_frame(pairs: Table, champion: tuple[Model, Path], tmp_path: Path) -> None:
    built = artifact.build(champion[1], pairs.load(), tmp_path)
    import mlflow.pyfunc  # after what keeps its import quiet

    loaded = mlflow.pyfunc.load_model(str(built))
    signature = loaded.metadata.signature.to_dict()
    assert signature["inputs"] == '[{"type": "string", "name": "english", "required": true}]'
    assert '{"type": "string", "name": "text"' in signature["outputs"]
    assert '{"type": "double", "name": "score"' in signature["outputs"]
    said = loaded.predict(pd.DataFrame({"english": ENGLISH[:6]}, index=range(10, 16)))
    assert said["text"].tolist() == FRENCH[:6] and said.index.tolist() == [*range(10, 16)]
