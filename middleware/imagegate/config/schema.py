"""The configuration, as frozen structs: what each key means, and its default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from imagegate.access.principal import NO_LIMITS, Limits
from imagegate.config.routes import Choice
from imagegate.protocol.prices import ModelPrice


class Duration(float):
    """Seconds; in TOML a number, or text such as ``"300s"``, ``"24h"``, ``"50ms"``."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables of the file: keyword-only, and an unknown key is an error."""


class CredentialConfig(_Section, frozen=True, kw_only=True):
    """Where an upstream's access token comes from, in place of a key (``[upstreams.credential]``)."""

    command: tuple[str, ...] = ()
    """A program and its arguments. It prints the token, or JSON with ``access_token`` and ``expires_in`` (RFC 6749)."""
    callable: str = ""
    """``package.module:function``, which returns the same, or awaits it."""
    lifetime: Duration = Duration(1800)
    """Of a token that does not say how long it lasts."""
    timeout: Duration = Duration(30)
    """For one renewal."""


class UpstreamConfig(_Section, frozen=True, kw_only=True):
    """A provider account (``[[upstreams]]``)."""

    name: str
    """Unique; ``name/model`` always addresses this upstream."""
    adapter: str = ""
    """An installed adapter; default: `name`."""
    base_url: str = ""
    """Default: the adapter's. A host alone gets the path of that one; ``/v1`` is added where the path has no version,
    deployment or query of its own."""
    api_key: str | None = None
    """None: the client's own Authorization goes upstream."""
    credential: CredentialConfig | None = None
    """An access token that is renewed before it ends, in place of `api_key`."""
    options: Mapping[str, Any] = {}
    """What the adapter wants to know beside; each adapter's page has its own."""
    headers: Mapping[str, str] = {}
    """Sent with each request, in place of the gateway's own field of that name; treated as secrets."""
    query: Mapping[str, str] = {}
    """Added to each address, such as Azure's ``api-version``."""
    proxy: str = ""
    """``http://[user:password@]host:port``, https, or socks5 with the extra `socks`; default: none."""
    trust_env: bool = False
    """Whether ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` name the proxy where `proxy` does not."""
    ca_file: str = ""
    """PEM file of the authorities that are trusted in place of the usual ones."""
    client_cert: str = ""
    """PEM file with a certificate chain and its private key, shown to servers that ask for one."""
    reuse_connections: bool = True
    """False: each request opens a connection."""
    connect_timeout: Duration = Duration(10)
    """To open a connection, with TLS."""
    read_timeout: Duration = Duration(300)
    """Without a byte from the provider."""
    max_in_flight: int | None = None
    """Requests at a time; None: any number."""
    requests_per_minute: int | None = None
    """In any 60 seconds; None: any number."""
    contracts: str = ""
    """TOML file that adds or overrides models; relative paths begin where the configuration file is."""
    models: Mapping[str, Mapping[str, Any]] = {}
    """The same, in place."""

    @property
    def adapter_name(self) -> str:
        return self.adapter or self.name


class CloudConfig(_Section, frozen=True, kw_only=True):
    """How a cloud store is reached (``[delivery.cloud]``); what is left out, obstore takes from the environment."""

    endpoint: str = ""
    """Of a service that speaks S3 (or a private Azure or Google endpoint); default: the cloud's own."""
    region: str = ""
    """Of the bucket."""
    access_key_id: str = ""
    """Of ``az://``: the account's name."""
    secret_access_key: str = ""
    """Of ``az://``: the account's key."""
    path_style: bool = True
    """Whether the bucket is in the path; false: in the host name."""
    key_prefix: str = ""
    """Of every name, after the prefix in the store's address; ``{tenant}`` becomes a hash of the client's key."""
    private_prefix: str = ""
    """Of requests of tasks and of kept replies, which must never be public; default: the store's with ``-private``."""
    cache_control: str = ""
    """Default: a year for public links, ``link_ttl`` or a day for presigned ones."""
    timeout: Duration = Duration(15)
    """For one request to the store."""


