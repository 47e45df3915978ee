"""The threshold, the figures of scores, the trivial rival, and anomalies made of normal rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from components import anomalies
from components.contract import Column, Data, Spec
from components.errors import DataError

SPEC = Spec("pulse", "anomaly", (Column("window", "tensor", "float32", (1, 40)),), "kind", ("anomaly", "normal"), "at")
DRAW = np.random.default_rng(4)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5])
def test_at_most_the_stated_share_of_normal_rows_is_above_the_threshold(rate: float) -> None:
    score_N = DRAW.normal(size=333).astype(np.float32)
    anomalous_N = DRAW.random(333) < 0.3
    limit = anomalies.threshold(score_N, anomalous_N, rate)
    normal_N = score_N[~anomalous_N]
    assert rate - 1 / len(normal_N) < np.mean(normal_N > limit) <= rate
    flagged_N = anomalies.scored(score_N, limit)["anomaly"].to_numpy(zero_copy_only=False)
    assert (flagged_N == anomalies.outcomes(score_N, anomalous_N, limit)["flagged"]).all()


def test_rates_are_of_the_rows_of_each_kind() -> None:
    score_N = np.array([1, 2, 3, 4, 5, 6], np.float32)
    anomalous_N = np.array([False, False, True, False, False, True])
    told = anomalies.measure(SPEC, anomalies.outcomes(score_N, anomalous_N, 3.5), "test")
    assert told["test/false_alarm_rate"] == 0.5 and told["test/detection_rate"] == 0.5
    assert told["test/auroc"] == pytest.approx(6 / 8) and told["test/loss"] == 3.0
    assert "test/hit" not in told


@pytest.mark.parametrize(("peak", "hit"), [(47, 0.0), (48, 1.0), (50, 1.0), (53, 1.0), (54, 0.0), (0, 0.0)])
def test_a_hit_is_a_peak_that_lies_near_an_anomaly(peak: int, hit: float) -> None:
    anomalous_N, score_N = np.zeros(100, bool), np.zeros(100, np.float32)
    anomalous_N[50:52], score_N[peak] = True, 1.0
    told = anomalies.outcomes(score_N, anomalous_N, 0.5, near=2)
    assert anomalies.measure(SPEC, told, "test")["test/hit"] == hit
    order = DRAW.permutation(100)
    turned = {name: values[order] for name, values in told.items()}
    assert anomalies.measure(SPEC, turned, "test")["test/hit"] == hit, "whatever order the rows are in"


def test_a_split_of_one_kind_cannot_be_measured() -> None:
    for anomalous in (True, False):
        told = anomalies.outcomes(np.ones(4, np.float32), np.full(4, anomalous), 0.5)
        with pytest.raises(DataError, match=r"split 'test' holds \d normal rows and \d anomalies"):
            anomalies.measure(SPEC, told, "test")


class Detector:
    """A net whose score is a row's mean, once it is told that val rows are to be scored."""

    def __init__(self) -> None:
        self.threshold, self.asked = torch.zeros(()), 0

    def scores(self, x_NCT: torch.Tensor) -> anomalies.Scores:
        self.asked += 1
        score_N: anomalies.Scores = x_NCT.mean((1, 2)).numpy()
        return score_N


def val(*kinds: str) -> Data:
    return Data(SPEC, {"val": pa.table({"kind": list(kinds)})})


def test_each_evaluation_scores_anew_and_gives_the_net_its_threshold() -> None:
    x_NCT = torch.arange(6.0)[:, None, None].expand(6, 1, 40)
    data, net = val("normal", "normal", "normal", "normal", "anomaly", "anomaly"), Detector()
    evaluate = anomalies.evaluation(data, "normal", 0.25, x_NCT, Detector.scores)
    for times in (1, 2):
        told = evaluate(net)
        assert net.asked == times and net.threshold.item() == 2.0
        assert told["val/auroc"] == told["val/detection_rate"] == 1 and told["val/false_alarm_rate"] == 0.25


def test_without_anomalies_an_evaluation_is_of_made_ones() -> None:
    seen: list[int] = []

    def scores(net: Detector, x_NCT: torch.Tensor) -> anomalies.Scores:
        seen.append(len(x_NCT))
        return np.arange(len(x_NCT), dtype=np.float32)

    told = anomalies.evaluation(val(*["normal"] * 5), "normal", 0.0, torch.randn(5, 1, 40), scores)(Detector())
    assert seen == [10] and told["val/auroc"] == 1


def test_the_trivial_rival_is_how_far_a_row_is_from_the_mean_normal_one() -> None:
    x_NCT = torch.tensor([1.0, 9.0, 4.0])[:, None, None].expand(3, 1, 40)
    normal_NCT = torch.tensor([3.0, 7.0])[:, None, None].expand(2, 1, 40)
    for kinds, auroc in ((["anomaly", "anomaly", "normal"], 1.0), (["normal", "anomaly", "anomaly"], 0.25)):
        told = anomalies.baseline(val(*kinds), "val", "normal", x_NCT, normal_NCT)
        assert told == {"val/auroc": auroc}


def test_labelled_anomalies_are_what_trials_are_chosen_by_where_there_are_any() -> None:
    x_NCT, anomalous_N = torch.randn(8, 1, 40), np.arange(8) == 3
    rows, marked_N = anomalies.chosen_by(x_NCT, anomalous_N)
    assert rows is x_NCT and marked_N is anomalous_N


def test_without_any_a_corrupted_copy_of_each_row_is() -> None:
    x_NCT = torch.sin(torch.arange(40) / 3 + torch.arange(8)[:, None, None])
    rows, marked_N = anomalies.chosen_by(x_NCT, np.zeros(8, bool))
    assert rows[:8].equal(x_NCT) and marked_N.tolist() == [False] * 8 + [True] * 8
    assert rows.equal(anomalies.chosen_by(x_NCT, np.zeros(8, bool))[0]), "the same for every trial"


@pytest.mark.parametrize("shape", [(2, 40), (1, 12, 12), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_a_corrupted_row_is_another_one_in_a_stretch_of_it(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(1)
    x_NC = torch.randint(0, 256, (12, *shape), generator=draw).to(dtype)
    before, state = x_NC.clone(), torch.get_rng_state()
    made_NC = anomalies.corrupted(x_NC)
    assert x_NC.equal(before) and torch.get_rng_state().equal(state)
    assert made_NC.dtype == dtype and made_NC.shape == x_NC.shape
    changed_N = (made_NC != x_NC).flatten(1).float().mean(1)
    if shape != (1, 1):
        assert (changed_N > 0).all() and (changed_N <= 0.5).all()
    assert not anomalies.corrupted(x_NC, seed=1).equal(made_NC)


def test_no_rows_stay_no_rows() -> None:
    assert anomalies.corrupted(torch.zeros(0, 1, 40)).shape == (0, 1, 40)
