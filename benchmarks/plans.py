"""Plans a training of every built-in model on pipelines of IPUs, without executing anything.

    python benchmarks/plans.py

For each model and number of stages: the splits of `--pipeline-splits auto:N`, their balance, the
estimated memory of the largest stage in MiB, and where it fits. `seconds` is the processor time of
each plan.
"""

from __future__ import annotations

import time
from typing import Any, Dict, Optional

from common import save

from ipucnn.api.jobs import plan
from ipucnn.core.errors import UsageError
from ipucnn.core.registry.registry import registry

STAGES = (1, 2, 4, 8)
OPTIONS: Dict[str, Any] = {"data": "imagenet", "batch_size": 4, "gradient_accumulation": 64,
                           "precision": "16.16", "optimizer": "sgd"}
MIB = 1 << 20


def planned(model: str, stages: int, **options: Any) -> Optional[Dict[str, Any]]:
    """Return the plan of a model in so many stages; None if it cannot be cut into as many."""
    splits = [f"auto:{stages}"] if stages > 1 else []
    begun = time.process_time()
    try:
        made = plan(model=model, pipeline_splits=splits, **{**OPTIONS, **options}).as_dict()
    except UsageError:
        return None
    pipeline = made["pipeline"]
    return {
        "begins_at": made["begins_at"], "balance": pipeline["balance"],
        "fill": pipeline["fill"],
        "memory": {found["device"]: {"largest_mib": round(found["largest"] / MIB, 1),
                                     "estimate": found["verdict"]}
                   for found in pipeline["memory"]},
        "seconds": round(time.process_time() - begun, 2)}


def main() -> None:
    """Plan all models and save what is found."""
    rows = {name: {str(stages): planned(name, stages) for stages in STAGES}
            for name in registry().names("model")}
    save("plans", {"what": "plans of one replica of every built-in model", "options": OPTIONS,
                   "longest_seconds": max(row["seconds"] for stages in rows.values()
                                          for row in stages.values() if row),
                   "models": rows})


if __name__ == "__main__":
    main()
