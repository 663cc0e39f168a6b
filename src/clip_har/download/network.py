"""What the failures of a download mean, whichever library raises them.

How often a download is tried again is decided in kaggle.py and hub.py.
"""

from __future__ import annotations

import socket


def is_offline(error: BaseException) -> bool:
    """Whether the service's name could not be resolved: then there is no network, and trying again is vain."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        if isinstance(one, socket.gaierror):
            return True
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
    return False
