"""Stored keys in their database: made, listed, revoked, rotated, limited, and looked up. Everything here blocks."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from imagegate.access.database import Database, key_secrets, keys
from imagegate.access.stored_key import KeySettings, StoredKey, hash_of, new_id, new_key, prefix_of
from imagegate.errors import ConfigError
from imagegate.logger import get_logger

_USE_NOTED: Final = 60
"""Seconds for which a use is not written down again."""


class KeyTable:
    """The keys of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def at(cls, url: str) -> KeyTable:
        """Return the keys of the database at a URL; nothing is connected to yet. Raises `ConfigError`."""
        return cls(Database(url))

    def create(self, name: str, settings: KeySettings, *, expires: int | None = None) -> tuple[StoredKey, str]:
        """Return a new key, and the key itself, which is not kept. Raises `ConfigError` where the name is taken.

        Args:
            expires: Unix time; None: never.
        """
        now, key = int(time.time()), new_key()
        made = StoredKey(id=new_id(), name=name, prefix=prefix_of(key), settings=settings, created=now, expires=expires)
        values = {name: getattr(made, name) for name in ("id", "name", "created", "expires")}
        try:
            with self._database.writing() as connection:
                connection.execute(insert(keys).values(**values, settings=_encoded(settings)))
                _add_secret(connection, made.id, key, now)
        except IntegrityError:
            raise ConfigError(f"There is a key called {name!r} already; revoke it, or choose another name.") from None
        return made, key

    def list(self, *, revoked: bool = False) -> list[StoredKey]:
        """Return all keys, oldest first.

        Args:
            revoked: whether those are among them.
        """
        query = _all_keys().order_by(keys.c.created, keys.c.id)
        with self._database.reading() as connection:
            return [_key(row) for row in connection.execute(query).mappings() if revoked or row["revoked"] is None]

    def revoke(self, name: str) -> StoredKey:
        """End a key. Raises `ConfigError` where there is none."""
        with self._database.writing() as connection:
            key = _named(connection, name)
            now = int(time.time())
            connection.execute(update(keys).where(keys.c.id == key.id).values(revoked=now))
        return msgspec.structs.replace(key, revoked=now)

    def rotate(self, name: str, *, keep: int = 0) -> tuple[StoredKey, str]:
        """Return a key with another one in the place of the key itself, which has the same holder.

        Args:
            keep: seconds for which the ones before stay valid.

        Raises:
            ConfigError: there is no such key.
        """
        with self._database.writing() as connection:
            key, now, fresh = _named(connection, name), int(time.time()), new_key()
            end = now + keep
            is_later = or_(key_secrets.c.expires.is_(None), key_secrets.c.expires > end)
            old = and_(key_secrets.c.key_id == key.id, is_later)
            connection.execute(update(key_secrets).where(old).values(expires=end))
            _add_secret(connection, key.id, fresh, now)
        return msgspec.structs.replace(key, prefix=prefix_of(fresh)), fresh

    def set(self, name: str, changes: Mapping[str, Any]) -> StoredKey:
        """Change what a key may ask for, and return it. Raises `ConfigError` where there is none.

        Args:
            changes: members of its `KeySettings`.
        """
        with self._database.writing() as connection:
            key = _named(connection, name)
            settings = msgspec.structs.replace(key.settings, **changes)
            connection.execute(update(keys).where(keys.c.id == key.id).values(settings=_encoded(settings)))
        return msgspec.structs.replace(key, settings=settings)

    def get(self, name: str) -> StoredKey:
        """Return a key by its name or id. Raises `ConfigError` where there is none."""
        with self._database.reading() as connection:
            return _named(connection, name)

    def look_up(self, hashes: Collection[str], now: float) -> dict[str, StoredKey]:
        """Return hash -> key for those that are valid now; `expires` is the earlier end of key and secret.

        Raises:
            SQLAlchemyError: the database cannot be used.
            OSError: its file cannot.
        """
        query = (
            select(keys, key_secrets.c.hash, key_secrets.c.prefix, key_secrets.c.expires.label("secret_expires"))
            .join(key_secrets, key_secrets.c.key_id == keys.c.id)
            .where(key_secrets.c.hash.in_(hashes), keys.c.revoked.is_(None))
            .where(_is_after(keys.c.expires, now), _is_after(key_secrets.c.expires, now))
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).mappings().all()
        found: dict[str, StoredKey] = {}
        for row in rows:
            try:
                found[row["hash"]] = _key(row, row["secret_expires"])
            except msgspec.MsgspecError:  # of a newer version, perhaps: it is no fault of the keys that wait with it
                get_logger().error("the settings of a key cannot be read, so it is not accepted", key=row["id"])
        stale = {key.id for key in found.values() if (key.last_used or 0) < now - _USE_NOTED}
        if stale:
            self._note_use(stale, int(now))
        return found

    def _note_use(self, ids: Collection[str], now: int) -> None:
        try:
            with self._database.writing() as connection:
                connection.execute(update(keys).where(keys.c.id.in_(ids)).values(last_used=now))
        except SQLAlchemyError as error:  # a replica that only reads, or a disk that is full
            get_logger().warning("the use of keys cannot be noted", error=type(error).__name__)

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def _all_keys() -> Any:
    """Return the query for keys with the prefix of the newest secret, the only one that has no end."""
    is_newest = and_(key_secrets.c.key_id == keys.c.id, key_secrets.c.expires.is_(None))
    return select(keys, key_secrets.c.prefix).join(key_secrets, is_newest, isouter=True)


def _named(connection: Connection, name: str) -> StoredKey:
    """Raise `ConfigError`."""
    query = _all_keys().where(or_(keys.c.id == name, keys.c.name == name), keys.c.revoked.is_(None))
    row = connection.execute(query).mappings().first()
    if row is None:
        raise ConfigError(f"There is no key called {name!r}; `imagegate keys list` has all.")
    return _key(row)


def _key(row: Any, secret_expires: int | None = None) -> StoredKey:
    ends = [end for end in (row["expires"], secret_expires) if end is not None]
    return StoredKey(
        id=row["id"],
        name=row["name"],
        prefix=row["prefix"] or "",
        settings=msgspec.json.decode(row["settings"], type=KeySettings),
        created=row["created"],
        expires=min(ends, default=None),
        revoked=row["revoked"],
        last_used=row["last_used"],
    )


def _add_secret(connection: Connection, key_id: str, key: str, now: int) -> None:
    values = {"hash": hash_of(key.encode()), "key_id": key_id, "prefix": prefix_of(key), "created": now}
    connection.execute(insert(key_secrets).values(**values))


def _encoded(settings: KeySettings) -> str:
    return msgspec.json.encode(settings).decode()


def _is_after(end: ColumnElement[Any], now: float) -> ColumnElement[bool]:
    return or_(end.is_(None), end > int(now))
