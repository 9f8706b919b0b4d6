"""Cuts a model into the modules of its pipeline stages, with the names of its parameters."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Sequence, Set, Tuple

from torch import fx, nn

from ipucnn.core.errors import UsageError
from ipucnn.plugins.backends.torch.folding import ThreadTracer, tracing


class Cut:
    """A model cut at its splits.

    Only the modules around a split are traced with torch.fx; all others are called as they are,
    with their hooks. Values that a later stage needs are passed through the stages in between.

    Args:
        model: the network; a stage refers to its modules.
        splits: paths of the modules that begin stages 1, 2, ..., as `resolve_splits` returns them.

    Attributes:
        names: those of the parameters and saved buffers of each stage.

    Raises:
        UsageError: the model cannot be traced, a stage has no parameters, or two share one.
    """

    def __init__(self, model: nn.Module, splits: Sequence[str]) -> None:
        self._model = model
        paths = [split.replace("/", ".") for split in splits]
        tracer = _Splitter(paths)
        try:
            with tracing:
                graph = tracer.trace(model)
        except Exception as error:  # tracing runs the model's own Python code on proxies
            raise UsageError(
                "the model cannot be cut into stages for several processes: "
                f"{(str(error).strip().splitlines() or [type(error).__name__])[0]}",
                "name splits that are not within a module with control flow, or start one "
                "process, which computes all stages") from error
        begins = [tracer.begins[path] for path in paths]
        self._nodes = list(graph.nodes)
        self._bounds = [0, *begins, len(self._nodes)]
        self.names = [self._names_of(stage) for stage in range(len(paths) + 1)]
        self._check(splits)

    def stage(self, number: int) -> fx.GraphModule:
        """Return the module of one stage; its inputs and outputs are in the order of `passed`."""
        graph = fx.Graph()
        new: Dict[fx.Node, fx.Node] = {}
        copied: Set[fx.Node] = set()
        if number:
            for position, node in enumerate(self._passed(number)):
                new[node] = graph.placeholder(f"passed_{position}")
        for node in self._nodes[self._bounds[number]:self._bounds[number + 1]]:
            if node.op == "output":
                continue
            for argument in node.all_input_nodes:
                # an operation in place would change what was received, of which autograd needs
                # the original
                if argument in new and new[argument].op == "placeholder" and number \
                        and argument not in copied and _in_place(self._model, node):
                    new[argument] = graph.call_method("clone", (new[argument],))
                    copied.add(argument)
            new[node] = graph.node_copy(node, lambda argument: new[argument])
        if self._bounds[number + 1] == len(self._nodes):
            result: Any = fx.node.map_arg(self._nodes[-1].args[0], lambda argument: new[argument])
        else:
            result = tuple(new[node] for node in self._passed(number + 1))
        graph.output(result)
        return fx.GraphModule(self._model, graph)

    def _passed(self, stage: int) -> List[fx.Node]:
        """Return the values that stage `stage` and later ones need of earlier ones."""
        before = self._nodes[:self._bounds[stage]]
        later = set(self._nodes[self._bounds[stage]:])
        return [node for node in before if any(user in later for user in node.users)]

    def _names_of(self, stage: int) -> List[str]:
        """Return the names of the saved tensors of a stage."""
        saved = self._model.state_dict(keep_vars=True)
        names: List[str] = []
        for node in self._nodes[self._bounds[stage]:self._bounds[stage + 1]]:
            if node.op in ("call_module", "get_attr"):
                target = str(node.target)
                names += [name for name in saved if name not in names
                          and (name == target or name.startswith(target + "."))]
        return names

    def _check(self, splits: Sequence[str]) -> None:
        found: Dict[int, Tuple[int, str]] = {}
        tensors = {**dict(self._model.named_parameters(remove_duplicate=False)),
                   **dict(self._model.named_buffers(remove_duplicate=False))}
        for stage, names in enumerate(self.names):
            if not names:
                begin = repr(splits[stage - 1]) if stage else "the input"
                raise UsageError(
                    f"the pipeline stage that begins at {begin} has no parameters, so that a "
                    "process would have nothing to train", "move or leave out a split beside it")
            for name in names:
                tensor = tensors.get(name)
                if tensor is None:
                    continue
                other, known = found.setdefault(id(tensor), (stage, name))
                if other != stage:
                    raise UsageError(
                        f"stages {other + 1} and {stage + 1} share the parameter {known!r}",
                        "name other splits, or start one process")


class _Splitter(ThreadTracer):
    """A tracer that enters only the modules around a split.

    Attributes:
        begins: number of nodes before each split.
    """

    def __init__(self, splits: Sequence[str]) -> None:
        super().__init__()
        self._splits = list(splits)
        self.begins: Dict[str, int] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        del m
        return not any(split.startswith(module_qualified_name + ".") for split in self._splits)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Tuple[Any, ...],
                    kwargs: Dict[str, Any]) -> Any:
        if self.is_own_thread():
            path = self.path_of_module(m)
            if path in self._splits:
                self.begins[path] = len(self.graph.nodes)
        return super().call_module(m, forward, args, kwargs)


def _in_place(model: nn.Module, node: fx.Node) -> bool:
    """Return whether a node may overwrite its inputs."""
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        return any(getattr(each, "inplace", False) for each in module.modules())
    if node.op == "call_method":
        return str(node.target).endswith("_")
    if node.kwargs.get("inplace"):
        return True
    home = getattr(node.target, "__module__", "")
    return home in ("_operator", "operator") and str(
        getattr(node.target, "__name__", "")).startswith("i")
