"""README, the pages of `docs/` and CHANGELOG say what the code does."""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from imagegate import Config, Limits, layers, load_contracts
from imagegate.cli.commands import _parser
from imagegate.config.loader import parse_config
from imagegate.config.model_contracts import contracts_of
from imagegate.config.schema import Duration, UpstreamConfig
from imagegate.contracts.documents import read_document
from imagegate.fitting.fit import fit
from imagegate.protocol.messages import ImageRequest
from imagegate.registry import has_address, installed, load_adapter

ROOT = Path(__file__).parent.parent
PAGES = {path: path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
README = PAGES[ROOT / "README.md"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")


def section(page: str, title: str = "") -> str:
    """What stands below a heading of a page, up to the next one of its level or a higher one; without one, the page."""
    text = PAGES[ROOT / "docs" / page]
    if not title:
        return text
    found = re.search(rf"^(#+) {re.escape(title)}\n", text, re.MULTILINE)
    assert found is not None, title
    return re.split(rf"^#{{1,{len(found[1])}}} ", text[found.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def table(text: str) -> list[list[str]]:
    """The rows of a table, without its head."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


CONFIGURATION = blocks(section("reference/configuration.md"), "toml")[0]
ENVIRONMENT = {
    "TASK_SECRET": "0123456789abcdef",
    "WEBHOOK_SECRET": "0123456789abcdef",
    "TOKENLAB_API_KEY": "tokenlab-key",
    "LINK_SECRET": "secret-of-the-links",
    "ALICE_KEY": "key-of-alice",
    "CLIENT_KEY": "client-key",
    "GATEWAY_KEY": "gateway-key",
}


def keys(struct: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key that a file may have, as the Structs say."""
    hints = typing.get_type_hints(struct)
    for field in msgspec.structs.fields(struct):
        kinds = [hints[field.name], *typing.get_args(hints[field.name])]
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, msgspec.Struct)), None)
        here = (*path, field.encode_name)
        if inner is None:
            yield here
        else:
            named = issubclass(typing.get_origin(hints[field.name]) or object, Mapping)  # tables that users name
            yield from keys(inner, (*here, "*") if named else here)


def parsed(tmp_path: Path) -> Config:
    (tmp_path / "more-models.toml").write_text('[models."my-model"]\nfamily = "gpt-image-2"\n')
    document = CONFIGURATION
    # The second upstream of the block's route is left to the reader.
    document = document.replace("[routes]", '[[upstreams]]\nname = "onetoken"\napi_key = "key"\n\n[routes]')
    return parse_config(document, environment=ENVIRONMENT, directory=tmp_path)


def test_configuration_block_parses(tmp_path: Path) -> None:
    """The block is a good file."""
    config = parsed(tmp_path)
    upstream = config.upstreams[0]
    assert (upstream.name, upstream.api_key, config.access.keys) == ("tokenlab", "tokenlab-key", ("client-key",))
    assert "my-model" in contracts_of(config)["tokenlab"]


@pytest.mark.parametrize("path", list(keys(Config)), ids=".".join)
def test_every_key_is_in_the_block(path: tuple[str, ...]) -> None:
    """Every key that the Structs have stands in the block, under its table."""
    node: Any = tomllib.loads(CONFIGURATION)
    if path == ("upstreams", "models"):  # in a comment: an example has its own section
        assert '[upstreams.models."name"]' in CONFIGURATION
        return
    for name in path:
        node = {key: value for entry in node for key, value in entry.items()} if isinstance(node, list) else node
        name = next(iter(node)) if name == "*" else name
        assert name in node, f"{'.'.join(path)} is not in README's configuration block"
        node = node[name]


def test_values_in_the_block_are_the_defaults(tmp_path: Path) -> None:
    """Where the block shows no choice of its own, it shows the default."""
    shown, default = parsed(tmp_path), Config(upstreams=())
    assert (default.prefix, default.policy, default.limits) == (shown.prefix, shown.policy, shown.limits)
    secrets = {"secret": "", "callback_secret": ""}
    assert default.tasks == msgspec.structs.replace(shown.tasks, **secrets)
    assert default.idempotency == shown.idempotency
    assert (tmp_path / default.delivery.store.removeprefix("file://")) == Path(shown.delivery.store[7:])
    assert default.delivery.link_ttl == shown.delivery.link_ttl
    upstream = UpstreamConfig(name="x")
    times = (shown.upstreams[0].connect_timeout, shown.upstreams[0].read_timeout)
    assert (upstream.connect_timeout, upstream.read_timeout) == times == (Duration(10), Duration(300))


def table_of(path: tuple[str, ...]) -> str:
    """What a variable for a key's table is called, but for a plural."""
    return (path[0] if "*" in path else ("", *path)[-2]).removesuffix("s")


_PAIR: Final = re.compile(r"\b(?=(\w+)\.(\w+)\b)")


def is_read(member: str, objects: Collection[str], pairs: Collection[tuple[str, str]]) -> bool:
    return any((name, member) in pairs for name in objects)


def test_no_key_that_does_nothing() -> None:
    """Every key of the file is read somewhere besides the module that defines it."""
    folder = ROOT / "middleware" / "imagegate"
    own_files = ("schema.py", "checks.py", "loader.py")
    source = "\n".join(file.read_text("utf-8") for file in folder.rglob("*.py") if file.name not in own_files)
    own = (folder / "config" / "schema.py").read_text("utf-8")
    prices = (folder / "protocol" / "prices.py").read_text("utf-8")
    pairs, own_pairs, price_pairs = (set(_PAIR.findall(each)) for each in (source, own, prices))
    tables = {"tasks", "idempotency", "delivery", "policy", "access", "limits"}
    unread = [
        ".".join(path)
        for path in keys(Config)
        if not is_read(path[-1], {table_of(path), f"{table_of(path)}s", "upstream", "config"}, pairs)
        and not (path[0] not in tables and is_read(path[-1], {"upstream", "config", "self"}, own_pairs))
        and not (path[0] == "prices" and is_read(path[-1], {"self", "variant"}, price_pairs))
        and not (path[0] == "access" and path[-1] in Limits.__struct_fields__)  # read by name, one like the other
        and path != ("access", "names")  # read by AccessConfig.named_keys
    ]
    assert unread == []


def test_every_adapter_is_in_the_table() -> None:
    """The table of providers has every adapter that ships, with its key's name, and no other."""
    hosted, _, own = section("providers/index.md").partition("\n## ")
    rows = {row[0].strip("`"): row[1].strip("`") for row in table(hosted)}
    self_hosted = {row[0].strip("`") for row in table(own)}
    assert {
        name: f"{name.replace('-', '_').upper()}_API_KEY" for name in installed() if name not in self_hosted
    } == rows
    assert [name for name in self_hosted if has_address(name)] == []


def test_every_command_is_in_the_table() -> None:
    """The table of commands has every command of the program."""
    shown = {word for row in table(section("reference/cli.md")) for word in re.findall(r"^`imagegate (\w+)", row[0])}
    parser = _parser()
    (commands,) = (action.choices for action in parser._actions if isinstance(action.choices, Mapping))
    assert set(commands) == shown


def test_every_command_line_is_legal() -> None:
    """Every call of the program that README and the pages show is one that it takes."""
    calls = re.findall(
        r"\bimagegate (serve|demo|explain|models|check)((?: --?[\w-]+(?: [\w./]+)?| [A-Z]+)*)",
        "\n".join(PAGES.values()),
    )
    assert len(calls) >= 6
    for command, rest in calls:
        words = [word for word in rest.split() if word not in ("ends", "by")]
        _parser().parse_args([command, *(["FILE"] if command in ("check", "explain") and not words else []), *words])


def test_model_of_your_own(tmp_path: Path) -> None:
    """The example of a model of one's own is a good contract file."""
    (source,) = blocks(section("reference/configuration.md", "A model of your own"), "toml")
    contract = load_contracts(read_document(source))["my-model"]
    assert (contract.family, "style" in contract.parameters) == ("gpt-image-2", False)
    assert contract.parameters["quality"].values == ("low", "high")


@pytest.mark.parametrize(
    ("upstream", "model", "asked", "sent"),
    [
        ("openai", "gpt-image-1.5", {"size": "1792x1024"}, {"size": "1536x1024"}),
        ("openai", "gpt-image-2", {"size": "1920x1080"}, {"size": "1920x1088"}),
        (
            "tokenlab",
            "gemini-3-pro-image-preview",
            {"size": "3840x2160"},
            {"aspect_ratio": "16:9", "resolution": "4k"},
        ),
        (
            "tokenlab",
            "gemini-3-pro-image-preview",
            {"size": "3840x2160", "image_urls": ["https://example.com/a.png"]},
            {
                "aspect_ratio": "16:9",
                "operation": "image-to-image",
                "image_urls": ["https://example.com/a.png"],
            },
        ),
        ("toapis", "gpt-image-1.5-official", {"size": "2048x2048"}, {"size": "1:1", "resolution": "2k"}),
        (
            "toapis",
            "gpt-image-1.5-official",
            {"size": "1:1", "resolution": "4k"},
            {"size": "1:1", "resolution": "2k"},
        ),
        ("openai", "gpt-image-2", {"quality": "hd"}, {"quality": "high"}),
        ("openai", "gpt-image-2", {"style": "vivid"}, {}),
        ("openai", "dall-e-3", {"style": "vivid"}, {"style": "vivid"}),
        ("openai", "gpt-image-1", {"response_format": "url"}, {}),
        ("tokenlab", "gpt-image-2", {"response_format": "url"}, {"response_format": "url"}),
    ],
)
def test_what_becomes_of_a_request(upstream: str, model: str, asked: dict[str, Any], sent: dict[str, Any]) -> None:
    """The rows of README's table are what the contracts make of such requests."""
    contract = load_contracts(load_adapter(upstream).contracts())[model]
    head = {"model": model, "prompt": "A kite"}
    fitted, _ = fit(ImageRequest(operation="generations", fields={**head, **asked}), contract)
    assert {**head, **sent} == fitted.fields


def test_links_lead_somewhere() -> None:
    """Every relative link of README and the pages leads to a file, and every file that they name is there."""
    links = [(page, link) for page, text in PAGES.items() for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    links = [(page, link) for page, link in links if not re.match(r"\w+:|#", link)]
    assert len(links) >= 30
    assert [(page, link) for page, link in links if not (page.parent / link.partition("#")[0]).exists()] == []
    text = "\n".join(PAGES.values())
    named = re.findall(r"`((?:middleware|adapters|examples|tests)/[\w./]+)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_changelog_names_every_adapter_command_and_layer() -> None:
    """The changelog's first section tells of what there is."""
    words = CHANGELOG.lower()
    names = [*installed(), *(name.lower() for name in layers.__all__ if name != "Layer")]
    assert [name for name in names if name not in words] == []


def test_the_security_model_has_the_limits_of_connections() -> None:
    """Each limit that stands in its table has the default of the code, and those of the server are all there."""
    text = (ROOT / "docs" / "security.md").read_text("utf-8").partition("## Before a request is admitted")[2]
    shown = {name: value for name, value, *_ in table(text.partition("\n- ")[0]) if name.startswith("`")}
    defaults = msgspec.structs.asdict(Config().limits)
    assert {
        name: f"{defaults[name.strip('`')]:g} s" if value.endswith(" s") else str(defaults[name.strip("`")]).lower()
        for name, value in shown.items()
    } == shown
    guard = "".join(file.read_text("utf-8") for file in (ROOT / "middleware/imagegate/server").glob("*.py"))
    assert {f"`{name}`" for name in re.findall(r"limits\.(\w+)", guard)} <= shown.keys()
