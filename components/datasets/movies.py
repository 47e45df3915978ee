"""MovieLens 100k: 100,000 ratings, 1 to 5 stars, that 943 people gave 1,682 films in 1997 and 1998.

From recbole 1.2.1, members recbole/dataset_example/ml-100k/ml-100k.{inter,user,item}: lines of values between tabs, a
line of names first. The ratings are GroupLens's (Harper & Konstan 2015, "The MovieLens datasets"), whose terms allow
research use and forbid to pass them on without leave: they are fetched, and never committed. A film goes by its title
and year, with its number behind where two films share both. Of two films the year is not known. No pair is rated twice.

The split is ours, about 80/10/10, by a hash of user and film, evenly over the stars. The usual protocol has five folds
of random ratings, 80,000 to learn from and 20,000 to test on: so here as many are learnt from, half of the test rows
choose the epoch instead, and benchmarks/rows/movies.py does the five folds.

One row: id 0, user "196", item "Kolya (1996)", age 49, gender "M", occupation "writer", year 1996, genre_action 0, …
genre_western 0, rated 1997-12-04 15:55:49, rating 3.0, split "train".
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ..contract import SPLIT
from ..expectations import ColumnRule, Expectations, Ratings
from . import splits
from .packages import Member

FOLDER = "recbole/dataset_example/ml-100k/ml-100k"
RATINGS = Member(
    "recbole", "1.2.1", f"{FOLDER}.inter", "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"
)
USERS = Member("recbole", "1.2.1", f"{FOLDER}.user", "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972")
FILMS = Member("recbole", "1.2.1", f"{FOLDER}.item", "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532")
SOURCE = "; ".join(map(str, (RATINGS, USERS, FILMS)))

# fmt: off
GENRES = [
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]
# fmt: on
# fmt: off
OCCUPATIONS = [
    "administrator", "artist", "doctor", "educator", "engineer", "entertainment", "executive", "healthcare",
    "homemaker", "lawyer", "librarian", "marketing", "none", "other", "programmer", "retired", "salesman",
    "scientist", "student", "technician", "writer",
]
# fmt: on
STARS = (1, 5)


def build(read: Callable[[Member], bytes]) -> pa.Table:
    """Columns id (line of the source after its head, from 0), user, item, those of the user, those of the film, rated,
    rating, split."""
    given, users, films = (_lines(read(member)) for member in (RATINGS, USERS, FILMS))
    user_N = pc.index_in(given["user_id:token"], users["user_id:token"])
    film_N = pc.index_in(given["item_id:token"], films["item_id:token"])
    rating = given["rating:float"].cast(pa.float64())
    table = pa.table(
        {
            "user": given["user_id:token"],
            "item": _names(films).take(film_N),
            "age": users["age:token"].cast(pa.int64()).take(user_N),
            "gender": users["gender:token"].take(user_N),
            "occupation": users["occupation:token"].take(user_N),
            "year": _years(films).take(film_N),
            **{_column(genre): _has(films, genre).take(film_N) for genre in GENRES},
            "rated": given["timestamp:float"].cast(pa.int64()).cast(pa.timestamp("s")).cast(pa.timestamp("us")),
            "rating": rating,
        }
    )
    split = splits.assign(splits.row_hashes(table.select(["user", "item"])), rating.to_numpy(), val=0.1, test=0.1)
    return table.add_column(0, "id", pa.array(range(len(table)), pa.int64())).append_column(SPLIT, split)


def expectations() -> Expectations:
    return Expectations(
        columns={
            "id": ColumnRule(role="id", kind="number", min=0, max=99_999),
            "user": ColumnRule(kind="category"),
            "item": ColumnRule(kind="category"),
            "age": ColumnRule(kind="number", min=5, max=100),
            "gender": ColumnRule(kind="category", values=["F", "M"]),
            "occupation": ColumnRule(kind="category", values=OCCUPATIONS),
            "year": ColumnRule(kind="number", min=1900, max=1998, missing=0.001),
            **{_column(genre): ColumnRule(kind="number", min=0, max=1) for genre in GENRES},
            "rated": ColumnRule(role="ignored", kind="date"),
            "rating": ColumnRule(role="target", kind="number", min=STARS[0], max=STARS[1]),
        },
        ratings=Ratings(user="user", item="item", cold_users=0.01, cold_items=0.01),
    )


def _lines(content: bytes) -> pa.Table:
    """All columns as text."""
    names = content.split(b"\n", 1)[0].decode().strip().split("\t")
    return csv.read_csv(
        io.BytesIO(content),
        parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    ).combine_chunks()


def _years(films: pa.Table) -> pa.Array:
    known = pc.match_substring_regex(films["release_year:token"], r"^\d{4}$")
    return pc.if_else(known, films["release_year:token"], pa.scalar(None, pa.string())).cast(pa.int64())


def _names(films: pa.Table) -> pa.Array:
    """A name for each film that no other has."""
    wanted = ("movie_title:token_seq", "release_year:token", "item_id:token")
    title, year, number = (films[name].to_pylist() for name in wanted)
    names = np.array([f"{t} ({y})" if y.isdigit() else t for t, y in zip(title, year, strict=True)], object)
    _, back, counts = np.unique(names, return_inverse=True, return_counts=True)
    return pa.array([f"{n} #{i}" if c > 1 else n for n, i, c in zip(names, number, counts[back], strict=True)])


def _has(films: pa.Table, genre: str) -> pa.Array:
    return pa.array([int(genre in words.split()) for words in films["class:token_seq"].to_pylist()], pa.int64())


def _column(genre: str) -> str:
    return "genre_" + "".join(c if c.isalnum() else "_" for c in genre.lower().replace("'", ""))
