"""[tasks] and [idempotency]: what is refused names its key and what is allowed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from imagegate import ConfigError, ImageGateway
from imagegate.config.loader import parse_config
from imagegate.config.model_contracts import warnings_of
from imagegate.config.schema import Duration
from imagegate.stores.secret_file import kept_secret

UPSTREAM = '[[upstreams]]\nname = "openai"\napi_key = "sk-0123456789"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[tasks]\nstore = "mysql://host"', "tasks.store: must be memory:// or redis://"),
        ('[tasks]\nstore = "redis://host:x/0"', "tasks.store: must be memory:// or redis://"),
        ('[idempotency]\nstore = "file://x"', "idempotency.store: must be memory:// or redis://"),
        (
            '[delivery]\nstore = "memory://"\n[tasks]\nstore = "redis://h"',
            "tasks.store: redis:// needs a delivery.store",
        ),
        (
            '[delivery]\nstore = "memory://"\n[idempotency]\nstore = "redis://h"',
            "idempotency.store: redis:// needs a delivery.store",
        ),
        ("[tasks]\nin_flight = 0", "tasks.in_flight: must be at least 1"),
        ("[tasks]\ncallback_attempts = 0", "tasks.callback_attempts: must be at least 1"),
        ("[idempotency]\nmax_bytes = 0", "idempotency.max_bytes: must be at least 1"),
        ('[tasks]\nsecret = "short"', "tasks.secret: must have at least 16 characters"),
        ('[tasks]\ncallback_secret = "short"', "tasks.callback_secret: must have at least 16 characters"),
        ('[tasks]\nttl = "never"', "tasks.ttl"),
        ('[idempotency]\nderive = "yes"', "idempotency.derive"),
        ("[idempotency]\nwhat = 1", "idempotency.what: unknown key"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(UPSTREAM + text)
    assert message in str(caught.value)


def test_webhook_secret_that_is_no_base64() -> None:
    """It is read when the gateway is made."""
    config = parse_config(UPSTREAM + '[tasks]\ncallback_secret = "whsec_!!!!!!!!!!!!!!"')
    with pytest.raises(ConfigError, match=r"tasks\.callback_secret"):
        ImageGateway(config=config)


def test_pictures_that_go_before_their_tasks() -> None:
    """A warning: it works, but links end."""
    config = parse_config(UPSTREAM + '[delivery]\nlink_ttl = "1h"\n[tasks]\nttl = "2h"')
    assert config.tasks.ttl == Duration(7200)
    assert any("tasks.ttl" in warning for warning in warnings_of(config))


def test_secret_kept_with_the_store(tmp_path: Path) -> None:
    """The same for all processes; a damaged one is an error, not another one."""
    path = tmp_path / "images" / ".task-secret"
    assert kept_secret(path) == kept_secret(path)
    assert len(kept_secret(path)) == 32
    assert [file.name for file in path.parent.iterdir()] == [".task-secret"]
    path.write_bytes(b"short")
    with pytest.raises(OSError, match="damaged"):
        kept_secret(path)


@pytest.mark.parametrize(
    "text",
    [
        '[tasks]\nsecret = "0123456789abcdef"',
        '[delivery]\nlink_secret = "0123456789abcdef"',
        '[delivery]\nstore = "memory://"',
        "",
    ],
)
def test_where_the_secret_comes_from(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As configured, from the links', kept with a directory, else of this process alone."""
    monkeypatch.chdir(tmp_path)

    async def ids() -> list[bool]:
        gateways = [ImageGateway(config=parse_config(UPSTREAM + text)) for _ in range(2)]
        first, second = (gateway.services.lasting.ids for gateway in gateways)
        task_id, _ = first.own(first.owner("k"), now=1.0)
        known = [each.read(task_id, each.owner("k"), now=1.0) is not None for each in (first, second)]
        for gateway in gateways:
            await gateway.aclose()
        return known

    assert asyncio.run(ids()) == [True, "memory" not in text]
