"""The processes that a defense runs in, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from bench.contracts import Artifact
from bench.errors import RefusedError
from bench.sandbox.process import Box, Limits
from bench.sandbox.wire import Answer

ATTACKERS = object()
"""Who asks where nobody else does; see `Boxes.ask`."""


class Boxes:
    """The processes that a defense runs in, never two at a time.

    Attackers share one, which may learn labels from the gradients that they ask for. Each judgement gets a fresh one,
    which knows neither what attackers nor what other judges asked. Use it with `with`.
    """

    def __init__(self, code: Mapping[str, bytes], limits: Limits, make: Mapping[str, Any], learned: Artifact) -> None:
        """Starts the first process, for attackers.

        Args:
            code, limits: as for `Box`.
            make: the question that makes the defense.
            learned: what the defense learned.
        """
        self._code, self._limits, self._make, self._learned = code, limits, make, learned
        self._left = limits.total
        self._asker: object = ATTACKERS
        self._questions = 0
        self._first: tuple[Mapping[str, Any], Mapping[str, Tensor], Tensor] | None = None
        self._box = Box(code, limits)
        try:
            self.about = self._timed(make, learned)[0]
        except BaseException:
            self.close()
            raise

    def ask(self, asker: object, message: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Answer:
        """Asks the process of this asker, a fresh one if another asker came last; raises as `Box.ask`."""
        if asker is not self._asker:
            self._repeat_first()
            self.close()
            self._box = Box(self._code, self._limits)
            self._asker = asker
            if self._timed(self._make, self._learned)[0] != self.about:
                raise RefusedError("the defense describes itself differently each time it starts")
        answer = self._timed(message, tensors)
        self._questions += 1
        if self._first is None and "logits" in answer[1]:
            self._first = message, tensors, answer[1]["logits"]
        return answer

    def _repeat_first(self) -> None:
        """Asks a process its first question once more before it ends: what came between must not change the answer."""
        first, questions = self._first, self._questions
        self._first, self._questions = None, 0
        if questions < 2 or first is None:
            return
        message, tensors, logits = first
        again = self._timed(message, tensors)[1].get("logits", torch.empty(0))
        scale = logits.nan_to_num().abs().max().clamp(min=1)
        same = again.shape == logits.shape and again.dtype == logits.dtype
        if not same or not torch.allclose(again / scale, logits / scale, 0, 1e-3, equal_nan=True):
            raise RefusedError("the defense answers the same question differently later: it counts, remembers or draws")

    def _timed(self, message: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Answer:
        if self._left <= 0:
            raise RefusedError(f"the defense took more than {self._limits.total:g} seconds in all")
        started = perf_counter()
        try:
            return self._box.ask(message, tensors, min(self._limits.answer, self._left))
        finally:
            self._left -= perf_counter() - started

    def close(self) -> None:
        """Ends the process."""
        self._box.close()

    def __enter__(self) -> Boxes:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
