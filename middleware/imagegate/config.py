"""The configuration: frozen structs, read from TOML once, checked before anything starts."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from imagegate.catalog import Choice, address_of
from imagegate.contract import ContractDocument, Contracts, load_contracts, read_document
from imagegate.errors import ConfigError
from imagegate.redis_client import is_redis_url
from imagegate.registry import installed, load_adapter
from imagegate.toml_lines import line_of
from imagegate.usage import TokenKind

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SHORTEST_SECRET: Final = 16
"""Characters."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Duration(float):
    """Seconds; in TOML a number, or text such as ``"300s"``, ``"24h"``, ``"50ms"``."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every part of the file: keyword-only, and a key that nobody knows is an error."""


class UpstreamConfig(_Section, frozen=True, kw_only=True):
    """A provider account (``[[upstreams]]``)."""

    name: str
    """Unique; ``name/model`` always addresses this upstream."""
    adapter: str = ""
    """An installed adapter; default: `name`."""
    base_url: str = ""
    """Default: the adapter's; with or without a trailing ``/v1``."""
    api_key: str | None = None
    """None: the client's own Authorization goes upstream."""
    connect_timeout: Duration = Duration(10)
    read_timeout: Duration = Duration(300)
    max_in_flight: int | None = None
    """Requests at a time; None: any number."""
    requests_per_minute: int | None = None
    """In any 60 seconds; None: any number."""
    contracts: str = ""
    """Path of a TOML file that adds or overrides models."""
    models: Mapping[str, Mapping[str, Any]] = {}
    """The same, in place."""

    @property
    def adapter_name(self) -> str:
        return self.adapter or self.name

    def origin(self) -> str:
        """``base_url`` without a trailing slash or ``/v1``, which adapters' paths begin with."""
        url = self.base_url or load_adapter(self.adapter_name).base_url
        return url.rstrip("/").removesuffix("/v1").rstrip("/")


class CloudConfig(_Section, frozen=True, kw_only=True):
    """How a cloud store is reached (``[delivery.cloud]``); what is left out, obstore takes from the environment."""

    endpoint: str = ""
    """Of a service that speaks S3 (or a private Azure or Google endpoint); default: the cloud's own."""
    region: str = ""
    access_key_id: str = ""
    """Of ``az://``: the account's name."""
    secret_access_key: str = ""
    """Of ``az://``: the account's key."""
    path_style: bool = True
    """Whether the bucket stands in the path; false: in the host name."""
    key_prefix: str = ""
    """Of every name, after the prefix in the store's address; ``{tenant}`` becomes a hash of the client's key."""
    cache_control: str = ""
    """Default: a year for public links, ``link_ttl`` or a day for presigned ones."""
    timeout: Duration = Duration(15)
    """For one request to the store."""


class DeliveryConfig(_Section, frozen=True, kw_only=True):
    """Where pictures go (``[delivery]``)."""

    store: str = "file://./images"
    """``file://directory``, ``memory://``, ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix``."""
    public_url: str = ""
    """Where clients find the store; default: the address that the request came to, or presigned links to a bucket."""
    cloud: CloudConfig = CloudConfig()
    link_ttl: Duration = Duration(86400)
    link_secret: str = ""
    """Signs links; default: made once and kept with the store."""
    max_bytes: int | None = None
    """Of all pictures in a file store, which refuses more; or in a memory store (256 MiB), which drops the oldest."""
    content_addressed: bool = False
    """Whether the same bytes are stored once, under the same name."""
    default: Literal["url", "b64_json"] | None = None
    """The form where a request names none; default: what OpenAI would do for the model."""
    heartbeat: Duration | None = None
    """After which a waiting client is sent white space before its JSON, at the price of the status; default: never."""
    stream_heartbeat: Duration = Duration(15)
    """The same for streams, where it is a comment and costs nothing."""
    fetch_allow: tuple[str, ...] = ()
    """Hosts, addresses or networks that may be fetched from although they are not public."""