class DeliveryConfig(_Section, frozen=True, kw_only=True):
    """Where pictures go (``[delivery]``)."""

    store: str = "file://./images"
    """``file://directory``, ``memory://``, ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix``.

    A relative directory begins where the configuration file is; without one, where the process runs.
    """
    public_url: str = ""
    """Where clients find the store; default: the address that the request came to, or presigned links to a bucket."""
    cloud: CloudConfig = CloudConfig()
    """How a bucket is reached."""
    link_ttl: Duration = Duration(86400)
    """How long links are valid; a file store removes images after it."""
    link_secret: str = ""
    """Signs links, at least 16 characters; default: made once and kept with the store."""
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
    fetch_proxy: str = ""
    """Proxy for foreign links. It has to keep private networks out of reach itself: host names are looked up there."""
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
    """To deliver a webhook, with exponential backoff."""
    poll_interval: Duration = Duration(2)
    """Before the first question to a provider; later ones come less often."""
    deadline: Duration = Duration(300)
    """For a provider's task to end; then the request is answered 504 with the provider's id of the task."""


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
    """What the model does not take is changed and disclosed (``nearest``), answered 400, or left (``pass``)."""
    tolerance: float = 0.5
    """How far a ratio may be moved; beyond it the request is refused. 0.5 is half as wide again."""
    exact_size: Literal["off", "resize", "crop"] = "off"
    """Whether images of another size than asked for are scaled, or scaled and cut; needs the extra `convert`."""
    exact_format: bool = False
    """Whether images of another format than ``output_format`` are encoded anew; likewise."""
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


class PrincipalConfig(_Section, frozen=True, kw_only=True):
    """What a key of the configuration may ask for (``[access.principals.NAME]``); default: anything."""

    limits: Limits = NO_LIMITS
    """Of the key."""
    groups: tuple[str, ...] = ()
    """Of ``[access.groups]``, whose limits their members share."""
    models: tuple[str, ...] = ()
    """Public names; ``*`` matches any characters."""
    sizes: tuple[str, ...] = ()
    """Such as ``1024x1024``, ``16:9``, ``2K`` and ``auto``, in whatever member they come."""
    operations: tuple[Literal["generations", "edits", "variations"], ...] = ()
    """Endpoints of the Images API."""
    tenant: str = ""
    """Whose store prefix its images have."""
    upstream_keys: Mapping[str, str] = {}
    """Upstream -> a key of its own, sent there in place of the configured one."""
    metadata: Mapping[str, str] = {}
    """For the log."""


class AccessConfig(_Section, frozen=True, kw_only=True):
    """Who may use the gateway (``[access]``)."""

    keys: tuple[str, ...] = ()
    """Of clients; none, no `store` and no `callable`: no authentication."""
    names: tuple[str, ...] = ()
    """What logs and the console call the keys, in the same order; default: ``key-1``, ``key-2``."""
    store: str = ""
    """Of keys made at run time: ``sqlite:///FILE``, or ``postgresql://USER:PASSWORD@HOST/DATABASE``."""
    cache: Duration = Duration(5)
    """How long a key from there is remembered: a revocation counts after it at the latest."""
    callable: str = ""
    """``package.module:function``, which returns the `Principal` of an ASGI scope, or awaits it; None: a stranger."""
    timeout: Duration = Duration(5)
    """For one question to it."""
    limits: Limits = NO_LIMITS
    """Of the whole gateway."""
    groups: Mapping[str, Limits] = {}
    """Of groups, by name."""
    principals: Mapping[str, PrincipalConfig] = {}
    """By the name of a key."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages that may use a gateway without keys, such as ``https://app.example.com``; ``*``: all."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that ``Host`` may have, beside loopback's; ``*.example.com``, ``*``. Default: any, on loopback none."""

    @property
    def is_open(self) -> bool:
        """Whether the configuration requires no authentication."""
        return not self.keys and not self.store and not self.callable

    def named_keys(self) -> dict[str, str]:
        """Name -> key."""
        names = self.names or tuple(f"key-{place}" for place in range(1, len(self.keys) + 1))
        return dict(zip(names, self.keys, strict=True))


class ModerationConfig(_Section, frozen=True, kw_only=True):
    """What the application has to say on requests and images (``[moderation]``)."""

    hooks: str = ""
    """``package.module:object``, which has ``before``, ``after`` or both; a class is called without arguments."""
    timeout: Duration = Duration(10)
    """For one call."""
    on_failure: Literal["refuse", "allow"] = "refuse"
    """Whether what could not be asked about is refused or passes."""


class LogConfig(_Section, frozen=True, kw_only=True):
    """What log lines may say beyond facts (``[log]``)."""

    prompts: bool = False
    """Whether prompts are logged."""
    links: bool = False
    """Of delivered images; a link is all that is needed to load one."""


class MetricsConfig(_Section, frozen=True, kw_only=True):
    """``/metrics`` of a standalone gateway (``[metrics]``)."""

    key: str = ""
    """Required in ``Authorization: Bearer`` of a scraper; default: the page is public."""


