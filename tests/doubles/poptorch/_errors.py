"""Errors. The real ones keep their details on the class, so these do as well."""


class Error(Exception):
    type = ""
    message = ""
    location = ""


class RecoverableError(Error):
    recovery_action = ""


class UnrecoverableError(Error):
    pass


def failure(message, kind="poptorch_cpp_error", error=Error):
    """Return an error with its details set, whose text is longer than its message."""
    error.type, error.message, error.location = kind, message, ""
    return error(f"In poptorch/source/Double.cpp:1: '{kind}': {message}\nError raised in:\n  [0]")