class TasksConfig(_Section, frozen=True, kw_only=True):
    """Providers' tasks, and those of the gateway's own (``[tasks]``)."""

    store: str = "memory://"
    """Where tasks of the gateway's own are kept: ``memory://``, or ``redis://[:password@]host:port/db``."""
    secret: str = ""
    """Signs task ids; default: made from `DeliveryConfig.link_secret`, or once and kept with a ``file://`` store."""
    ttl: Duration = Duration(86400)
    """How long a task can be asked for."""
    in_flight: int = 2000
    """Tasks at work in one process; more are answered 503."""
    lease: Duration = Duration(15)
    """With Redis: a process that was silent for so long is taken for dead."""
    callback_secret: str = ""
    """Signs webhooks; default: ``callback_url`` is refused."""
    callback_attempts: int = 8
    poll_interval: Duration = Duration(2)
    """Before the first question to a provider; later ones come less often."""
    deadline: Duration = Duration(300)


class IdempotencyConfig(_Section, frozen=True, kw_only=True):
    """Requests with an ``Idempotency-Key`` (``[idempotency]``)."""

    store: str = ""
    """``memory://`` or ``redis://...``; default: that of ``[tasks]``."""
    ttl: Duration = Duration(86400)
    """How long an answer is replayed."""
    max_bytes: int = 1024**3
    """Answers that ``memory://`` keeps, large ones on disk; of older ones only the fact is known."""
    derive: bool = False
    """Whether requests without a key are the same where the client's key and the body are."""
    derive_window: Duration = Duration(60)
    """How long the answer to such a request is replayed."""


class PolicyConfig(_Section, frozen=True, kw_only=True):
    """How far a request may be changed, and what becomes of it where a provider fails (``[policy]``)."""

    fit: Literal["nearest", "strict", "pass"] = "nearest"
    tolerance: float = 0.5
    """How far a ratio may be moved; beyond it the request is refused. 0.5 is half as wide again."""
    retries: int = 1
    """How often the same candidate is asked again where that costs nothing and no other is left."""
    backoff: Duration = Duration(0.5)
    """At most before the first retry; twice as long before each further one."""
    longest_wait: Duration = Duration(10)
    """Before one retry. A longer Retry-After is passed on to the client instead."""
    queue_timeout: Duration = Duration(10)
    """How long a request waits for an upstream that is at its limits, where no other candidate is left."""
    fall_back_on: tuple[int, ...] = ()
    """Statuses from 401 to 499 with which a refused request goes to the next candidate as well."""
    breaker_failures: int = 5
    """In a row, with which an upstream is left alone; 0: never."""
    breaker_pause: Duration = Duration(30)
    """Until one request may try it again."""
    deadline: Duration = Duration(600)
    """For all attempts at a request together. The official SDKs wait as long."""


class AccessConfig(_Section, frozen=True, kw_only=True):
    """Who may use the gateway (``[access]``)."""

    keys: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """What logs and the console call the keys, in the same order; default: ``key-1``, ``key-2``."""

    def named_keys(self) -> dict[str, str]:
        """Name -> key."""
        names = self.names or tuple(f"key-{place}" for place in range(1, len(self.keys) + 1))
        return dict(zip(names, self.keys, strict=True))


class LogConfig(_Section, frozen=True, kw_only=True):
    """What log lines may say beyond facts (``[log]``)."""

    prompts: bool = False
    links: bool = False
    """Of delivered pictures; whoever has one can load the picture."""


class MetricsConfig(_Section, frozen=True, kw_only=True):
    """``/metrics`` of a gateway that stands alone (``[metrics]``)."""

    key: str = ""
    """That a scraper must send as ``Authorization: Bearer``; default: anybody may read."""


class ConsoleConfig(_Section, frozen=True, kw_only=True):
    """The page at ``/console`` (``[console]``)."""

    enabled: bool | None = None
    """Default: only where the gateway stands alone."""
    exchanges: int = 50
    """How many of the last ones are kept, in memory."""
    operators: tuple[str, ...] = ()
    """Names of keys that see everybody's exchanges; others see their own."""


class ModelPrice(_Section, frozen=True, kw_only=True):
    """What a model costs."""

    image: float = 0.0
    """Each image."""
    tokens: Mapping[TokenKind, float] = {}
    """A million tokens, by kind."""


