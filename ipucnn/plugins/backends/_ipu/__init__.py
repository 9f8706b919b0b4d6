"""Common code of the two IPU backends: options, checks, devices and error messages.

Not a plugin. Only `plugins/backends/poptorch` and `plugins/backends/popart` import it.
"""
