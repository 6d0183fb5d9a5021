"""What a configuration says of access and moderation, and which mistakes it tells."""

from __future__ import annotations

import asyncio
import sys
import types
from pathlib import Path

import httpx
import pytest
from starlette.types import Scope

from imagegate import Config, ConfigError, ImageGateway, Limits, Principal
from imagegate.config.loader import parse_config
from imagegate.config.principals import principals_of
from imagegate.moderation import Refuse
from imagegate.testing.offline import offline

UPSTREAM = '[[upstreams]]\nname = "openai"\napi_key = "k"\n'
KEYS = '[access]\nkeys = ["sk-a", "sk-b"]\nnames = ["alice", "bob"]\n'


def parsed(source: str) -> Config:
    return parse_config(UPSTREAM + source, environment={})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('[access]\ncallable = "nowhere:function"', "access.callable: 'nowhere:function' cannot be imported"),
        ('[access]\ncallable = "sys:maxsize"', "access.callable: 'sys:maxsize' cannot be called"),
        ('[access]\nstore = "mysql://x/y"', "access.store: must be sqlite:///FILE or postgresql://"),
        ('[access]\nstore = "sqlite:///"', "access.store: must be"),
        (KEYS + "[access.principals.carol]", "access.principals.carol: access.names has no such name"),
        (KEYS + '[access.principals.alice]\ngroups = ["tean"]\n[access.groups.team]', "Did you mean 'team'?"),
        (KEYS + '[access.principals.alice]\nupstream_keys = { opena = "k" }', "Did you mean 'openai'?"),
        (KEYS + '[access.principals.alice]\nupstream_keys = { openai = "" }', "is empty or has characters"),
        (KEYS + '[access.principals.alice]\noperations = ["paint"]', "operations"),
        (KEYS + "[access.principals.alice.limits]\nimages_per_day = -1", "images_per_day must be 0 or more"),
        (KEYS + "[access.principals.alice.limits]\nimages = 1", "unknown key 'images'"),
        ("[access.limits]\nspend_per_day = nan", "spend_per_day must be 0 or more"),
        ('[access.groups."a b"]', "must be letters, digits"),
        ('[access]\nkeys = ["sk-a"]\nnames = ["key_1"]', "and not begin with 'key_'"),
        ('[moderation]\non_failure = "ignore"', "allowed: 'refuse', 'allow'"),
        ('[moderation]\nhooks = "nowhere:hooks"', "moderation.hooks: 'nowhere:hooks' cannot be imported"),
    ],
)
def test_mistakes(source: str, said: str) -> None:
    with pytest.raises(ConfigError) as mistake:
        parsed(source)
    assert said in str(mistake.value)


def test_keys_are_principals() -> None:
    config = parsed(
        KEYS + '[access.groups.team]\nin_flight = 3\n[access.principals.alice]\ngroups = ["team"]\nmodels = ["gpt-*"]\n'
        "[access.principals.alice.limits]\nimages_per_day = 5\n"
    )
    assert principals_of(config.access) == {
        "alice": Principal(
            id="alice", groups={"team": Limits(in_flight=3)}, models=("gpt-*",), limits=Limits(images_per_day=5)
        ),
        "bob": Principal(id="bob"),
    }


def test_a_stored_key_never_goes_upstream() -> None:
    with pytest.raises(ConfigError, match=r"access\.store is set, so this upstream needs an api_key of its own"):
        parse_config('[[upstreams]]\nname = "openai"\n[access]\nstore = "sqlite:///keys.db"', environment={})


def test_the_file_is_beside_the_configuration(tmp_path: Path) -> None:
    config = parse_config(UPSTREAM + '[access]\nstore = "sqlite:///keys.db"', environment={}, directory=tmp_path)
    assert config.access.store == f"sqlite:///{tmp_path}/keys.db"


class Hooks:
    async def before(self, request: object, principal: Principal | None) -> Refuse:
        return Refuse(f"not for {principal.id if principal else 'anyone'}")


async def principal_of(scope: Scope) -> Principal | None:
    return Principal(id="ada") if dict(scope["headers"]).get(b"x-user") == b"ada" else None


def answers(gateway: ImageGateway, *, user: str = "") -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=gateway)
        async with gateway, httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            headers = {"x-user": user} if user else {}
            body = {"model": "gpt-image-2", "prompt": "A cat"}
            return await client.post("/v1/images/generations", json=body, headers=headers)

    with offline():
        return asyncio.run(ask())


@pytest.mark.parametrize("hooks", ["Hooks", "hooks"])
def test_functions_that_a_configuration_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hooks: str) -> None:
    module = types.ModuleType("site_access")
    vars(module).update(Hooks=Hooks, hooks=Hooks(), principal_of=principal_of)
    monkeypatch.setitem(sys.modules, "site_access", module)
    config = parsed(
        f'[access]\ncallable = "site_access:principal_of"\n[moderation]\nhooks = "site_access:{hooks}"\n'
        f'[delivery]\nstore = "file://{tmp_path}"\n'
    )
    gateway = ImageGateway(config=config, hooks=[])
    assert answers(gateway).status_code == 401
    refused = answers(gateway, user="ada")
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "not for ada")


def test_one_word_on_who_asks(tmp_path: Path) -> None:
    config = parsed(f'[delivery]\nstore = "file://{tmp_path}"')
    with pytest.raises(ConfigError, match="owner= must be left out"):
        ImageGateway(config=config, access=principal_of, owner=lambda scope: "ada")
    with pytest.raises(ConfigError, match="must have a method 'before'"):
        ImageGateway(config=config, moderation=object())