class PricesConfig(_Section, frozen=True, kw_only=True):
    """What providers charge (``[prices]``)."""

    currency: str = "USD"
    models: Mapping[str, ModelPrice] = {}
    """``upstream/model``, or a model wherever it is."""


class LimitsConfig(_Section, frozen=True, kw_only=True):
    """Sizes in bytes unless said otherwise (``[limits]``)."""

    json_body: int = 32 * 1024**2
    form: int = 512 * 1024**2
    file: int = 50_000_000
    files: int = 16
    """Images in one form."""
    spool: int = 4 * 1024**3
    """Uploads of all requests together, in memory and on disk; more are answered 503."""
    spool_memory: int = 16 * 1024**2
    """How much of that may be in memory."""
    reply_body: int = 512 * 1024**2
    image: int = 64 * 1024**2
    """One picture fetched from a provider's link."""
    prompt: int = 32_000
    """Characters."""
    images: int = 10
    """Most images in one request, whatever the provider's own maximum."""
    in_flight: int = 2000
    """Requests; more are answered 503."""


class Config(_Section, frozen=True, kw_only=True):
    """The whole configuration. `load_config` reads it from a file, `default_config` from the environment."""

    prefix: str = "/v1"
    upstreams: tuple[UpstreamConfig, ...] = ()
    routes: Mapping[str, tuple[str | Choice, ...]] = {}
    delivery: DeliveryConfig = DeliveryConfig()
    tasks: TasksConfig = TasksConfig()
    idempotency: IdempotencyConfig = IdempotencyConfig()
    policy: PolicyConfig = PolicyConfig()
    access: AccessConfig = AccessConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    metrics: MetricsConfig = MetricsConfig()
    console: ConsoleConfig = ConsoleConfig()
    prices: PricesConfig = PricesConfig()

    def contracts(self) -> dict[str, Contracts]:
        """Upstream -> model -> contract: the adapters' own, with what the configuration adds. Raises `ConfigError`."""
        return {upstream.name: _contracts(upstream) for upstream in self.upstreams}

    def warnings(self) -> list[str]:
        """What works, but perhaps not as the operator thinks."""
        found: list[str] = []
        if not self.access.keys and any(upstream.api_key for upstream in self.upstreams):
            found.append("access.keys is not set: whoever reaches the gateway spends the upstreams' keys")
        scheme = self.delivery.store.partition(":")[0]
        if self.delivery.cloud != CloudConfig() and scheme in ("file", "memory"):
            found.append(f"delivery.cloud: does nothing with a {scheme}:// store")
        if scheme == "memory":
            found.append("delivery.store: memory:// loses its pictures when the process ends")
        if self.tasks.ttl > self.delivery.link_ttl:
            found.append("tasks.ttl: tasks can be asked for longer than delivery.link_ttl keeps their pictures")
        host = urlsplit(self.delivery.public_url).hostname or ""
        if host == "localhost" or host.startswith("127.") or host == "::1":
            needing = sorted(name for name, contracts in self.contracts().items() if _needs_links(contracts))
            found.append(
                "delivery.public_url is on loopback: only programs on this machine can load links"
                + (f", and these upstreams must load the references of edits: {', '.join(needing)}" if needing else "")
            )
        return found


def load_config(path: str | Path, *, environment: Mapping[str, str] | None = None) -> Config:
    """Reads and checks a TOML file.

    Raises:
        ConfigError: naming the file, the line and the key.
    """
    path = Path(path)
    try:
        source = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error
    try:
        return parse_config(source, environment=environment, directory=path.parent)
    except _KeyedError as error:
        line = line_of(source, error.path)
        raise ConfigError(f"{path}{f':{line}' if line else ''}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_config(source: str, *, environment: Mapping[str, str] | None = None, directory: Path | None = None) -> Config:
    """The same for the text of a file; relative paths are taken from `directory`. Raises `ConfigError`."""
    try:
        document = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(error)) from error
    expanded = _expand(document, os.environ if environment is None else environment, ())
    _check_routes(expanded.get("routes"))
    _check_models(expanded.get("upstreams"))
    try:
        config = msgspec.convert(expanded, Config, dec_hook=_decode_duration)
    except msgspec.ValidationError as error:
        raise _keyed(str(error)) from error
    config = _with_directory(config, directory)
    _check(config)
    return config


