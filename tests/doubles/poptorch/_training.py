"""What a compiled training program holds and does: device weights, gradients, updates."""

import copy
from contextlib import nullcontext

import torch

from poptorch import _updates
from poptorch._half import HalfArithmetic
from poptorch._losses import marked


class Device:
    """The weights on the IPUs and the optimizer's state beside them."""

    def __init__(self, model, replicas):
        self.model = model
        self.buffers = [None] * replicas
        self.state = {}
        self.calls = 0

    def take(self, host):
        """Copy the host's weights to every replica."""
        upload(self.model, host)
        self.buffers = [[b.clone() for b in self.model.buffers()] for _ in self.buffers]

    def give(self, host):
        """Copy the weights, and the first replica's buffers, to the host."""
        with torch.no_grad():
            for mine, theirs in zip(self.model.parameters(), host.parameters()):
                theirs.copy_(mine)
            for mine, theirs in zip(self.buffers[0], host.buffers()):
                theirs.copy_(mine)

    def enter(self, replica):
        for place, value in zip(self.model.buffers(), self.buffers[replica]):
            place.data = value  # each replica updates its own in place


@torch.no_grad()
def upload(model, host):
    """Copy the host's weights as they are in its memory: PopTorch passes pointers, no strides."""
    for mine, theirs in zip((*model.parameters(), *model.buffers()),
                            (*host.parameters(), *host.buffers())):
        strides = torch.empty(theirs.shape, device="meta").stride()
        mine.copy_(theirs.detach().as_strided(theirs.shape, strides))


def half(model, arguments):
    tensors = [t for t in arguments if t is not None]
    return any(t.dtype == torch.float16 for t in [*tensors, *model.parameters(), *model.buffers()])


def run(device, options, optimizer, parts, seed):
    """Make one host call; return the outputs of every micro-batch."""
    steps, replicas = options.Training.gradient_accumulation, options.replication_factor
    model, outputs = device.model, []
    named = dict(model.named_parameters())
    processes = options.Distributed.numProcesses
    share = 1 / (steps * replicas * processes) if options.Training.mean_reduction else 1.0
    for iteration in range(options.device_iterations):
        sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in named.items()
                if p.requires_grad}
        for step in range(steps):
            for replica in range(replicas):
                device.enter(replica)
                part = parts[(iteration * steps + step) * replicas + replica]
                with torch.random.fork_rng(devices=[]), torch.enable_grad(), \
                        HalfArithmetic() if half(model, part) else nullcontext():
                    torch.manual_seed(seed * 1000003 + device.calls * 1009 + replica
                                      + 101 * options.Distributed.processId)
                    result, loss = marked(model, part)
                    found = torch.autograd.grad(
                        loss * optimizer.loss_scaling, [named[name] for name in sums],
                        grad_outputs=torch.ones_like(loss), allow_unused=True)
                device.calls += 1
                for name, gradient in zip(sums, found):
                    if gradient is not None:
                        sums[name] += gradient.float() / optimizer.loss_scaling * share
                outputs.append(tuple(t.detach().clone() for t in (
                    result if isinstance(result, tuple) else (result,))))
        if processes > 1:  # the IPUs of all instances reduce among themselves
            for name in sorted(sums):
                torch.distributed.all_reduce(sums[name])
        _step(device, optimizer, sums)
    device.enter(0)
    return outputs


def _step(device, optimizer, gradients):
    named = dict(device.model.named_parameters())
    for group, names in zip(optimizer.param_groups, device.groups):
        for name in names:
            _updates.update(optimizer, group, named[name], gradients[name],
                            device.state.setdefault(name, {}))


def state_of(device):
    """Return the optimizer's state as the host gets it."""
    return {"ipu_state": {f"{kind}___{name}": value.clone()
                          for name, state in device.state.items()
                          for kind, value in state.items()},
            "ipu_param": {}}


def take_state(device, saved):
    device.state = {}
    for key, value in saved["ipu_state"].items():
        kind, _, name = key.partition("___")
        device.state.setdefault(name, {})[kind] = copy.deepcopy(value)
