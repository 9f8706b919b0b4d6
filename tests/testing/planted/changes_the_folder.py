"""A plugin module that changes the working directory when it is imported."""

import os
import tempfile

import ipucnn

os.chdir(tempfile.gettempdir())


def factor(epoch):
    return 1.0


@ipucnn.hookimpl
def ipucnn_lr_schedules():
    return [ipucnn.ScheduleSpec(name="planted", summary="planted", target=factor)]