def _check_routes(routes: Any) -> None:
    """Keys of a table are no part of the messages of the general check, so routes are looked at here."""
    if not isinstance(routes, dict):
        return
    for model, addresses in routes.items():
        if isinstance(addresses, str):
            routes[model] = addresses = [addresses]
        if not isinstance(addresses, list):
            found = type(addresses).__name__
            raise _KeyedError(f"routes.{model}: Expected `array`, got `{found}`", ("routes", model))
        for place, entry in enumerate(addresses):
            here = ("routes", model, place)
            if isinstance(entry, dict):
                try:
                    choice = msgspec.convert(entry, Choice)
                except msgspec.ValidationError as error:
                    raise _keyed(str(error), here) from error
                if not 0 < choice.weight < 10**9:
                    raise _KeyedError(f"{_shown(here)}.weight: must be more than 0", here)
            elif not isinstance(entry, str):
                raise _KeyedError(f"{_shown(here)}: Expected `str`, got `{type(entry).__name__}`", here)


def _check_models(upstreams: Any) -> None:
    """The same for models in place."""
    for index, upstream in enumerate(upstreams if isinstance(upstreams, list) else []):
        models = upstream.get("models") if isinstance(upstream, dict) else None
        for name, table in (models if isinstance(models, dict) else {}).items():
            if not isinstance(table, dict):
                path = ("upstreams", index, "models", name)
                raise _KeyedError(f"{_shown(path)}: Expected `object`, got `{type(table).__name__}`", path)


def default_config(environment: Mapping[str, str] | None = None) -> Config:
    """Every installed adapter whose ``<NAME>_API_KEY`` is set. Raises `ConfigError` where there is none."""
    environment = os.environ if environment is None else environment
    upstreams = tuple(
        UpstreamConfig(name=name, api_key=key)
        for name in installed()
        if (key := environment.get(_key_variable(name), "").strip())
    )
    if not upstreams:
        variables = ", ".join(_key_variable(name) for name in installed())
        raise ConfigError(f"No configuration file, and none of these is set: {variables}.")
    return Config(upstreams=upstreams)


def _key_variable(name: str) -> str:
    return f"{re.sub('[^A-Za-z0-9]', '_', name).upper()}_API_KEY"


class _KeyedError(ConfigError):
    """Knows which key it is about, so that its line can be told."""

    def __init__(self, message: str, path: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.path = path


def _keyed(text: str, above: Sequence[str | int] = ()) -> _KeyedError:
    """msgspec's message, its ``$.upstreams[0].name`` turned into a path below `above` and into the words of TOML."""
    message, _, where = text.partition(" - at `$")
    path = [*above]
    for name, index in re.findall(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]", where):
        path.append(name if name else int(index) if index.isdecimal() else "*")
    if found := re.search(r"unknown field `([^`]+)`", message):
        path.append(found[1])
        message = f"unknown key '{found[1]}'"
    shown = _shown(path)
    return _KeyedError(f"{shown}: {message}" if shown else message, tuple(path))


def _shown(path: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _expand(value: Any, environment: Mapping[str, str], path: tuple[str | int, ...]) -> Any:
    """Every ``${NAME}`` replaced by the environment's value."""
    if isinstance(value, str):

        def replacement(found: re.Match[str]) -> str:
            if found[1] not in environment:
                raise _KeyedError(f"{_shown(path)}: the environment variable {found[1]} is not set", path)
            return environment[found[1]].strip()

        return _VARIABLE.sub(replacement, value)
    if isinstance(value, dict):
        return {key: _expand(item, environment, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, environment, (*path, index)) for index, item in enumerate(value)]
    return value


def _decode_duration(kind: type, value: Any) -> Any:
    if kind is not Duration:
        raise NotImplementedError(kind)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 10**9:
        return Duration(value)
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())) and float(found[1]) > 0:
        return Duration(float(found[1]) * _UNITS[found[2]])
    raise ValueError(f"{value!r} is no duration; write for example '2s', '5m' or '24h'")


