"""Transfers that overlap with computation: which inputs, and what PopART refuses about them."""

from popart import _enums
from popart._builder import EXCHANGE, TILES
from popart._errors import popart_exception

_OVERLAPS = (_enums.ExchangeStrategy.OverlapInnerLoop, _enums.ExchangeStrategy.OverlapLoops)


def overlapping(model):
    """Return the tile set and the strategy of the inputs that overlap with computation."""
    stated = {one.key: int(one.value) for one in model.metadata_props
              if one.key.startswith((TILES + "/", EXCHANGE + "/"))}
    found = {}
    for value in model.graph.input:
        strategy = stated.get(f"{EXCHANGE}/{value.name}", 0)
        if strategy in [one.value for one in _OVERLAPS]:
            found[value.name] = (_enums.TileSet(stated[f"{TILES}/{value.name}"]),
                                 _enums.ExchangeStrategy(strategy))
    return found


def verify(model, options, flow):
    """Refuse overlap without what it needs; see `Ir::verifyOverlapIOSettings`."""
    arts = [flow.art(name) for name in flow.anchors()]
    marks = [*overlapping(model).values(), *((art.tileSet(), art.exchangeStrategy())
                                             for art in arts)]
    if options.enableExplicitMainLoops and not options.useHostCopyOps:
        raise popart_exception("enableExplicitMainLoops requires useHostCopyOps.")
    if any(strategy is _enums.ExchangeStrategy.OverlapStep for _, strategy in marks):
        raise popart_exception("ExchangeStrategy::OverlapStep is not yet supported.")
    marks = [mark for mark in marks if mark[1] in _OVERLAPS]
    if not marks:
        return
    if not (options.useHostCopyOps and options.enableExplicitMainLoops
            and options.virtualGraphMode is not _enums.VirtualGraphMode.Off):
        raise popart_exception(
            "ExchangeStrategy::OverlapInnerLoop, ExchangeStrategy::OverlapLoops require "
            "SessionOptions::useHostCopyOps, SessionOptions::enableExplicitMainLoops, "
            "VirtualGraphMode::(Manual, Auto, ExecutionPhases) to be enabled.")
    tiles = getattr(options.numIOTiles, "_value", options.numIOTiles) or 0
    if any(tile_set is _enums.TileSet.IO for tile_set, _ in marks) and tiles < 32:
        raise popart_exception(f"No IO tiles are set aside, or too few: {tiles}")
    if options.enablePipelining:
        raise popart_exception("the double: overlapped transfers with a pipeline")
    wanted = (_enums.AnchorReturnTypeId.All, _enums.AnchorReturnTypeId.Sum)
    if any(art.exchangeStrategy() in _OVERLAPS and art.id() not in wanted for art in arts):
        raise popart_exception("Unsupported output mode for overlapped IO")
