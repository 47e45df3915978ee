"""Codes in place of scores: a model as scoring knows models, whose one output column is what its net makes of each row.

So rows that do not fit, files that are kept and deliveries that are whole or absent are the same for both.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from .. import intake
from ..contract import Codes, Json, Spec

if TYPE_CHECKING:
    from . import Scorer

CODE = "code"


class Coder:
    """`model`, scoring codes."""

    def __init__(self, model: Scorer) -> None:
        self._model = model

    @property
    def spec(self) -> Spec:
        return self._model.spec

    @property
    def weights_sha256(self) -> str:
        return self._model.weights_sha256

    @property
    def profile(self) -> Json:
        return self._model.profile

    def encode(self, batch: pa.RecordBatch) -> Codes:
        return self._model.encode(batch)

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        codes_BD = self.encode(batch)
        kind = pa.list_(pa.float32(), codes_BD.shape[1])
        column = pa.FixedSizeListArray.from_arrays(pa.array(codes_BD.ravel()), type=kind)
        return pa.RecordBatch.from_arrays([column], [CODE])

    def outputs(self) -> pa.Schema:
        return self._outputs

    @cached_property
    def _outputs(self) -> pa.Schema:
        """How many elements a code has the net alone knows: it says so of no rows, too."""
        return self.score(intake.nothing(self.spec)).schema