def _with_directory(config: Config, directory: Path | None) -> Config:
    """Contract files are looked for beside the configuration file."""
    if directory is None:
        return config
    upstreams = tuple(
        msgspec.structs.replace(upstream, contracts=str(directory / upstream.contracts) if upstream.contracts else "")
        for upstream in config.upstreams
    )
    return msgspec.structs.replace(config, upstreams=upstreams)


def _needs_links(contracts: Contracts) -> bool:
    """Whether a model takes references only as links that the gateway must publish."""
    rules = [edits.references for contract in contracts.values() if (edits := contract.edits)]
    return any(rule is not None and "files" not in rule.forms and not rule.upload for rule in rules)


def _check(config: Config) -> None:
    """What types cannot say."""
    if not config.upstreams:
        raise ConfigError("There must be at least one [[upstreams]].")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", config.prefix):
        raise _KeyedError(f"prefix: {config.prefix!r} is no path such as '/v1'", ("prefix",))
    _check_delivery(config.delivery)
    if not config.policy.tolerance >= 0:
        raise _KeyedError("policy.tolerance: must not be negative", ("policy", "tolerance"))
    _check_policy(config.policy)
    for name, value in msgspec.structs.asdict(config.limits).items():
        if value < 1:
            raise _KeyedError(f"limits.{name}: must be at least 1", ("limits", name))
    _check_visibility(config)
    _check_tasks(config)
    names: set[str] = set()
    for index, upstream in enumerate(config.upstreams):
        _check_upstream(config, upstream, index, names)
    keyless = {upstream.name: upstream.origin() for upstream in config.upstreams if upstream.api_key is None}
    for model, entries in config.routes.items():
        addresses = [address_of(entry) for entry in entries]
        for address in addresses:
            name, slash, rest = address.partition("/")
            if not slash or not rest or name not in names:
                raise _KeyedError(
                    f"routes.{model}: '{address}' must be 'upstream/model' with one of: {', '.join(sorted(names))}",
                    ("routes", model),
                )
        origins = {keyless[name] for address in addresses if (name := address.partition("/")[0]) in keyless}
        if len(origins) > 1:
            raise _KeyedError(
                f"routes.{model}: at most one of its upstreams can be without an api_key, "
                "or the client's key would go to several providers",
                ("routes", model),
            )
        if not addresses:
            raise _KeyedError(f"routes.{model}: names no upstream", ("routes", model))


def _check_visibility(config: Config) -> None:
    access, console, prices = config.access, config.console, config.prices
    if access.names and len(access.names) != len(access.keys):
        raise _KeyedError(f"access.names: must name all {len(access.keys)} keys", ("access", "names"))
    for place, name in enumerate(access.names):
        if not _NAME.fullmatch(name) or name in access.names[:place] or name in access.keys:
            raise _KeyedError(
                f"access.names[{place}]: must be letters, digits, '.', '_' and '-', no other's name and no key",
                ("access", "names", place),
            )
    for place, operator in enumerate(console.operators):
        if operator not in access.named_keys():
            raise _KeyedError(f"console.operators[{place}]: access.names has no such name", ("console", "operators"))
    if not 1 <= console.exchanges <= 10_000:
        raise _KeyedError("console.exchanges: must be from 1 to 10000", ("console", "exchanges"))
    if config.metrics.key and not re.fullmatch(r"[!-~]+", config.metrics.key):
        raise _KeyedError("metrics.key: has characters that no key has", ("metrics", "key"))
    if not re.fullmatch(r"[A-Z]{3}", prices.currency):
        raise _KeyedError(f"prices.currency: {prices.currency!r} is no code such as 'USD'", ("prices", "currency"))
    for model, price in prices.models.items():
        for amount in (price.image, *price.tokens.values()):
            if not 0 <= amount < 10**9:
                raise _KeyedError(f"prices.models.{model}: must not be negative", ("prices", "models", model))


def _check_policy(policy: PolicyConfig) -> None:
    for name in ("retries", "breaker_failures"):
        if not 0 <= getattr(policy, name) <= 100:
            raise _KeyedError(f"policy.{name}: must be from 0 to 100", ("policy", name))
    wrong = [status for status in policy.fall_back_on if not 401 <= status <= 499]
    if wrong:
        raise _KeyedError(f"policy.fall_back_on: {wrong[0]} is not from 401 to 499", ("policy", "fall_back_on"))


