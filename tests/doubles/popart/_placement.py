"""Which IPU and pipeline stage each operation is on, and what PopART refuses about that."""

from popart import _models
from popart._builder import IPU, RECOMPUTE, STAGE
from popart._enums import RecomputationType, VirtualGraphMode
from popart._errors import popart_exception


def verify(model, options, device, steps, training, losses=()):
    """Check virtual graphs, pipeline stages and recomputation; return the number of stages."""
    constant = _models.constants(model, training)
    nodes = [node for node in model.graph.node if not set(node.output) <= constant]
    marks = [{one.name: one.i for one in node.attribute if one.name.startswith("__")}
             for node in nodes]
    graphs = device.numIpus // options.replicatedGraphCount
    mode = options.virtualGraphMode
    _check_graphs(nodes, marks, graphs, mode)
    _check_recomputation(nodes, marks, options, losses)
    if not options.enablePipelining:
        return 1
    if mode is VirtualGraphMode.Off or graphs == 1:
        raise popart_exception(
            f"Pipelining requires more than 1 IPU (currently {graphs}) and the 'virtualGraphMode' "
            f"session option to not be VirtualGraphMode::Off (currently {mode}).")
    stages = _stages(nodes, marks, mode, graphs)
    depth, needed = steps, stages
    name = "batchesPerStep"
    if training:
        depth, needed, name = (options.accumulationFactor, 2 * stages - 1,
                               "gradient accumulation factor")
    if depth < needed:
        raise popart_exception(f"For pipelining, depth ({name}) must equal at least the number of "
                               f"pipeline stages ({needed})")
    return stages


def _check_graphs(nodes, marks, graphs, mode):
    placed = [mark[IPU] for mark in marks if IPU in mark]
    if mode is VirtualGraphMode.Off:
        if placed:
            raise popart_exception(f"SessionOptions flag virtualGraphMode is {mode}, but at least "
                                   "one op has virtualGraphId set.")
        return
    if placed and len(placed) < len(nodes):
        bare = [node.op_type for node, mark in zip(nodes, marks) if IPU not in mark]
        raise popart_exception("Either all Ops must have their virtual graph ids set, or none "
                               f"must. Ops with no virtual graph id : {bare}")
    if not placed and mode is VirtualGraphMode.Manual:
        raise popart_exception(f"SessionOptions flag virtualGraphMode is {mode}, but no Ops have "
                               "been annotated with virtual graph information. This is an "
                               "inconsistent combination. ")
    if placed and max(placed) >= graphs:
        raise popart_exception(f"virtual graph {max(placed)} is on none of the {graphs} IPUs of a "
                               "replica")


def _check_recomputation(nodes, marks, options, losses):
    marked = any(RECOMPUTE in mark for mark in marks)
    if options.enableExplicitMainLoops and not options.explicitRecomputation and (
            marked or options.autoRecomputation is not RecomputationType.NoRecompute):
        raise popart_exception("the double: operations in explicit loops are recomputed only "
                               "with explicitRecomputation")
    if marked and options.autoRecomputation is not RecomputationType.NoRecompute:
        raise popart_exception("A mixture of auto and manual recomputation is not supported")
    if marked and options.enablePipelining:
        raise popart_exception("When pipelining is enabled, user annotation for recomputation is "
                               "not allowed")
    leading = set(losses)
    for node in reversed(nodes):  # those from which a loss is computed
        if leading & set(node.output):
            leading.update(node.input)
    for node, mark in zip(nodes, marks):
        if RECOMPUTE in mark and (set(losses) & set(node.output)
                                  or not leading & set(node.output)):
            raise popart_exception("Recompute Op which is ScheduledPreLoss::No is not permitted: "
                                   f"{node.op_type} {node.name}")


def _stages(nodes, marks, mode, graphs):
    staged = [mark for mark in marks if STAGE in mark]
    if staged and len(staged) < len(nodes):
        raise popart_exception("Only some ops have had their pipeline stage set.")
    if not staged and mode is VirtualGraphMode.Auto:
        return graphs
    key = STAGE if staged else IPU
    found = sorted({mark[key] for mark in marks})
    if found != list(range(len(found))):
        raise popart_exception(f"The set of pipeline stages for all Ops contains {len(found)} "
                               "stages, but a stage is missing")
    if len({(mark[STAGE], mark.get(IPU)) for mark in staged}) > len(found) > 0 and staged:
        raise popart_exception("All ops with the same pipeline stage must also have the same "
                               "virtual graph id")
    made = {}
    for node, mark in zip(nodes, marks):
        before = max((made.get(name, 0) for name in node.input), default=0)
        if mark[key] < before:
            raise popart_exception(f"For pipelining, forward layers must be sharded with "
                                   f"increasing IPU index: {node.op_type} is on {mark[key]} and "
                                   f"takes from {before}")
        made.update(dict.fromkeys(node.output, mark[key]))
    return len(found)
