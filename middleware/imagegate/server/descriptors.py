"""How many files and sockets the process may have open, and how many of them clients may take."""

from __future__ import annotations

from typing import Any, Final

resource: Any
try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None

_MANY: Final = 1 << 20
_SHORTEST_BACKLOG: Final = 16


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open descriptors to the hard one; where the system refuses, it stays."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return


def descriptor_limit() -> int:
    """Return how many descriptors the process may have open."""
    if resource is None:
        return _MANY
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MANY if soft == resource.RLIM_INFINITY else int(soft)


def connection_limit(wanted: int) -> int:
    """Return how many connections clients may have: at most half of the descriptors.

    The rest is for connections to providers, for spooled uploads and for stored images.
    """
    return max(1, min(wanted, descriptor_limit() // 2))


def backlog(longest: int = 4096) -> int:
    """Return the length of the queue of connections to be accepted.

    An event loop may accept all of it before any connection can be refused.
    """
    return min(longest, max(_SHORTEST_BACKLOG, descriptor_limit() // 4))
