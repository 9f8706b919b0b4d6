"""Settings of the C library's memory allocator for processes that compute.

By default glibc returns large blocks to the system as soon as they are freed, so that the tensors
of every step are mapped, zeroed and unmapped again, and uses pages of 4 KiB. Kept memory and huge
pages are faster; `benchmarks/allocator.py` measures by how much.
Sources: glibc manual, "Malloc Tunable Parameters"; Linux `Documentation/admin-guide/mm/
transhuge.rst`.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from ipucnn.core.machine import memory_limit, usable_cores

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""Parameters of glibc's `mallopt`."""

_MADV_HUGEPAGE, _HUGE_PAGE = 14, 1 << 21
"""The advice `MADV_HUGEPAGE`, and the size of a huge page in bytes."""

_CONFIGURED = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_")
"""Beginnings of environment variables by which users configure the allocator themselves."""


@lru_cache(maxsize=None)
def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next tensors, in huge pages where possible.

    This concerns the whole process, and holds until it ends: its resident memory stays at its
    largest. Nothing changes without glibc, or if the environment configures the allocator.

    Returns:
        Whether the allocator was set.
    """
    if any(name.startswith(_CONFIGURED) and value for name, value in os.environ.items()):
        return False
    import ctypes

    try:
        library = ctypes.CDLL(None)
        set_parameter = library.mallopt
        library.malloc.restype = ctypes.c_void_p
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    # at a single arena, the threads of engines wait for each other; with eight per core, glibc's
    # default, less is allocated in the first one, for whose heap huge pages are recommended
    done = [set_parameter(_MMAP_MAX, 0), set_parameter(_TRIM_THRESHOLD, -1),
            set_parameter(_ARENA_MAX, usable_cores())]
    _advise_huge_pages(library)
    return all(done)


def _advise_huge_pages(library: Any) -> None:
    """Extend the heap by address space, without memory, and recommend huge pages for it.

    This is left out if the address space of the process is limited, which would then be missing
    for other memory.
    """
    import ctypes
    import resource

    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return
    size = memory_limit() // 2
    block = library.malloc(ctypes.c_size_t(size))
    if block is None:  # the system does not commit so much
        return
    begin = -(-block // _HUGE_PAGE) * _HUGE_PAGE
    end = (block + size) // _HUGE_PAGE * _HUGE_PAGE
    library.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_HUGEPAGE)
    library.free(ctypes.c_void_p(block))
