"""Selects the micro-batch of a training by measurement: `--batch-size auto`."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Optional, Tuple

from ipucnn.core.errors import OutOfMemoryError, UsageError
from ipucnn.core.execution.instances import Instances
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import Chosen
from ipucnn.core.execution.session_checks import compiled, opened
from ipucnn.core.execution.training_session import TrainingBatch, TrainingSession, TrainingSetup
from ipucnn.core.machine import available_memory
from ipucnn.core.options.parts import NetworkPart
from ipucnn.core.registry.records import LossSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.models.batch_search import Call, Found, Record, check_backend, search
from ipucnn.models.build import build_model, seeded
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.options.training_parts import OptimisationPart
from ipucnn.training.setup.defaults import FEWEST_UPDATES, base_rate
from ipucnn.training.setup.parameters import freeze
from ipucnn.training.setup.rates import optimizer_choice

if TYPE_CHECKING:
    import torch

_MOST = 1024
"""Largest micro-batch to measure, for generated data."""

_SHARE = 0.5
"""Maximum share of the available memory for activations on a CPU."""


def with_measured_batch(options: TrainOptions, network: NetworkPart, chosen: Chosen,
                        plan: ExecutionPlan, images: Optional[int],
                        sharing: Tuple[Instances, Registry]) -> Tuple[TrainOptions, str]:
    """Return the options with a number for `--batch-size auto`, and a note.

    Accumulation, replicas and a given learning rate are not changed.

    Args:
        options: of the training.
        network: its network, with the number of classes.
        chosen: the backend.
        plan: of the training, with the preprocessing.
        images: number of training images; None for generated data.
        sharing: the processes of the training, of which the first one measures, and the registry.

    Raises:
        UsageError: it cannot be measured for this training.
    """
    instances, registry = sharing
    check_backend(chosen.spec)
    if options.execution.pipeline_splits:
        raise UsageError("'--batch-size auto' cannot be used with '--pipeline-splits'",
                         "give a number, or leave the splits out")
    fewest, most = _limits(options, images)
    found = None
    if not instances.index:
        found = _found(options, network, chosen, plan, registry, (fewest, most))
    size, note = instances.gather([found.size, found.note] if found else ["", ""])[0]
    options = options.with_values(batch_size=size)
    update = size * options.execution.replicas * options.execution.gradient_accumulation
    rate = options.optimisation.lr
    if rate is None:
        rate_note = f"learning rate {base_rate(options, registry):g} for this number"
    else:
        rate_note = f"learning rate {rate:g} as given"
    return options, f"{note}; an update has {update} images, {rate_note}"


def _limits(options: TrainOptions, images: Optional[int]) -> Tuple[int, int]:
    """Return the smallest and the largest micro-batch to measure for a training."""
    fewest = 1
    while fewest < options.augmentation.least_micro_batch:
        fewest *= 2
    if images is None:
        return fewest, _MOST
    execution = options.execution
    others = execution.replicas * execution.gradient_accumulation
    calls = images // (others * execution.device_iterations)
    # as without the option: several updates per epoch, and full calls
    return fewest, max(fewest, min(calls, max(2, images // (others * FEWEST_UPDATES))))


def _found(options: TrainOptions, network: NetworkPart, chosen: Chosen, plan: ExecutionPlan,
           registry: Registry, limits: Tuple[int, int]) -> Found:
    made = _Measured(options, network, chosen, plan, registry)
    values = {
        "job": "training", "backend": chosen.spec.name, "device": chosen.probe.device,
        "precision": plan.precision, "size": plan.preprocessing.input_size, "pixels": plan.pixels,
        "recompute": (plan.recompute, plan.recompute_checkpoints), "limits": limits,
        "optimizer": options.optimisation.optimizer, "ema": bool(options.optimisation.ema_decay),
        "trained": sum(each.requires_grad for each in made.module.parameters()),
        "options": options.plugins.of("backend", chosen.spec.name)}
    shapes = [(name, tuple(value.shape)) for name, value in made.module.state_dict().items()]

    def measured() -> Found:
        with ExitStack() as held:
            made.held = held
            return search(made.caller, *limits)

    place = getattr(values["options"], "device", None)
    return Record.of(f"{made.module!r} {shapes}", values, place).result(measured)


class _Measured:
    """Executes training steps of single micro-batches with random images."""

    def __init__(self, options: TrainOptions, network: NetworkPart, chosen: Chosen,
                 plan: ExecutionPlan, registry: Registry) -> None:
        self._options, self._chosen, self._registry = options, chosen, registry
        self._network = replace(network, weights="random", weights_partial=False, ema=None)
        self._plan = replace(plan, replicas=1, instances=1, gradient_accumulation=1,
                             device_iterations=1)
        self.held = ExitStack()
        self.module = self._built()
        self._bytes = self._stored()

    def caller(self, size: int) -> Call:
        """Return what makes a training step; see `search`."""
        import torch

        self.held.close()  # the memory of the size before
        memory = available_memory()
        if self._chosen.probe.device.startswith("CPU") and memory is not None \
                and size * self._bytes > _SHARE * memory:
            raise OutOfMemoryError(f"a micro-batch of {size} does not fit into the memory")
        plan = replace(self._plan, micro_batch=size)
        module = self._built()
        spec = self._registry.get_typed(LossSpec, OptimisationPart.loss)
        session = self.held.enter_context(opened(self._chosen.backend.training(
            module, plan, TrainingSetup(
                loss=self._registry.make(spec, options=None),
                optimizer=optimizer_choice(self._options, self._registry),
                ema_decay=self._options.optimisation.ema_decay, tolerate_non_finite=True,
                metrics=not self._options.results.disable_metrics),
            plan.preprocessing.input_size), TrainingSession, self._chosen.plugin))
        compiled(session, self._chosen.plugin)
        session.set_rates(0.0, 1.0)
        side = plan.preprocessing.input_size
        images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8,
                               generator=torch.Generator().manual_seed(0))
        images = images.contiguous(memory_format=torch.channels_last)
        batch = TrainingBatch(images if plan.pixels == "uint8" else images.float(),
                              torch.zeros(size, dtype=torch.int64))
        return lambda: session.step(batch, 0), size

    def _built(self) -> torch.nn.Module:
        with seeded(self._options.dataset.seed):
            module: torch.nn.Module = build_model(
                self._network, self._options.plugins, self._registry).module
        freeze(module, self._options)
        return module

    def _stored(self) -> int:
        """Return the bytes of an image's values for the backward pass; 0 where not known."""
        from ipucnn.models.footprint import trace

        with suppress(Exception):  # a network that cannot be traced
            found = trace(self.module, self._plan.preprocessing.input_size)
            return found.total("stored", 0, len(found.calls)) * (2 if self._plan.half else 4)
        return 0
