"""`--instances N`: one run shared by N processes on this machine.

The parent (`run`) starts the processes, listens and makes one result; each child executes the same
job as a run of one process, with its share of the images and of the cores.
"""

from ipucnn.core.bulk.parent import run

__all__ = ["run"]
