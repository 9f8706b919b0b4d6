"""Selects the micro-batch of inference by measurement: `--batch-size auto` of runs and validations.

Both use the same stored results: those of a network with a backend on this machine.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.launching import launched
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import Chosen, backend_options
from ipucnn.core.execution.session_checks import compiled
from ipucnn.core.options.attributes import CACHE, INFERENCE
from ipucnn.core.options.composition import CommandOptions
from ipucnn.core.options.declaration import declared
from ipucnn.core.registry.registry import Registry
from ipucnn.data.example_images import random_images
from ipucnn.models.batch_search import Call, Found, Record, check_backend, search
from ipucnn.models.built import BuiltModel

MOST = 256
"""Largest micro-batch to measure; larger ones were not faster for any network."""


def check(options: CommandOptions, further: Sequence[str] = ()) -> None:
    """Reject options with which the micro-batch cannot be measured.

    Args:
        options: of the command.
        further: other reasons of the command why it cannot.

    Raises:
        UsageError: there is a reason.
    """
    reasons = [*(["several instances"] if launched() is not None else []), *further]
    if options.get("pipeline_splits"):
        reasons.append("'--pipeline-splits'")
    if reasons:
        raise UsageError(f"'--batch-size auto' cannot be used with {reasons[0]}", "give a number")


@dataclass(frozen=True)
class Inference:
    """The inference whose micro-batch is measured.

    Attributes:
        options: of the command.
        chosen: the backend.
        plan: of the inference, with any micro-batch.
        built: the network.
        images: number of images; None for endless data.
        registry: where names are looked up.
    """

    options: CommandOptions
    chosen: Chosen
    plan: ExecutionPlan
    built: BuiltModel
    images: Optional[int]
    registry: Registry

    @property
    def most(self) -> int:
        """The largest micro-batch to measure."""
        return MOST if self.images is None else max(1, min(MOST, self.images // self._calls))

    @property
    def _calls(self) -> int:
        return self.plan.device_iterations * self.plan.replicas

    def fastest(self, open_session: Callable[[int], InferenceSession],
                tuned: Sequence[Any] = ()) -> Found:
        """Return the micro-batch of the stored measurement; measure if there is none.

        Args:
            open_session: returns a session for a micro-batch.
            tuned: sizes whose session differs, because another measurement has chosen its backend.

        Raises:
            UsageError: the backend does not support it.
            IpucnnError: not even one image can be computed.
        """
        name = self.chosen.spec.name
        check_backend(self.chosen.spec)
        plan = self.plan
        record = Record.of(self._structure(), {
            "job": "inference", "backend": name, "device": self.chosen.probe.device,
            "precision": plan.precision, "size": self.built.input_size, "pixels": plan.pixels,
            "most": self.most, "calls": self._calls, "norm": plan.full_precision_norm,
            "tuned": tuned, "options": self._given()}, dict(self._given()).get("device"))

        def measured() -> Found:
            with ExitStack() as held:

                def caller(size: int) -> Call:
                    held.close()  # the memory of the size before
                    return self._call(held.enter_context(open_session(size)))

                return search(caller, 1, self.most)

        return record.result(measured)

    def _structure(self) -> str:
        """Return a description of the network without its weights."""
        card, target = self.built.card, self.built.spec.target
        if not isinstance(target, str):
            target = getattr(target, "__qualname__", type(target).__qualname__)
        # options read from a file have lists for tuples
        options = sorted((name, list(value) if isinstance(value, tuple) else value)
                         for name, value in card.options.items())
        return repr((card.model, target, card.norm_layer, options, card.num_outputs))

    def _given(self) -> List[Tuple[str, Any]]:
        """Return the options of the backend that affect inference and are not at their default."""
        made = backend_options(self.chosen.spec, self.options, self.plan, self.registry)
        values: Dict[str, Any] = {} if made is None else {
            item.name: getattr(made, item.name) for item in declared(type(made))
            if item.option.applies_to(INFERENCE) and item.option.role != CACHE
            and getattr(made, item.name) != item.default}
        return sorted(values.items())

    def _call(self, session: InferenceSession) -> Call:
        compiled(session, self.chosen.plugin)
        side = self.built.input_size
        images: Any = random_images(
            (session.samples_per_call, 3, side, side),
            "uint8" if self.plan.pixels == "uint8" else "float32", 0)
        # channels last in memory, as in loaders
        images = images.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
        if not session.takes_arrays:
            import torch

            images = torch.from_numpy(images)
        count = max(1, session.in_flight)

        def calls() -> None:
            for wait in [session.start(images) for _ in range(count)]:
                wait()

        return calls, count * session.samples_per_call
