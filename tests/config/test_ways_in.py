"""However a configuration is given, it is checked alike."""

from __future__ import annotations

import asyncio
import json
import tomllib
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from tests.config.test_config import ERRORS, UPSTREAM

from imagegate import Config, ConfigError, ImageGateway
from imagegate.asgi.in_process import ask
from imagegate.config.loader import default_config, load_config, parse_config, read_config
from imagegate.config.routes import Choice
from imagegate.config.schema import (
    AccessConfig,
    CloudConfig,
    DeliveryConfig,
    Duration,
    LimitsConfig,
    LogConfig,
    ModelPrice,
    PolicyConfig,
    PricesConfig,
    TasksConfig,
    UpstreamConfig,
)
from imagegate.layers import Deliver
from imagegate.standalone import Standalone

OPENAI = UpstreamConfig(name="openai")
WITH_KEY = UpstreamConfig(name="openai", api_key="sk-upstream")


def refusal(config: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(config)
    return str(caught.value)


def parsed(source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(source)
    except tomllib.TOMLDecodeError:
        pytest.skip("no TOML")


@pytest.mark.parametrize("source", [source for source, _, _ in ERRORS])
def test_a_mapping_is_refused_as_a_file_is(source: str) -> None:
    """The same words, but for the line."""
    document = parsed(source)
    with pytest.raises(ConfigError) as caught:
        parse_config(source)
    assert refusal(document) == refusal(MappingProxyType(document)) == str(caught.value)


def with_models(**table: Any) -> UpstreamConfig:
    return msgspec.structs.replace(WITH_KEY, models={"m": table})


OBJECTS: list[tuple[Any, str]] = [
    (Config(), "There must be at least one [[upstreams]]."),
    (Config(upstreams=(OPENAI,), access=AccessConfig(keys=("client-key",))), "upstreams[0].name: access.keys is set"),
    (
        Config(
            upstreams=(WITH_KEY, UpstreamConfig(name="tokenlab", api_key="")),
            access=AccessConfig(keys=("client-key",)),
        ),
        "upstreams[1].api_key: is empty",
    ),
    (
        Config(
            upstreams=(OPENAI, UpstreamConfig(name="tokenlab")),
            routes={"m": ("openai/m", Choice(to="tokenlab/m"))},
        ),
        "routes.m: at most one of its upstreams can be without an api_key",
    ),
    (Config(upstreams=(WITH_KEY, WITH_KEY)), "upstreams[1].name: there are two upstreams called 'openai'"),
    (Config(upstreams=5), "upstreams: Expected `array`, got `int`"),  # type: ignore[arg-type]
    (Config(upstreams=(5,)), "upstreams[0]: Expected `object`, got `int`"),  # type: ignore[arg-type]
    (Config(upstreams=(DeliveryConfig(),)), "upstreams[0]"),  # type: ignore[arg-type]
    (Config(upstreams=None), "upstreams: Expected `array`, got `null`"),  # type: ignore[arg-type]
    (Config(upstreams=(WITH_KEY,), delivery=None), "delivery: Expected `object`, got `null`"),  # type: ignore[arg-type]
    (
        Config(upstreams=(UpstreamConfig(name="openai", connect_timeout="soon"),)),  # type: ignore[arg-type]
        "upstreams[0].connect_timeout: 'soon' is no duration",
    ),
    (Config(upstreams=(UpstreamConfig(name="openai", read_timeout=Duration(0)),)), "upstreams[0].read_timeout: 0.0"),
    (Config(upstreams=(UpstreamConfig(name="openai", headers={"a b": "c"}),)), "upstreams[0].headers: 'a b'"),
    (Config(upstreams=(UpstreamConfig(name="openai", base_url="ftp://x"),)), "upstreams[0].base_url: "),
    (Config(upstreams=(with_models(family="nope"),)), "upstreams[0].models: models.m.family"),
    (Config(upstreams=(WITH_KEY,), routes={"m": ("openai/m", 5)}), "routes.m[1]: Expected `str`"),  # type: ignore[dict-item]
    (Config(upstreams=(WITH_KEY,), routes={"m": (Choice(to="openai/m", weight=-1),)}), "routes.m[0].weight: "),
    (Config(upstreams=(WITH_KEY,), limits=LimitsConfig(images="3")), "limits.images: Expected `int`"),  # type: ignore[arg-type]
    (Config(upstreams=(WITH_KEY,), limits=LimitsConfig(in_flight=0)), "limits.in_flight: must be at least 1"),
    (Config(upstreams=(WITH_KEY,), policy=PolicyConfig(fit="exact")), "policy.fit: Invalid enum value"),  # type: ignore[arg-type]
    (Config(upstreams=(WITH_KEY,), policy=PolicyConfig(retries=-1)), "policy.retries: must be from 0 to 100"),
    (Config(upstreams=(WITH_KEY,), log=LogConfig(prompts="no")), "log.prompts: Expected `bool`"),  # type: ignore[arg-type]
    (Config(upstreams=(WITH_KEY,), prefix=b"/v1"), "prefix: Expected `str`"),  # type: ignore[arg-type]
    (Config(upstreams=(WITH_KEY,), delivery=DeliveryConfig(store="ftp://x")), "delivery.store: "),
    (
        Config(upstreams=(WITH_KEY,), delivery=DeliveryConfig(link_secret="x")),
        "delivery.link_secret: must have at least",
    ),
    (Config(upstreams=(WITH_KEY,), tasks=TasksConfig(secret="x")), "tasks.secret: must have at least"),
    (Config(upstreams=(WITH_KEY,), access=AccessConfig(keys=("a b",))), "access.keys[0]: has characters"),
    (Config(upstreams=(WITH_KEY,), access=AccessConfig(keys=("",))), "access.keys[0]: has characters that no key has"),
    (Config(upstreams=(WITH_KEY,), access=AccessConfig(keys="abc")), "access.keys: Expected `array`"),  # type: ignore[arg-type]
    (
        Config(upstreams=(WITH_KEY,), access=AccessConfig(allowed_origins=("https://a.example/path",))),
        "access.allowed_origins[0]: 'https://a.example/path' is no origin",
    ),
    (Config(upstreams=(WITH_KEY,), access=AccessConfig(allowed_origins=("null",))), "access.allowed_origins[0]: "),
    (Config(upstreams=(WITH_KEY,), access=AccessConfig(allowed_hosts=("http://a",))), "access.allowed_hosts[0]: "),
    (Config(upstreams=(WITH_KEY,), access=AccessConfig(allowed_hosts=("a.*",))), "access.allowed_hosts[0]: "),
    (Config(upstreams=(WITH_KEY,), prices=PricesConfig(models={"m": ModelPrice(image=-1.0)})), "prices.models.m: "),
]


@pytest.mark.parametrize(("config", "said"), OBJECTS, ids=[said for _, said in OBJECTS])
def test_objects_are_refused_as_a_file_is(config: Config, said: str) -> None:
    """Whatever a type checker lets through, or nobody asked one."""
    assert refusal(config).startswith(said)
    with pytest.raises(ConfigError):
        ImageGateway(config=config)
    with pytest.raises(ConfigError):
        Standalone(config)


def test_a_mapping_of_objects_and_lists_is_as_good() -> None:
    """What can only mean one thing is taken, and variables are the environment's as in a file."""
    config = Config(upstreams=[WITH_KEY], routes={"m": ["openai/m"]})  # type: ignore[arg-type]
    assert read_config(config) == read_config({"upstreams": (WITH_KEY,), "routes": {"m": "openai/m"}})
    assert read_config(config).upstreams == (WITH_KEY,)
    assert read_config(config).upstreams[0].read_timeout == Duration(300)


def test_variables_of_a_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping is a document, as the file would be; objects mean what they say."""
    monkeypatch.setenv("IMAGEGATE_TEST_KEY", "sk-env")
    upstream = {"name": "openai", "api_key": "${IMAGEGATE_TEST_KEY}"}
    assert read_config({"upstreams": [upstream]}).upstreams[0].api_key == "sk-env"
    assert read_config(Config(upstreams=(UpstreamConfig(**upstream),))).upstreams[0].api_key == upstream["api_key"]
    monkeypatch.delenv("IMAGEGATE_TEST_KEY")
    assert "IMAGEGATE_TEST_KEY is not set" in refusal({"upstreams": [upstream]})


@pytest.mark.parametrize("document", [{1: 2}, {"upstreams": [{"name": "openai", 5: "x"}]}, {"upstreams": {"a": 1}}, {}])
def test_mappings_that_no_file_could_hold(document: Any) -> None:
    assert refusal(document)


def test_the_environment_is_checked() -> None:
    """A key that no header field can carry is told by its variable's name, and not shown."""
    with pytest.raises(ConfigError, match=r"^OPENAI_API_KEY: has characters that no key has$"):
        default_config({"OPENAI_API_KEY": "sk 1", "TOKENLAB_API_KEY": "sk-2"})


@pytest.mark.parametrize(
    ("source", "key"),
    [
        (UPSTREAM + 'contracts = "a\\u0000b"', "upstreams[0].contracts"),
        (UPSTREAM + 'ca_file = "a\\u0000b"', "upstreams[0].ca_file"),
        (UPSTREAM + 'client_cert = "\\u0000"', "upstreams[0].client_cert"),
        (UPSTREAM + 'base_url = "https://a\\u0000"', "upstreams[0].base_url"),
        (UPSTREAM + '[delivery]\nstore = "file://a\\u0000b"', "delivery.store"),
        (UPSTREAM + '[delivery]\nfetch_allow = ["a", "\\u0000"]', "delivery.fetch_allow[1]"),
        (UPSTREAM + '[routes]\n"m" = ["openai/\\u0000"]', "routes.m[0]"),
    ],
)
def test_a_nul_is_refused(tmp_path: Path, source: str, key: str) -> None:
    """The operating system has no such paths, and says so in an exception of its own."""
    (tmp_path / "imagegate.toml").write_text(source)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "imagegate.toml")
    assert f"{key}: has a NUL character" in str(caught.value)


def test_paths_with_a_nul() -> None:
    """The configuration's own path, also from the environment."""
    for path in ("a\0b.toml", Path("a\0b.toml")):
        assert refusal(path) == "'a\\x00b.toml' is no path"
    with pytest.raises(ConfigError, match=r"delivery\.store: has a NUL"):
        Deliver(ImageGateway(config=Config(upstreams=(WITH_KEY,))), store="file://a\0b")


@pytest.mark.parametrize(
    "store",
    [
        "ftp://x",
        DeliveryConfig(store="memory://", link_secret="x"),
        DeliveryConfig(store="memory://", max_bytes=0),
        DeliveryConfig(store="memory://", link_ttl="soon"),  # type: ignore[arg-type]
        DeliveryConfig(store="memory://", cloud=CloudConfig(region=5)),  # type: ignore[arg-type]
    ],
)
def test_a_store_that_is_used_alone_is_checked(store: Any) -> None:
    with pytest.raises(ConfigError, match=r"^delivery\."):
        Deliver(ImageGateway(config=Config(upstreams=(WITH_KEY,))), store=store)


@pytest.mark.parametrize("written", ["images", "./images", "../images", "/images"])
def test_where_relative_paths_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    """All beside the file that names them, wherever the process runs; without a file where it runs."""
    folder = tmp_path / "etc"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    (folder / "more.toml").write_text('[models."my-model"]\nfamily = "gpt-image-2"\n')
    source = UPSTREAM + f'contracts = "more.toml"\n[delivery]\nstore = "file://{written}"\n'
    (folder / "imagegate.toml").write_text(source)
    for path in (folder / "imagegate.toml", Path("etc/imagegate.toml")):
        config = load_config(path)
        assert Path(config.delivery.store.removeprefix("file://")).resolve() == (folder / written).resolve()
        assert Path(config.upstreams[0].contracts).resolve() == folder / "more.toml"
    assert parse_config(f'{UPSTREAM}[delivery]\nstore = "file://{written}"').delivery.store == f"file://{written}"
    for other in ("memory://", "s3://bucket/images"):
        source = f'{UPSTREAM}[delivery]\nstore = "{other}"\n[delivery.cloud]\nregion = "x"'
        assert parse_config(source, directory=folder).delivery.store == other


def test_the_key_of_the_gateway_stays_with_it() -> None:
    """A gateway made of checked objects asks with the upstream's key, and never shows or sends its own."""
    config = Config(upstreams=(WITH_KEY,), access=AccessConfig(keys=("client-key",)))

    async def explained() -> dict[str, Any]:
        async with ImageGateway(config=config, hooks=()) as gateway:
            fields = [(b"content-type", b"application/json"), (b"imagegate-explain", b"?1")]
            fields.append((b"authorization", b"Bearer client-key"))
            body = b'{"model": "openai/gpt-image-1", "prompt": "A"}'
            answered = await ask(gateway, "POST", "/v1/images/generations", headers=fields, body=body)
            return dict(json.loads(answered.body))

    shown = asyncio.run(explained())
    assert shown["upstream"] == "openai"
    assert "client-key" not in json.dumps(shown)
