"""The batch algebra, and plans that no backend can execute."""

from __future__ import annotations

import pytest

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan


def test_batch_algebra():
    plan = ExecutionPlan(micro_batch=4, device_iterations=2, replicas=4, gradient_accumulation=64,
                         pipeline_splits=("layer1/2", "layer2/3", "layer3/3"), training=True)
    assert plan.stages == 4
    assert plan.devices == 16
    assert plan.combined_batch == 4 * 2 * 4 * 64
    assert plan.update_batch == 4 * 4 * 64
    assert plan.validation_iterations == 4


@pytest.mark.parametrize(("values", "message"), [
    ({"micro_batch": 0}, "'--batch-size': 0 is too small"),
    ({"device_iterations": -1}, "'--device-iterations': -1 is too small"),
    ({"replicas": 3, "instances": 2}, "3 replicas cannot be divided among 2 instances"),
    ({"precision": "8.8"}, "unknown precision '8.8'"),
    ({"normalisation": "moon"}, "unknown place of normalisation 'moon'"),
    ({"normalisation": "host"}, "8-bit input and normalisation on the host"),
    ({"pipeline_splits": ("a", "b", "a"), "device_iterations": 4}, "split 'a' is repeated"),
    ({"pipeline_splits": ("a/b", "a.b"), "device_iterations": 3}, "split 'a.b' is repeated"),
    ({"pipeline_splits": ("a",)}, "2 pipeline stages need at least 2 device iterations"),
    ({"pipeline_splits": ("a", "b"), "training": True, "gradient_accumulation": 4},
     "at least 5"),
])
def test_impossible_plans_are_refused(values, message):
    with pytest.raises(UsageError) as caught:
        ExecutionPlan(**values)
    assert message in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_the_smallest_pipelines_are_taken():
    assert ExecutionPlan(pipeline_splits=("a",), device_iterations=2).stages == 2
    assert ExecutionPlan(pipeline_splits=("a",), training=True, gradient_accumulation=3).stages == 2


def test_the_part_of_an_instance_is_a_plan_of_its_own():
    plan = ExecutionPlan(micro_batch=3, device_iterations=2, replicas=4, instances=2)
    assert (plan.local().combined_batch, plan.local().replicas, plan.local().instances) == (
        plan.local_batch, 2, 1)
