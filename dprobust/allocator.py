"""Memory of a training stays with the process from step to step, on Linux with glibc.

A step allocates and frees the same tensors, tens of megabytes, again and again. glibc hands large ones back to the
system and asks for them anew, and the system clears each page and maps it when it is first touched: thousands of page
faults a step (`make bench` measures what that costs). Two settings of malloc keep them.
"""

import ctypes
import os

# Of malloc.h: the parameters of mallopt, each with its environment variable and the value it gets.
SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": (-3, 32 * 2**20),  # tensors up to this come from the heap; glibc allows no more
    "MALLOC_TRIM_THRESHOLD_": (-1, 10**9),  # the heap shrinks where this much is free at its end
}


def keep_memory() -> bool:
    """Let malloc keep what is freed, up to a gigabyte, for what is allocated next.

    Settings from the environment stay. Where malloc is not glibc's (macOS, musl), nothing is done.

    Returns:
        Whether malloc is set so.
    """
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - only glibc has it
        mallopt = library.mallopt
    except (OSError, AttributeError, TypeError):  # TypeError: Windows
        return False
    done = [mallopt(parameter, value) for name, (parameter, value) in SETTINGS.items() if name not in os.environ]
    return bool(done) and all(done)
