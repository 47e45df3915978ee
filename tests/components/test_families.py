"""What every family promises, asked of every family. A family joins by its line in the table of families and the
`CASES` of its own test file; nothing here knows one from another."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from components import model
from components.contract import Choice, Domain, Family, Generative, Integer, Latent, State
from components.families import FAMILIES, family, import_path

from .cases import Case, bytes_of, cases, evaluate, fingerprints, last, learnt, one_thread, stored  # noqa: F401

REPOSITORY = Path(__file__).parents[2]
EVERY = [pytest.param(name, case, id=f"{name}-{case.name}") for name in FAMILIES for case in cases(name)]
each_case = pytest.mark.parametrize(("name", "case"), EVERY)


class Taught(dict[str, tuple[Family[Any], Any, State]]):
    """Each case's net after its epochs, learnt once, when a test first looks at it."""

    def __missing__(self, key: str) -> tuple[Family[Any], Any, State]:
        name, case = next(param.values for param in EVERY if param.id == key)
        state, learner = last(name, case)[1], family(name)
        self[key] = learner, learner.load(case.data.spec, case.hyper, state.served()), state
        return self[key]


@pytest.fixture(scope="module")
def taught() -> Taught:
    return Taught()


def inputs(case: Case, rows: int | None = None) -> pa.RecordBatch:
    columns = [column.name for column in case.data.spec.columns]
    return case.data.splits["test"].select(columns).combine_chunks().to_batches()[0].slice(0, rows)


def close(a: pa.RecordBatch, b: pa.RecordBatch) -> bool:
    """Equal, up to the last bits of a float: products of matrices are summed in another order by size."""
    assert a.schema == b.schema and len(a) == len(b)
    for mine, theirs in zip(a.columns, b.columns, strict=True):
        if pa.types.is_floating(mine.type):
            ours, others = torch.tensor(mine.to_pylist()), torch.tensor(theirs.to_pylist())
            if not torch.allclose(ours, others, rtol=1e-4, atol=1e-5):
                return False
        elif not mine.equals(theirs):
            return False
    return True


# ── what it scores ──────────────────────────────────────────────────────────────────────────────────────


@each_case
def test_scores_are_the_promised_columns_row_for_row(name: str, case: Case, taught: dict[str, Any]) -> None:
    learner, net, _ = taught[f"{name}-{case.name}"]
    for rows in (None, 1, 0):
        batch = inputs(case, rows)
        scored = learner.score(net, batch)
        assert scored.schema == learner.outputs(case.data.spec)
        assert len(scored) == len(batch)
        assert all(column.null_count == 0 for column in scored.columns)


@each_case
def test_scores_do_not_depend_on_how_rows_are_batched(name: str, case: Case, taught: dict[str, Any]) -> None:
    learner, net, _ = taught[f"{name}-{case.name}"]
    batch = inputs(case)
    parts = [learner.score(net, batch.slice(start, 13)) for start in range(0, len(batch), 13)]
    again = pa.Table.from_batches(parts).combine_chunks().to_batches()[0]
    assert close(learner.score(net, batch), again)


@each_case
def test_saved_and_loaded_it_predicts_the_same(name: str, case: Case, taught: dict[str, Any], tmp_path: Path) -> None:
    learner, net, state = taught[f"{name}-{case.name}"]
    model.save(tmp_path, import_path(name), case.data.spec, case.hyper, state)
    loaded = model.load(tmp_path)
    assert loaded.score(inputs(case)).equals(learner.score(net, inputs(case)))
    assert loaded.evaluate(dict(case.data.splits), "test") == evaluate(learner, net, case.data, "test")


@each_case
def test_codes_say_row_for_row_what_the_net_makes_of_its_inputs(
    name: str, case: Case, taught: dict[str, Any], tmp_path: Path
) -> None:
    learner, net, state = taught[f"{name}-{case.name}"]
    codes_ND = learner.encode(net, inputs(case))
    assert codes_ND.dtype == np.float32 and codes_ND.ndim == 2 and np.isfinite(codes_ND).all()
    assert len(np.unique(codes_ND, axis=0)) > len(codes_ND) / 2, "different rows have different codes"
    for rows in (1, 0):
        assert learner.encode(net, inputs(case, rows)).shape == (rows, codes_ND.shape[1])
    parts = [learner.encode(net, inputs(case).slice(start, 13)) for start in range(0, len(codes_ND), 13)]
    np.testing.assert_allclose(np.concatenate(parts), codes_ND, rtol=1e-4, atol=1e-5)
    model.save(tmp_path, import_path(name), case.data.spec, case.hyper, state)
    loaded = model.load(tmp_path)
    assert loaded.encode(inputs(case)).tobytes() == codes_ND.tobytes(), "the same again, saved and loaded"


# ── what it makes, if it makes samples ───────────────────────────────────────────────────────────────────

GENERATIVE = [param for param in EVERY if isinstance(family(str(param.values[0])), Generative)]
each_generative = pytest.mark.parametrize(("name", "case"), GENERATIVE)


