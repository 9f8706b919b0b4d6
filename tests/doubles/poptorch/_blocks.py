"""Marks on a model: which IPU a module runs on, which transfers overlap with computation."""

from collections import OrderedDict

import torch

from poptorch._enums import OverlapMode
from poptorch._errors import failure

TRACE = None
"""The `Trace` of the pass that is being captured; None outside, where all marks do nothing."""


class Trace:
    """The marks of a program, while it is captured."""

    def __init__(self, inputs):
        self.inputs = inputs
        self.ipus = [0]  # the IPU of each block in order; the first layers are on IPU 0
        self.block_ids = {}
        self.outputs = []
        self.modes = set()
        self.used = []
        self.marked = []
        self.kept = 0

    def begin(self, user_id, ipu_id):
        assert ipu_id is not None, f"no IPU was specified for block {user_id}"
        if user_id is None:
            user_id = str(len(self.block_ids))
        if self.block_ids.setdefault(user_id, ipu_id) != ipu_id:
            raise failure(f"block {user_id} is on two IPUs")
        if ipu_id < self.ipus[-1]:
            raise failure(f"stage {ipu_id} comes after stage {self.ipus[-1]}", "popart_exception")
        self.ipus.append(ipu_id)

    def use(self, arguments):
        """Take notice of an operation; an input whose transfer overlaps has no other."""
        for given in arguments:
            if any(given is marked for marked in self.marked):
                raise failure("poptorch.set_overlap_for_input must be the only op applied to an "
                              "input.")
            if any(given is one for one in self.inputs):
                self.used.append(given)

    def mark(self, given, mode):
        if any(given is one for one in self.used):
            raise failure("poptorch.set_overlap_for_input must be the only op applied to an "
                          "input.")
        if not any(given is one for one in self.inputs):
            raise failure("poptorch.set_overlap_for_input applied on a node which is not a tensor "
                          "input to the model.")
        self.modes.add(mode)
        marked = given.view_as(given)
        self.marked.append(given)
        return marked

    @property
    def overlaps(self):
        return bool(self.modes)

    @property
    def stages(self):
        """1 and the number of changes of IPU along the model."""
        return 1 + sum(before != after for before, after in zip(self.ipus, self.ipus[1:]))


class _BlockHook:
    def __init__(self, user_id, ipu_id):
        self.user_id = user_id
        self.ipu_id = ipu_id

    def __call__(self, module, inputs):
        if TRACE is not None:
            TRACE.begin(self.user_id, self.ipu_id)


def BeginBlock(layer_to_call, user_id=None, ipu_id=None):
    assert isinstance(layer_to_call, torch.nn.Module)
    if any(isinstance(hook, _BlockHook) for hook in layer_to_call._forward_pre_hooks.values()):
        raise failure("module has already been assigned to a block.")
    layer_to_call.register_forward_pre_hook(_BlockHook(user_id, ipu_id))
    return layer_to_call


def removeBlocks(module):
    for part in module.modules():
        part._forward_pre_hooks = OrderedDict(
            (key, hook) for key, hook in part._forward_pre_hooks.items()
            if not isinstance(hook, _BlockHook))


def set_overlap_for_input(input_tensors, mode):
    if TRACE is None or mode is OverlapMode.NoOverlap:
        return input_tensors
    return TRACE.mark(input_tensors, mode)


def set_overlap_for_output(output_tensors, mode):
    if TRACE is not None and mode is not OverlapMode.NoOverlap:
        TRACE.modes.add(mode)
        TRACE.outputs.append(output_tensors)
    return output_tensors


def recomputationCheckpoint(*tensors):
    if TRACE is not None:
        TRACE.kept += 1
    return tensors[0] if len(tensors) == 1 else tensors