class ConsoleConfig(_Section, frozen=True, kw_only=True):
    """The page at ``/console`` (``[console]``)."""

    enabled: bool | None = None
    """Default: only where the gateway runs standalone and has keys."""
    exchanges: int = 50
    """How many of the last ones are kept, in memory."""
    operators: tuple[str, ...] = ()
    """Names of keys that see everybody's exchanges; others see their own."""


class PricesConfig(_Section, frozen=True, kw_only=True):
    """What providers charge (``[prices]``)."""

    currency: str = "USD"
    """Of `models`."""
    shipped: bool = True
    """Whether the prices that adapters ship count where `models` has none; in USD only."""
    models: Mapping[str, ModelPrice] = {}
    """``upstream/model``, or a model wherever it is."""


class SpendingConfig(_Section, frozen=True, kw_only=True):
    """Where limits of principals are counted and what they spend is kept (``[spending]``)."""

    ledger: str = "memory://"
    """``sqlite:///FILE`` or ``postgresql://USER@HOST/DATABASE``; in memory it ends with the process."""
    rates: str = ""
    """``redis://...`` or ``memory://``, for requests and images by time; default: ``tasks.store``."""
    lease: Duration = Duration(30)
    """Without a sign of life of a process; then what it had reserved is held."""
    reserve: float = 0.0
    """The most that one image costs of a model whose price does not say; 0: such a model has no budget."""


class LimitsConfig(_Section, frozen=True, kw_only=True):
    """Sizes in bytes unless said otherwise (``[limits]``)."""

    json_body: int = 32 * 1024**2
    """A body of JSON; more is answered 413."""
    form: int = 512 * 1024**2
    """A form with its files; more is answered 413."""
    file: int = 50_000_000
    """One file of a form; more is answered 413."""
    files: int = 16
    """Images in one form."""
    memory: int = 256 * 1024**2
    """What all requests together may hold in memory: bodies, replies that are read whole, and what the console keeps of
    answers in flight; more are answered 503."""
    spool: int = 4 * 1024**3
    """Uploads of all requests together, in memory and on disk; more are answered 503."""
    spool_memory: int = 16 * 1024**2
    """How much of that may be in memory."""
    reply_body: int = 512 * 1024**2
    """A provider's reply."""
    image: int = 64 * 1024**2
    """One picture fetched from a provider's link."""
    prompt: int = 32_000
    """Characters."""
    images: int = 10
    """Most images in one request, whatever the provider's own maximum."""
    in_flight: int = 2000
    """Requests; more are answered 503."""
    client_pace: int = 8192
    """Bytes a second that a client has to send of its request's body, and to read of its response."""
    client_stall: Duration = Duration(20)
    """How far a client may fall behind that pace; then its request ends."""
    guard: bool = True
    """Whether ``imagegate serve`` bounds connections; false: none of the limits below, but for `idle_timeout`."""
    connections: int = 2048
    """Of clients, at most half of the descriptors. Beyond it, the one that has been idle for longest is closed."""
    head: int = 32 * 1024
    """A request line with its header fields; more is answered 431."""
    head_fields: int = 100
    """Header fields of a request; more are answered 431."""
    head_timeout: Duration = Duration(10)
    """Until the head of a request is complete."""
    idle_timeout: Duration = Duration(75)
    """Until the next request on a connection."""
    heads: int = 8 * 1024**2
    """Of all connections: each one's last head, complete or not. Beyond it, the one idle for longest is closed."""
    pipelined: int = 8192
    """Later requests that are read from a connection before the current one is answered."""


class Config(_Section, frozen=True, kw_only=True):
    """The whole configuration. `load_config` reads it from a file, `default_config` from the environment."""

    prefix: str = "/v1"
    """Of the paths of the API."""
    upstreams: tuple[UpstreamConfig, ...] = ()
    """Accounts at providers."""
    routes: Mapping[str, tuple[str | Choice, ...]] = {}
    """Public model -> ``upstream/model``, in order of preference; weights share requests among neighbours."""
    delivery: DeliveryConfig = DeliveryConfig()
    tasks: TasksConfig = TasksConfig()
    idempotency: IdempotencyConfig = IdempotencyConfig()
    policy: PolicyConfig = PolicyConfig()
    access: AccessConfig = AccessConfig()
    moderation: ModerationConfig = ModerationConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    metrics: MetricsConfig = MetricsConfig()
    console: ConsoleConfig = ConsoleConfig()
    prices: PricesConfig = PricesConfig()
    spending: SpendingConfig = SpendingConfig()
