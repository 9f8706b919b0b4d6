"""What is told of a plugin: in a listing, and when it is shown by itself."""

from __future__ import annotations

from typing import Any, Dict, List

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.records import ModelSpec, kind_named
from ipucnn.core.registry.registry import Row, registry


def entry(row: Row) -> Dict[str, Any]:
    """Return a row of a listing as plain types."""
    return {
        "kind": row.kind, "name": row.name,
        "aliases": list(row.spec.aliases) if row.spec else [],
        "summary": row.spec.summary if row.spec else "",
        "distribution": row.provider.distribution, "version": row.provider.version,
        "entry_point": row.provider.entry_point, "value": row.provider.value,
        "state": row.state.value, "cause": row.cause, "remedy": row.remedy,
    }


def describe(kind_name: str, name: str) -> Dict[str, Any]:
    """Return everything worth knowing of one plugin, as plain types.

    Raises:
        UnknownNameError: nothing provides it.
    """
    kind = kind_named(kind_name)
    spec = registry().get(kind.name, name)
    row = next(row for row in registry().rows(kind.name) if row.spec is spec)
    described: Dict[str, Any] = {key: value for key, value in entry(row).items()
                                 if key not in ("value",)}
    if isinstance(spec, ModelSpec):
        from ipucnn.models.build import describe_model

        described.update(describe_model(name))
    else:
        described.update({key: list(value) if isinstance(value, tuple) else value
                          for key, value in spec.facts().items()})
    return described


def splits(kind_name: str, name: str) -> List[str]:
    """Return the modules of a model that can begin a pipeline stage, in order of execution.

    Raises:
        UsageError: it is no model.
    """
    if kind_named(kind_name).name != "model":
        raise UsageError(f"'--splits' is for models, not for a {kind_named(kind_name).name}")
    from ipucnn.models.build import model_splits

    return model_splits(name)
