"""A plugin module that imports torch."""

import torch  # noqa: F401 - the mistake

import ipucnn


def factor(epoch):
    return 1.0


@ipucnn.hookimpl
def ipucnn_lr_schedules():
    return [ipucnn.ScheduleSpec(name="planted", summary="planted", target=factor)]
