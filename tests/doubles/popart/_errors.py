"""PopART's exceptions, with the parents that the contract gives them."""


class popart_exception(Exception):
    pass


class popart_internal_exception(popart_exception):
    pass


class popart_runtime_error(popart_exception):
    pass


class OutOfMemoryException(popart_exception):
    def __init__(self, e):
        super().__init__(str(e))
        self.error = e

    def getSummaryReport(self):
        return "the double keeps no profile"

    def getProfilePath(self):
        return ""


class poplibs_exception(Exception):
    pass


class poplar_exception(Exception):
    pass


class poplar_runtime_error(poplar_exception):
    pass


class poplar_application_runtime_error(poplar_runtime_error):
    pass


class poplar_system_runtime_error(poplar_runtime_error):
    pass


class poplar_recoverable_runtime_error(poplar_system_runtime_error):
    pass


class poplar_unrecoverable_runtime_error(poplar_system_runtime_error):
    pass


class poplar_unknown_runtime_error(poplar_system_runtime_error):
    pass
