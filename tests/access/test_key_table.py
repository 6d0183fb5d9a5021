"""Keys in their database, SQLite and PostgreSQL: made, found, listed, revoked, rotated and limited."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from imagegate import ConfigError, Limits
from imagegate.access.database import Database, keys
from imagegate.access.key_table import KeyTable
from imagegate.access.stored_key import KeySettings, hash_of, is_key, new_id, new_key

SETTINGS = KeySettings(
    models=("gpt-*",),
    sizes=("1024x1024",),
    operations=("edits",),
    groups=("team",),
    tenant="t",
    limits=Limits(images_per_day=5, spend_per_month=1.5),
    metadata={"a": "b"},
)


@pytest.fixture
def table(url: str) -> Iterator[KeyTable]:
    table = KeyTable.at(url)
    yield table
    table.close()


def found(table: KeyTable, *keys: str, now: float | None = None) -> list[str]:
    """The names of those of the keys that are valid."""
    hashes = [hash_of(key.encode()) for key in keys]
    valid = table.look_up(hashes, time.time() if now is None else now)
    return [valid[hash_].name if hash_ in valid else "" for hash_ in hashes]


def test_settings_that_cannot_be_read_are_the_fault_of_their_own_key_only(table: KeyTable, url: str) -> None:
    """Keys are looked up together."""
    (_, key), (other, unreadable) = table.create("alice", SETTINGS), table.create("bob", SETTINGS)
    database = Database(url)
    with database.writing() as connection:
        newer = '{"a_setting_of_tomorrow": true}'
        connection.execute(update(keys).where(keys.c.id == other.id).values(settings=newer))
    database.close()
    assert found(table, key, unreadable) == ["alice", ""]


def test_a_key_is_found_by_itself_only(table: KeyTable) -> None:
    (alice, key), (_, other) = table.create("alice", SETTINGS), table.create("bob", KeySettings())
    assert is_key(key.encode())
    assert found(table, key, other, new_key(), key[:-1] + "!") == ["alice", "bob", "", ""]
    looked_up = table.look_up([hash_of(key.encode())], time.time())[hash_of(key.encode())]
    principal = looked_up.principal({"team": Limits(in_flight=3)})
    assert (principal.id, principal.name, principal.models, principal.tenant) == (alice.id, "alice", ("gpt-*",), "t")
    assert (principal.sizes, principal.operations, principal.metadata) == (("1024x1024",), ("edits",), {"a": "b"})
    assert principal.groups == {"team": Limits(in_flight=3)}
    assert principal.limits == Limits(images_per_day=5, spend_per_month=1.5)
    with pytest.raises(LookupError):
        looked_up.principal({})


def test_a_name_belongs_to_one_key_that_is_not_revoked(table: KeyTable) -> None:
    first, key = table.create("alice", KeySettings())
    with pytest.raises(ConfigError, match="There is a key called 'alice' already"):
        table.create("alice", KeySettings())
    assert table.revoke("alice").revoked
    second, _ = table.create("alice", KeySettings())
    assert found(table, key) == [""]
    assert [each.id for each in table.list()] == [second.id]
    assert {each.id for each in table.list(revoked=True)} == {first.id, second.id}
    with pytest.raises(ConfigError, match="no key called 'bob'"):
        table.revoke("bob")
    with pytest.raises(ConfigError):
        table.revoke(first.id)  # it is over


def test_rotation_keeps_the_holder(table: KeyTable) -> None:
    made, first = table.create("alice", SETTINGS)
    rotated, second = table.rotate("alice", keep=60)
    assert (rotated.id, rotated.prefix) == (made.id, second[:12])
    now = time.time()
    assert found(table, first, second) == ["alice", "alice"]
    assert found(table, first, second, now=now + 62) == ["", "alice"]
    _, third = table.rotate(made.id)
    assert found(table, first, second, third) == ["", "", "alice"]  # none stays longer than this
    assert table.list()[0].prefix == third[:12]
    assert table.revoke("alice").id == made.id
    assert found(table, first, second, third) == ["", "", ""]


def test_an_end(table: KeyTable) -> None:
    end = int(time.time()) + 100
    _, key = table.create("alice", KeySettings(), expires=end)
    assert table.look_up([hash_of(key.encode())], end - 1)[hash_of(key.encode())].expires == end
    assert found(table, key, now=end) == [""]


def test_the_last_use_is_noted_once_a_minute(table: KeyTable) -> None:
    _, key = table.create("alice", KeySettings())
    assert table.list()[0].last_used is None
    for moment, noted in ((1000, 1000), (1059, 1000), (1061, 1061)):
        found(table, key, now=moment)
        assert table.list()[0].last_used == noted


def test_what_a_key_may_ask_for_can_be_changed(table: KeyTable) -> None:
    made, key = table.create("alice", SETTINGS)
    changed = table.set("alice", {"models": (), "limits": Limits()})
    assert changed.settings == KeySettings(
        sizes=("1024x1024",), operations=("edits",), groups=("team",), tenant="t", metadata={"a": "b"}
    )
    assert table.get(made.id) == changed
    assert table.look_up([hash_of(key.encode())], time.time())[hash_of(key.encode())].settings == changed.settings


def test_several_processes_begin_at_once(url: str) -> None:
    """Whoever comes first makes the tables, and the others wait."""
    tables = [KeyTable.at(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        names = list(threads.map(lambda place: tables[place].create(f"key-{place}", KeySettings())[0].name, range(4)))
    assert sorted(each.name for each in tables[0].list()) == names
    for table in tables:
        table.close()


def test_the_file_is_its_owners_and_has_no_key(tmp_path: Path) -> None:
    table = KeyTable.at(f"sqlite:///{tmp_path}/keys.db")
    _, key = table.create("alice", KeySettings())
    table.close()
    assert stat.S_IMODE((tmp_path / "keys.db").stat().st_mode) == 0o600
    assert key[12:].encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize("url", ["", "sqlite://", "mysql://x/y", "keys.db"])
def test_other_databases(url: str) -> None:
    with pytest.raises(ConfigError, match=r"access\.store: must be sqlite:///FILE or postgresql://"):
        Database(url)


@given(st.binary(max_size=60))
def test_only_what_can_be_a_key_is_looked_up(text: bytes) -> None:
    assert not is_key(text) or (text.startswith(b"sk-ig-") and len(text) == 49)
    assert is_key(new_key().encode())
    assert new_id().startswith("key_")