@each_generative
def test_samples_are_rows_of_the_dataset(name: str, case: Case, taught: dict[str, Any]) -> None:
    learner, net, _ = taught[f"{name}-{case.name}"]
    for count in (7, 1):
        made = learner.sample(net, count, 3)
        assert made.schema == inputs(case).schema and len(made) == count
        assert all(column.null_count == 0 for column in made.columns)
    assert len(learner.score(net, made)) == 1, "what it makes can be scored"
    for column in case.data.spec.columns:
        train, many = (
            rows.column(column.name)
            for rows in (case.data.splits["train"].combine_chunks().to_batches()[0], learner.sample(net, 50, 4))
        )
        low, high = (edge(train.to_numpy_ndarray()) for edge in (np.min, np.max))
        values = many.to_numpy_ndarray()
        bytes_may = (0, 255) if column.dtype == "uint8" else (low, high)
        assert np.isfinite(values).all() and bytes_may[0] <= values.min() and values.max() <= bytes_may[1]
        assert len({value.tobytes() for value in values}) > 40, "no two are alike"


@each_generative
def test_samples_hang_on_net_number_and_seed_alone(
    name: str, case: Case, taught: dict[str, Any], tmp_path: Path
) -> None:
    learner, net, state = taught[f"{name}-{case.name}"]
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tobytes()
    made = learner.sample(net, 6, 3)
    after = torch.random.get_rng_state(), np.random.get_state()[1].tobytes()
    assert torch.equal(before[0], after[0]) and before[1] == after[1], "the global generators are as they were"
    torch.manual_seed(6)
    assert learner.sample(net, 6, 3).equals(made)
    assert not learner.sample(net, 6, 4).equals(made)
    model.save(tmp_path, import_path(name), case.data.spec, case.hyper, state)
    assert model.load(tmp_path).sample(6, 3).equals(made), "the same again, saved and loaded"


LATENT = [param for param in EVERY if isinstance(family(str(param.values[0])), Latent)]


@pytest.mark.parametrize(("name", "case"), LATENT)
def test_codes_stand_for_rows_like_those_that_have_them(name: str, case: Case, taught: dict[str, Any]) -> None:
    """Nearer to a code's own row than to most others."""
    learner, net, _ = taught[f"{name}-{case.name}"]
    made = learner.decode(net, learner.encode(net, inputs(case)))
    assert made.schema == inputs(case).schema and len(made) == len(inputs(case))
    for column in case.data.spec.columns:
        pair = (rows.column(column.name).to_numpy_ndarray().astype(np.float64) for rows in (inputs(case), made))
        real_NE, made_NE = (values.reshape(len(values), -1) for values in pair)
        away_NN = np.square(real_NE[:, None] - made_NE[None]).sum(2)
        assert (away_NN.diagonal()[:, None] <= away_NN).mean() > 0.65, "half would be chance"


# ── what it learns ──────────────────────────────────────────────────────────────────────────────────────


@each_case
def test_it_learns_one_batch_by_heart(name: str, case: Case) -> None:
    objective = family(name).objective(case.data.spec)
    best = math.nan
    for epoch in itertools.islice(family(name).fit(case.by_heart, case.heart, 2, None), case.heart_epochs):
        value = epoch.metrics[f"val/{objective.metric}"]
        best = value if objective.better(value, best) else best
        if objective.better(best, case.reached):
            return
    pytest.fail(f"val/{objective.metric} came to {best} only, expected better than {case.reached}")


@each_case
def test_it_beats_its_baseline_on_rows_that_it_never_saw(name: str, case: Case, taught: dict[str, Any]) -> None:
    learner, net, _ = taught[f"{name}-{case.name}"]
    objective = learner.objective(case.data.spec)
    metric = f"test/{objective.metric}"
    reached, trivial = evaluate(learner, net, case.data, "test"), learner.baseline(case.data, "test", case.hyper)
    assert objective.better(reached[metric], trivial[metric]), (reached, trivial)
    assert trivial.keys() <= reached.keys() | {metric}


