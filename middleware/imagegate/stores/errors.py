"""What goes wrong with a store."""

from __future__ import annotations

import errno
from typing import Final

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class StoreFull(OSError):
    """There is no room for the picture."""


class StoreRefused(OSError):
    """The store will not take anything as it is configured: wrong credentials, or no such bucket."""


class StoreTrouble(OSError):
    """The store did not answer, or failed; it may work the next time."""


def is_full(error: OSError) -> bool:
    """Return whether a disk, a quota or a store is used up."""
    return isinstance(error, StoreFull) or error.errno in _FULL


def plain_error(error: OSError) -> OSError:
    """Return the system's error without the path in it; `StoreFull` where a disk or a quota is used up."""
    if isinstance(error, StoreFull):
        return error
    kind = StoreFull if error.errno in _FULL else OSError
    return kind(error.errno, error.strerror) if error.errno else kind(str(error))