def _check_delivery(delivery: DeliveryConfig) -> None:
    if delivery.max_bytes is not None and delivery.max_bytes < 1:
        raise _KeyedError("delivery.max_bytes: must be at least 1", ("delivery", "max_bytes"))
    from imagegate.stores.base import open_store  # which reads this module's structs

    try:
        open_store(delivery)  # writes nothing and connects to nothing
    except ConfigError as error:
        raise _KeyedError(str(error), tuple(str(error).partition(":")[0].split("."))) from error


def _check_tasks(config: Config) -> None:
    for section, store in (("tasks", config.tasks.store), ("idempotency", config.idempotency.store or "memory://")):
        path = (section, "store")
        if store != "memory://" and not is_redis_url(store):
            raise _KeyedError(f"{section}.store: must be memory:// or redis://[:password@]host:port/db", path)
        if store != "memory://" and config.delivery.store.startswith("memory:"):
            raise _KeyedError(f"{section}.store: redis:// needs a delivery.store that all processes share", path)
    for section, name, value in (
        ("tasks", "in_flight", config.tasks.in_flight),
        ("tasks", "callback_attempts", config.tasks.callback_attempts),
        ("idempotency", "max_bytes", config.idempotency.max_bytes),
    ):
        if value < 1:
            raise _KeyedError(f"{section}.{name}: must be at least 1", (section, name))
    for name, secret in (("secret", config.tasks.secret), ("callback_secret", config.tasks.callback_secret)):
        if secret and len(secret) < _SHORTEST_SECRET:
            raise _KeyedError(f"tasks.{name}: must have at least {_SHORTEST_SECRET} characters", ("tasks", name))
    kept = config.tasks.secret or config.delivery.link_secret or config.delivery.store.startswith("file:")
    if config.tasks.store != "memory://" and not kept:
        raise _KeyedError("tasks.store: redis:// needs a tasks.secret, the same in all processes", ("tasks", "store"))


def _check_upstream(config: Config, upstream: UpstreamConfig, index: int, names: set[str]) -> None:
    def fail(key: str, message: str) -> _KeyedError:
        return _KeyedError(f"upstreams[{index}].{key}: {message}", ("upstreams", index, key))

    if not _NAME.fullmatch(upstream.name):
        raise fail("name", f"{upstream.name!r} must be letters, digits, '.', '_' and '-'")
    if upstream.name in names:
        raise fail("name", f"there are two upstreams called '{upstream.name}'")
    names.add(upstream.name)
    try:
        load_adapter(upstream.adapter_name)
    except ConfigError as error:
        raise fail("adapter" if upstream.adapter else "name", str(error)) from error
    if upstream.base_url and not _is_base_url(upstream.base_url):
        raise fail("base_url", "must be http:// or https://, a host, and perhaps a port and a path")
    if upstream.api_key is not None and not re.fullmatch(r"[!-~]+", upstream.api_key):
        if not upstream.api_key:
            raise fail("api_key", "is empty; leave it out to send the client's own key upstream")
        raise fail("api_key", "has characters that no key has")
    for key in ("max_in_flight", "requests_per_minute"):
        value = getattr(upstream, key)
        if value is not None and value < 1:
            raise fail(key, "must be at least 1")
    if config.access.keys and upstream.api_key is None:
        raise fail("name", "access.keys is set, so this upstream needs an api_key of its own")
    try:
        _contracts(upstream)
    except ConfigError as error:
        raise fail("contracts" if upstream.contracts else "models", str(error)) from error


def _is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url
    return (
        plain
        and parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and not (parts.query or parts.fragment or "@" in parts.netloc or url.endswith(("?", "#")))
    )


def _contracts(upstream: UpstreamConfig) -> Contracts:
    documents = [load_adapter(upstream.adapter_name).contracts()]
    if upstream.contracts:
        try:
            documents.append(read_document(Path(upstream.contracts).read_text("utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{upstream.contracts} cannot be read") from error
    documents.append(ContractDocument(models=upstream.models))
    return load_contracts(*documents)
