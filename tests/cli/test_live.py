"""``imagegate check --live``: upstreams, store and Redis are tried, and nothing is paid for."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tests.ports import free_port

from imagegate.cli.commands import main
from imagegate.demo.servers import serving
from imagegate.spending.costs import Outcome
from imagegate.spending.ledger import Reservation
from imagegate.spending.money import nanos
from imagegate.spending.sql import SQLLedger

pytestmark = pytest.mark.server

NO_DATABASE = "no database at all, but long enough to be looked at" * 40
GOOD, WRONG = "sk-good-key-123", "sk-wrong-key-123"


@pytest.fixture
def provider() -> Iterator[tuple[str, list[str]]]:
    """The base URL of a provider that knows one key, and the methods of its requests."""
    methods: list[str] = []

    async def models(request: Request) -> JSONResponse:
        methods.append(request.method)
        is_good = request.headers["authorization"] == f"Bearer {GOOD}"
        return JSONResponse({"data": []}, 200 if is_good else 401)

    with serving(Starlette(routes=[Route("/good/v1/models", models)])) as port:
        yield f"http://127.0.0.1:{port}", methods


def check(folder: Path, base_url: str, *, api_key: str = f'api_key = "{GOOD}"', more: str = "") -> int:
    store = f"file://{folder}/images" if more else "memory://"
    file = folder / "imagegate.toml"
    file.write_text(
        f'[[upstreams]]\nname = "openai"\nbase_url = "{base_url}"\n{api_key}\n[delivery]\nstore = "{store}"\n{more}'
    )
    return main(["check", "--live", str(file)])


def test_all_is_well(tmp_path: Path, provider: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """The upstream is asked for its models, and takes the key."""
    assert check(tmp_path, f"{provider[0]}/good") == 0
    said = capsys.readouterr().out
    assert "upstreams.openai: takes the key." in said
    assert "delivery.store: takes images." in said
    assert provider[1] == ["GET"]


def test_a_refused_key(tmp_path: Path, provider: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong key is told, without the key."""
    assert check(tmp_path, f"{provider[0]}/good", api_key=f'api_key = "{WRONG}"') == 1
    said = capsys.readouterr().out
    assert "upstreams.openai: refuses the key (401)." in said
    assert WRONG not in said


def test_what_cannot_be_told(
    tmp_path: Path, provider: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A provider without a list of models, and an upstream that gets the clients' keys, are no mistakes."""
    assert check(tmp_path, provider[0]) == 0
    assert "whether it takes the key is open: it answered 404." in capsys.readouterr().out
    assert check(tmp_path, provider[0], api_key="") == 0
    assert "there is none to try" in capsys.readouterr().out


def test_nothing_there(tmp_path: Path, provider: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """An upstream or a Redis that cannot be reached is a mistake."""
    assert check(tmp_path, f"http://127.0.0.1:{free_port()}") == 1
    assert "upstreams.openai: cannot be used" in capsys.readouterr().out
    redis = f'[idempotency]\nstore = "redis://127.0.0.1:{free_port()}"\n'
    assert check(tmp_path, f"{provider[0]}/good", more=redis) == 1
    assert "Redis: cannot be used" in capsys.readouterr().out
    rates = f'[spending]\nrates = "redis://127.0.0.1:{free_port()}"\n'
    assert check(tmp_path, f"{provider[0]}/good", more=rates) == 1
    assert "Redis: cannot be used" in capsys.readouterr().out


def test_the_database_of_keys(
    tmp_path: Path, provider: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is opened, and a file that is none is told."""
    url = f"{provider[0]}/good"
    assert check(tmp_path, url, more='[access]\nstore = "sqlite:///keys.db"') == 0
    assert "access.store: has 0 keys." in capsys.readouterr().out
    (tmp_path / "other.db").write_text(NO_DATABASE)
    assert check(tmp_path, url, more='[access]\nstore = "sqlite:///other.db"') == 1
    assert "access.store: cannot be used: file is not a database" in capsys.readouterr().out


def test_the_ledger(tmp_path: Path, provider: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    """It is written to; what is held in it is told, and a database of a newer version, or none, is a mistake."""
    url, more = f"{provider[0]}/good", '[spending]\nledger = "sqlite:///spend.db"'
    assert check(tmp_path, url, more=more) == 0
    assert "spending.ledger: can be written to; nothing is held." in capsys.readouterr().out

    async def hold() -> None:
        ledger = SQLLedger(f"sqlite:///{tmp_path}/spend.db")
        each = Reservation(id="a", accounts=("gateway",), amount=nanos(0.04), images=1, created=time.time())
        await ledger.reserve(each, ())
        await ledger.end("a", Outcome(0, nanos(0.04)))
        await ledger.aclose()

    asyncio.run(hold())
    assert check(tmp_path, url, more=more) == 0
    assert "spending.ledger: holds 0.04 for 1 requests whose end is open." in capsys.readouterr().out
    with contextlib.closing(sqlite3.connect(tmp_path / "spend.db")) as db, db:
        assert db.execute("SELECT count(*) FROM imagegate_holders").fetchone() == (0,)
        db.execute("UPDATE imagegate_keys_version SET version_num = '9999'")
    both = f'{more}\n[access]\nstore = "sqlite:///spend.db"'
    assert check(tmp_path, url, more=both) == 1
    said = capsys.readouterr().out
    for name in ("access.store", "spending.ledger"):
        assert f"{name}: cannot be used: the database was made by a newer version of imagegate" in said
    (tmp_path / "spend.db").write_text(NO_DATABASE)
    assert check(tmp_path, url, more=more) == 1
    assert "spending.ledger: cannot be used: file is not a database" in capsys.readouterr().out
    away = f'[spending]\nledger = "postgresql://someone:secret@127.0.0.1:{free_port()}/x"'
    assert check(tmp_path, url, more=away) == 1
    said = capsys.readouterr().out
    assert "spending.ledger: cannot be used: connection failed" in said
    assert "secret" not in said
