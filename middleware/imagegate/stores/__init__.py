"""Where pictures go when a client wants links: a directory, memory or a bucket.

An edge: used by delivery, and by tasks and idempotency for what outlives a request.
"""

from imagegate.stores.base import PictureWriter, ServedStore, Store, StoreOfTenant, put, put_stream
from imagegate.stores.errors import StoreFull
from imagegate.stores.file import FileStore
from imagegate.stores.keys import new_key
from imagegate.stores.links import Links
from imagegate.stores.memory import MemoryStore

__all__ = [
    "FileStore",
    "Links",
    "MemoryStore",
    "PictureWriter",
    "ServedStore",
    "Store",
    "StoreFull",
    "StoreOfTenant",
    "new_key",
    "put",
    "put_stream",
]
