"""Where pictures go when a client wants links."""

from imagegate.stores.base import (
    PictureWriter,
    ServedStore,
    Store,
    StoreFull,
    StoreOfTenant,
    open_store,
    put,
    put_stream,
)
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
    "open_store",
    "put",
    "put_stream",
]
