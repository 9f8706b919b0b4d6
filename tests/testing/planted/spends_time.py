"""A plugin module that spends time when it is imported."""

import time

import ipucnn

time.sleep(0.6)


def factor(epoch):
    return 1.0


@ipucnn.hookimpl
def ipucnn_lr_schedules():
    return [ipucnn.ScheduleSpec(name="planted", summary="planted", target=factor)]
