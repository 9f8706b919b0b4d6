"""The training session: forward, backward and weight update in one program on the device."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Dict, Iterator, Optional

import numpy
import popart
import torch

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import (
    NonFiniteLoss,
    StateDict,
    StepResult,
    TrainingBatch,
    TrainingSession,
    TrainingSetup,
)
from ipucnn.data.mixup import draw
from ipucnn.onnx.module_graph import with_images
from ipucnn.plugins.backends._ipu.settings import PROFILE_FOLDER
from ipucnn.plugins.backends.popart.cache import set_cache_folder
from ipucnn.plugins.backends.popart.devices import acquire, reattach, release
from ipucnn.plugins.backends.popart.errors import device_errors
from ipucnn.plugins.backends.popart.losses import loss_form
from ipucnn.plugins.backends.popart.mixing_graph import mixing_inputs
from ipucnn.plugins.backends.popart.optimizers import make_optimizer
from ipucnn.plugins.backends.popart.options import PopArtOptions
from ipucnn.plugins.backends.popart.training_graph import (
    TrainingGraph,
    put_values,
    tensors_of,
    training_graph,
)
from ipucnn.plugins.backends.popart.training_settings import training_options
from ipucnn.plugins.backends.popart.transfers import returned

if TYPE_CHECKING:
    import onnx

_COUNTED = ".num_batches_tracked"
_WORD = 2**32


class PopArtTrainingSession(TrainingSession):
    """A call trains on B x D x R x G samples in D updates, without host interaction."""

    def __init__(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int, options: PopArtOptions) -> None:
        self._plan, self._setup, self._chosen = plan, setup, options
        self._loss = loss_form(setup.loss)
        self._images = torch.zeros(
            (plan.local_batch, 3, input_size, input_size), dtype=torch.uint8
            if plan.eight_bit_io else torch.float16 if plan.half else torch.float32)
        # values that the device does not return: frozen values, and numbers of batches
        self._state = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self._module, self._example = with_images(model.train(), plan, input_size)
        self._graph = self._made_graph()
        self._undecayed = [name for name in self._graph.trained if self._state[name].dim() < 2]
        self._rates = (setup.optimizer.lr, setup.loss_scaling)
        # constant during the training, because the device does not rescale a stored velocity
        self._velocity_scaling = setup.loss_scaling / options.loss_velocity_scaling_ratio
        self._optimizer = self._made_optimizer()
        self._device: Any = None
        self._session: Any = None
        self._host: Optional[onnx.ModelProto] = None
        self.facts: Dict[str, Any] = {
            "weights_type": "float16" if plan.precision == "16.16" else "float32",
            "arithmetic": "float16" if plan.half else "float32", "ipus": plan.local_devices,
            "recomputed": plan.recompute,
            "kept_for_backward": self._graph.kept}
        if self._graph.splits:
            self.facts["stages_begin_at"] = ["input", *self._graph.splits]
        if options.profile:
            self.facts["profile"] = PROFILE_FOLDER

    def compile(self) -> float:
        """Compile for the IPUs, or read the program from the cache, and load it."""
        started = time.perf_counter()
        plan, every = self._plan, returned(self._plan, self._chosen.num_io_tiles)
        options = training_options(plan, self._chosen, self._setup.optimizer.name)
        optimizer = self._setup.optimizer.name
        # PopART's hash has no variant of RMSprop; the state of the other one is initialised with
        # the weights
        set_cache_folder(options, self._graph.proto, optimizer.encode() + (
            self._graph.proto if optimizer == "sgd_combined" else b""))
        outputs = {self._graph.loss: every}
        if self._setup.metrics:
            outputs[self._graph.predicted] = every
        self._host = None
        with device_errors("be compiled for training", plan):
            self._device = acquire(plan, self._chosen)
            self._session = popart.TrainingSession(
                fnModel=self._graph.proto,
                dataFlow=popart.DataFlow(plan.device_iterations, outputs),
                loss=self._graph.loss, optimizer=self._optimizer, deviceInfo=self._device,
                userOptions=options)
            self._session.prepareDevice(not plan.compile_only)
            if not plan.compile_only:
                # a program from the cache contains the weights of the training that compiled it
                self._session.resetHostWeights(self._graph.proto)
                self._session.weightsFromHost()
                self._anchors = self._session.initAnchorArrays()
                for array in self._anchors.values():
                    array.fill(0)  # with synthetic data nothing is written to them
        return time.perf_counter() - started

    def set_rates(self, lr: float, loss_scaling: float) -> None:
        """Set the rates for the following calls; see `TrainingSession.set_rates`."""
        if (lr, loss_scaling) != self._rates:
            self._rates = lr, loss_scaling
            self._update_optimizer()

    def step(self, batch: TrainingBatch, update: int) -> StepResult:
        """Execute one host call; see `TrainingSession.step`."""
        plan = self._plan
        images = self._images if batch.images is None else batch.images.to(self._images.dtype)
        labels = (numpy.zeros(len(images), numpy.int32) if batch.labels is None
                  else batch.labels.numpy().astype(numpy.int32))
        with device_errors("be trained", plan):
            self._host = None
            if self._graph.random or self._chosen.enable_stochastic_rounding:
                self._session.setRandomSeed(self._seed(update))
            self._session.run(popart.PyStepIO(
                {self._graph.images: images.contiguous().numpy(), self._graph.labels: labels,
                 **self._mixing(batch)}, self._anchors))
        losses = (self._anchors[self._graph.loss].reshape(plan.device_iterations, -1).mean(
            1, dtype=numpy.float64) / plan.summed_share).tolist()
        for number, loss in enumerate(losses, update):
            if not math.isfinite(loss):
                raise NonFiniteLoss(number, loss)
        for path in self._graph.norms:
            self._state[path + _COUNTED] += plan.device_iterations * plan.gradient_accumulation
        correct = 0
        if self._setup.metrics and not plan.synthetic:
            correct = int((self._anchors[self._graph.predicted].reshape(-1) == labels).sum())
        return StepResult(sum(losses) / len(losses), len(images), correct, tuple(losses))

    def weights(self, ema: bool = False) -> StateDict:  # noqa: ARG002 - the device averages none
        """Return the weights; see `TrainingSession.weights`."""
        found = {name: value.clone() for name, value in self._state.items()}
        values, tensors = _values(self._read()), tensors_of(self._module)
        with torch.no_grad():
            for name in values.keys() & tensors.keys():
                tensors[name].copy_(values[name])
        found.update((name, value.float().clone())
                     for name, value in self._module.state_dict().items() if name in values)
        return found

    def state(self) -> Dict[str, Any]:
        """Return the optimizer's state, which PopART stores with the weights."""
        state: Dict[str, Any] = {
            "popart": {name: value for name, value in _values(self._read()).items()
                       if name not in self._state}}
        if self._setup.optimizer.name == "sgd_combined":
            state["velocity_scaling"] = self._velocity_scaling
        return state

    def load(self, weights: StateDict, state: Dict[str, Any],
             ema: Optional[StateDict] = None) -> None:  # noqa: ARG002
        """Continue from saved weights and state; see `TrainingSession.load`.

        Every replica gets the running statistics of the first one.
        """
        if "popart" not in state:
            raise IpucnnError("the checkpoint's optimizer state is not of PopART",
                              "restore it on the backend that wrote it, or start from its weights "
                              "with 'ipucnn train --weights FILE'")
        self._module.load_state_dict(weights)
        self._freeze(weights)
        model = self._read()
        saved = state["popart"]
        needed = {tensor.name for tensor in model.graph.initializer} - set(self._state)
        if set(saved) != needed:
            raise IpucnnError(
                f"the saved state is not of optimizer {self._setup.optimizer.name!r}",
                "restore with the options of the training")
        put_values(model, {**tensors_of(self._module), **saved})
        # the scale of the saved velocity; missing in older files
        self._velocity_scaling = state.get("velocity_scaling", self._velocity_scaling)
        self._update_optimizer()
        self._state = {name: value.clone() for name, value in weights.items()}
        with device_errors("take saved weights", self._plan):
            self._session.resetHostWeights(model.SerializeToString())
            self._session.weightsFromHost()
        self._host = None

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Release the IPUs to a validation, then attach again and restore the state."""
        self._read()
        with device_errors("leave the IPUs for validation", self._plan):
            self._device.detach()
        yield
        with device_errors("return to the IPUs after validation", self._plan):
            reattach(self._device)
            self._session.loadEngineAndConnectStreams()
            self._session.weightsFromHost()

    def close(self) -> None:
        """Release the IPUs and the program."""
        self._session = None
        if self._device is not None:
            release(self._device)
            self._device = None

    def _freeze(self, weights: StateDict) -> None:
        """Compile again if the program was compiled with other frozen values."""
        device = {tensor.name for tensor in self._read().graph.initializer}
        if all(torch.equal(weights[name], value) for name, value in self._state.items()
               if name not in device and not name.endswith(_COUNTED)):
            return
        self._graph = self._made_graph()
        self.close()
        self.compile()

    def _made_graph(self) -> TrainingGraph:
        with device_errors("be prepared for training", self._plan):
            return training_graph(self._module, self._example, self._plan, self._loss,
                                  self._setup.mix, self._chosen)

    def _made_optimizer(self) -> Any:
        return make_optimizer(
            self._setup.optimizer, *self._rates, self._velocity_scaling, self._undecayed)

    def _update_optimizer(self) -> None:
        self._optimizer = self._made_optimizer()
        with device_errors("take other rates", self._plan):
            self._session.updateOptimizerFromHost(self._optimizer)

    def _mixing(self, batch: TrainingBatch) -> Dict[str, Any]:
        """Return the arrays of the graph's further inputs, of a batch or of a synthetic one."""
        mix, plan = self._setup.mix, self._plan
        if not mix.enabled:
            return {}
        mixing = batch.mixing or draw(mix, 0, 0, range(plan.local_batch), plan.micro_batch,
                                      self._images.shape[2])
        return {name: numpy.ascontiguousarray(getattr(mixing, name).numpy(), numpy.float32)
                for name in mixing_inputs(mix, plan.micro_batch)}

    def _seed(self, update: int) -> int:
        """Return the seed of an update, so that updates in one call draw as in several.

        This holds for dropout and random operators, which derive their seeds from it.
        Stochastic rounding is seeded once for each call: its numbers depend on the device
        iterations of a call.

        For each micro-batch the device adds the number of replicas to its lower word, and one to
        its upper word.
        """
        plan = self._plan
        first, second = map(int, numpy.random.SeedSequence(plan.seed or 0).generate_state(2))
        passed = update * plan.gradient_accumulation
        return ((second + passed) % _WORD) * _WORD + (first + passed * plan.replicas) % _WORD

    def _read(self) -> onnx.ModelProto:
        """Return the model with the device's weights, which are also stored on the host."""
        import onnx

        if self._host is None:
            with TemporaryDirectory() as folder, device_errors("return its weights", self._plan):
                path = str(Path(folder, "model.onnx"))
                self._session.modelToHost(path)
                self._host = onnx.load(path)
        return self._host


def _values(model: onnx.ModelProto) -> StateDict:
    from onnx import numpy_helper

    return {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in model.graph.initializer}