@each_case
def test_outcomes_are_measured_whichever_are_taken(name: str, case: Case, taught: dict[str, Any]) -> None:
    """What the gate's bootstrap does: the same figures in any order, and figures of some of them."""
    learner, net, _ = taught[f"{name}-{case.name}"]
    outcomes = learner.judge(net, case.data, "test")
    (count,) = {len(array) for array in outcomes.values()}
    order = np.random.default_rng(0).permutation(count)
    whole = learner.measure(case.data.spec, outcomes, "test")
    turned = learner.measure(case.data.spec, {k: v[order] for k, v in outcomes.items()}, "test")
    assert turned == pytest.approx(whole)
    some = np.concatenate([order[: count // 2]] * 2)
    drawn = learner.measure(case.data.spec, {k: v[some] for k, v in outcomes.items()}, "test")
    metric = f"test/{learner.objective(case.data.spec).metric}"
    assert math.isfinite(drawn[metric])


@each_case
def test_an_epoch_tells_its_loss_and_objective(name: str, case: Case) -> None:
    objective = family(name).objective(case.data.spec)
    for number, (epoch, _) in enumerate(learnt(name, case.data, case.hyper, 2), 1):
        assert epoch.number == number
        assert {"train/loss", f"val/{objective.metric}"} <= epoch.metrics.keys()
        assert all(type(value) is float and math.isfinite(value) for value in epoch.metrics.values()), epoch.metrics


# ── what repeats ────────────────────────────────────────────────────────────────────────────────────────


@each_case
def test_same_seed_same_weights_another_seed_others(name: str, case: Case) -> None:
    one, again = (bytes_of(last(name, case, epochs=2)[1]) for _ in range(2))
    assert one == again
    other = last(name, case, epochs=2, seed=2)[1]
    assert bytes_of(other) != one


@each_case
def test_going_on_from_any_epoch_equals_never_stopping(name: str, case: Case) -> None:
    whole = learnt(name, case.data, case.hyper, 4)
    for stop in (1, 2, 3):
        rest = learnt(name, case.data, case.hyper, 4 - stop, state=stored(whole[stop - 1][1]))
        for (epoch, state), (epoch_again, state_again) in zip(whole[stop:], rest, strict=True):
            assert epoch_again.number == epoch.number and epoch_again.metrics == epoch.metrics
            assert bytes_of(state_again) == bytes_of(state)


@each_case
def test_a_state_kept_stays_as_it_was(name: str, case: Case) -> None:
    learning = family(name).fit(case.data, case.hyper, 1, None)
    kept = next(learning).state()
    before = bytes_of(kept)
    next(learning)
    rest = family(name).fit(case.data, case.hyper, 1, kept)
    next(rest)
    assert bytes_of(kept) == before


@each_case
def test_a_state_can_be_stored_and_serves_alone(name: str, case: Case, taught: dict[str, Any]) -> None:
    learner, net, state = taught[f"{name}-{case.name}"]
    assert all(t.device.type == "cpu" and t.is_contiguous() for t in state.tensors.values())
    assert len({t.untyped_storage().data_ptr() for t in state.tensors.values() if t.numel()}) == sum(
        t.numel() > 0 for t in state.tensors.values()
    ), "two names share their memory"
    served = stored(state.served())
    assert bytes_of(served) == bytes_of(state.served())
    again = learner.load(case.data.spec, case.hyper, served)
    assert learner.score(again, inputs(case)).equals(learner.score(net, inputs(case)))


def test_what_is_learnt_does_not_depend_on_what_the_process_did_before() -> None:
    """Trials run in reused processes: here each case follows all the others, there a process begins with it."""
    torch.manual_seed(99)
    code = "import json; from tests.components.cases import fingerprints; print(json.dumps(fingerprints({names})))"
    command = [sys.executable, "-c", code.replace("{names}", repr(list(reversed(FAMILIES))))]
    fresh = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert fresh.returncode == 0, fresh.stderr
    assert json.loads(fresh.stdout) == fingerprints(list(FAMILIES))


# ── what it may be asked for ────────────────────────────────────────────────────────────────────────────


def draw(domain: Domain, source: random.Random) -> Any:
    if isinstance(domain, Choice):
        return source.choice(domain.values)
    if isinstance(domain, Integer):
        return source.randint(domain.low, domain.high)
    return (
        math.exp(source.uniform(math.log(domain.low), math.log(domain.high)))
        if domain.log
        else source.uniform(domain.low, domain.high)
    )


@each_case
def test_every_draw_of_the_search_space_is_valid_settings(name: str, case: Case) -> None:
    learner, source = family(name), random.Random(0)
    space = learner.search_space(case.data.spec)
    known = {field.name: field.default for field in dataclasses.fields(learner.Settings)}
    assert space and space.keys() <= known.keys()
    for _ in range(50):
        hyper = {key: draw(domain, source) for key, domain in space.items()}
        assert json.loads(json.dumps(hyper)) == hyper
        learner.Settings(**hyper)
        assert all(isinstance(value, type(known[key])) for key, value in hyper.items())


def test_every_default_is_a_plain_value() -> None:
    for name in FAMILIES:
        for field in dataclasses.fields(family(name).Settings):
            assert isinstance(field.default, bool | int | float | str | tuple), f"{name}: {field.name}"


# ── what it may know ────────────────────────────────────────────────────────────────────────────────────

FORBIDDEN = {"ray", "mlflow", "prefect", "great_expectations", "dvc", "pandas", "sklearn", "pickle", "joblib"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_knows_neither_the_tools_nor_its_siblings(name: str) -> None:
    file = REPOSITORY / f"{import_path(name).partition(':')[0].replace('.', '/')}.py"
    siblings = {import_path(other).partition(":")[0].rpartition(".")[2] for other in FAMILIES} - {file.stem}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & (FORBIDDEN | {"components"})
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").partition(".")[0] not in FORBIDDEN | {"components"}
        elif isinstance(node, ast.ImportFrom) and node.level == 1:
            assert node.module not in siblings and not {alias.name for alias in node.names} & siblings
