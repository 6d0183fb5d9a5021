"""``imagegate init``: a commented configuration from the keys that the environment has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from imagegate.config.loader import key_variable
from imagegate.contracts.documents import load_contracts
from imagegate.errors import ConfigError
from imagegate.registry import has_address, installed, load_adapter

_HEAD: Final = """\
# The configuration of imagegate. Every ${NAME} is taken from the environment.
#   imagegate check FILE          looks for mistakes; with --live it tries keys and store, too
#   imagegate doctor              looks at everything, and says what to do
#   imagegate serve --config FILE
"""
_NO_KEY: Final = """
# No <NAME>_API_KEY is set here. Name the providers that you have keys for; `imagegate models --adapter NAME` shows what
# each can do.
[[upstreams]]
name = "openai"
api_key = "${OPENAI_API_KEY}"
"""
_REST: Final = """
[delivery]
store = "file://./images"         # where images lie that become links; s3://bucket/prefix with the extra cloud
# public_url = "https://images.example.com/images"   # where clients find them; default: the address of the request
link_ttl = "24h"

[tasks]
store = "{tasks}"               # redis://host:6379/0 where several processes share tasks and idempotency keys

[policy]
fit = "nearest"                   # strict: refuse what a model does not have, instead of changing it

# Without keys, every client that reaches the gateway spends yours. This makes one:
#   python3 -c 'import secrets; print(secrets.token_urlsafe(32))'
{access}
"""
_MOST_ROUTES: Final = 20


def configuration(environment: Mapping[str, str]) -> str:
    """Return a configuration for the providers whose ``<NAME>_API_KEY`` the environment has."""
    found = [name for name in installed() if has_address(name) and environment.get(key_variable(name))]
    upstreams = "".join(f'\n[[upstreams]]\nname = "{name}"\napi_key = "${{{key_variable(name)}}}"\n' for name in found)
    access = '[access]\nkeys = ["${CLIENT_KEY}"]'
    if not environment.get("CLIENT_KEY"):
        access = "\n".join(f"# {line}" for line in access.splitlines())
    rest = _REST.replace("{tasks}", "${REDIS_URL}" if environment.get("REDIS_URL") else "memory://")
    return _HEAD + (upstreams or _NO_KEY) + _routes(found) + rest.replace("{access}", access)


def _routes(upstreams: Sequence[str]) -> str:
    """Return routes for the models that several providers have: each is a fallback for the others."""
    having: dict[str, list[str]] = {}
    for name in upstreams:
        for model, contract in load_contracts(load_adapter(name).contracts()).items():
            if "*" not in model and contract.retired is None:
                having.setdefault(model, []).append(name)
    most_first = sorted(having.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    shared = {model: names for model, names in most_first if len(names) > 1}
    if not shared:
        return ""
    lines = [
        f'"{model}" = [{", ".join(f"{chr(34)}{name}/{model}{chr(34)}" for name in names)}]'
        for model, names in list(shared.items())[:_MOST_ROUTES]
    ]
    return (
        "\n[routes]                          # public model -> candidates, in order of preference\n"
        + "\n".join(lines)
        + "\n"
    )


def write(file: Path, environment: Mapping[str, str], *, force: bool) -> None:
    """Write the configuration.

    Raises:
        ConfigError: the file is there already and `force` is false, or it cannot be written.
    """
    try:
        with file.open("w" if force else "x", encoding="utf-8") as output:
            output.write(configuration(environment))
    except FileExistsError:
        raise ConfigError(f"{file}: is there already; --force replaces it") from None
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from None
