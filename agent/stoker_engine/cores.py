"""How many threads an engine starts."""

import os


def threads_here(wanted: int) -> int:
    """As many as were measured to be best, but never more than there are cores for them.

    A device with fewer cores than the one that a release was built for would spend its time
    switching between them.
    """
    return max(1, min(wanted, len(os.sched_getaffinity(0))))
