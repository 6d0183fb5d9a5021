"""A cloud store from its configuration."""

from __future__ import annotations

import datetime
import os
import re
import time
from typing import TYPE_CHECKING, Any, Final

from imagegate.config.schema import CloudConfig, DeliveryConfig
from imagegate.errors import ConfigError
from imagegate.stores.clock import Clock

if TYPE_CHECKING:
    from imagegate.stores.cloud import Client, CloudStore
    from imagegate.stores.cloud_blobs import CloudBlobs

_ADDRESS: Final = re.compile(r"(s3|gs|az)://([A-Za-z0-9][A-Za-z0-9._-]{1,254})(?:/([A-Za-z0-9._/-]*))?")
_KEY_PREFIX: Final = re.compile(r"(?:[A-Za-z0-9._/-]|\{tenant\})*")
_LONGEST_PRESIGNED: Final = 7 * 86400
"""Seconds (https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html; Google's are the same)."""
_TAKES: Final = {
    "s3": ("endpoint", "region", "access_key_id", "secret_access_key", "path_style"),
    "gs": ("endpoint",),
    "az": ("endpoint", "access_key_id", "secret_access_key"),
}
_ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT")


def open_cloud_store(delivery: DeliveryConfig) -> CloudStore:
    """Return the store at ``s3://``, ``gs://`` or ``az://``. Raises `ConfigError`, naming the key that is wrong."""
    cloud = delivery.cloud
    scheme, bucket, path = _address(delivery)
    _check(delivery, scheme)
    try:
        from imagegate.stores.cloud import CloudStore
    except ImportError as error:
        raise ConfigError(f"delivery.store: {scheme}:// needs an extra: pip install 'imagegate[cloud]'") from error
    folder = _folder(path)
    return CloudStore(
        _client(scheme, bucket, cloud),
        prefix=(f"{folder}/" if folder else "") + cloud.key_prefix.lstrip("/"),
        public_url=delivery.public_url,
        ttl=delivery.link_ttl,
        cache_control=cloud.cache_control or _cache_control(delivery),
        timeout=cloud.timeout,
        secret=delivery.link_secret.encode(),
        content_addressed=delivery.content_addressed,
    )


def open_private_blobs(delivery: DeliveryConfig, *, ttl: float, clock: Clock = time) -> CloudBlobs:
    """Return the place in the same bucket for what is no picture and is never public, kept for `ttl` seconds."""
    from imagegate.stores.cloud import CloudStore
    from imagegate.stores.cloud_blobs import CloudBlobs

    scheme, bucket, path = _address(delivery)
    cloud = delivery.cloud
    folder = "/".join(filter(None, (cloud.private_prefix or f"{_folder(path) or 'imagegate'}-private").split("/")))
    store = CloudStore(
        _client(scheme, bucket, cloud),
        prefix=f"{folder}/",
        ttl=ttl,
        cache_control="private, no-store",
        timeout=cloud.timeout,
    )
    return CloudBlobs(store, ttl=ttl, clock=clock)


def _address(delivery: DeliveryConfig) -> tuple[str, str, str]:
    """Return scheme, bucket and prefix. Raises `ConfigError`."""
    address = _ADDRESS.fullmatch(delivery.store)
    if address is None:
        raise ConfigError(f"delivery.store: {delivery.store!r} must be a bucket and perhaps a prefix of plain letters")
    return address[1], address[2], address[3] or ""


def _folder(path: str) -> str:
    return "/".join(filter(None, path.split("/")))


def _check(delivery: DeliveryConfig, scheme: str) -> None:
    cloud = delivery.cloud
    default = CloudConfig()
    for name in _TAKES["s3"]:
        if name not in _TAKES[scheme] and getattr(cloud, name) != getattr(default, name):
            raise ConfigError(f"delivery.cloud.{name}: is not for {scheme}://")
    if bool(cloud.access_key_id) != bool(cloud.secret_access_key):
        missing = "secret_access_key" if cloud.access_key_id else "access_key_id"
        raise ConfigError(f"delivery.cloud.{missing}: is needed, because the other half of the key is set")
    if cloud.endpoint and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._/-]*)?", cloud.endpoint):
        raise ConfigError("delivery.cloud.endpoint: must be http:// or https://, a host, and perhaps a port and a path")
    if not _KEY_PREFIX.fullmatch(cloud.key_prefix) or ".." in cloud.key_prefix:
        raise ConfigError("delivery.cloud.key_prefix: must be letters, digits, '.', '_', '-', '/' and {tenant}")
    if not re.fullmatch(r"[A-Za-z0-9._/-]*", cloud.private_prefix) or ".." in cloud.private_prefix:
        raise ConfigError("delivery.cloud.private_prefix: must be letters, digits, '.', '_', '-' and '/'")
    if "{tenant}" in cloud.key_prefix and not delivery.link_secret:
        raise ConfigError("delivery.link_secret: is needed for {tenant} in delivery.cloud.key_prefix")
    if delivery.content_addressed and delivery.public_url and not delivery.link_secret:
        raise ConfigError(
            "delivery.link_secret: is needed for delivery.content_addressed with public links, "
            "or the link of an image could be computed from the image"
        )
    if not delivery.public_url and delivery.link_ttl > _LONGEST_PRESIGNED:
        raise ConfigError("delivery.link_ttl: presigned links hold for 7 days at most; shorten it or set public_url")
    if delivery.max_bytes is not None:
        raise ConfigError(f"delivery.max_bytes: is not for {scheme}://; set a quota on the bucket")


def _cache_control(delivery: DeliveryConfig) -> str:
    """Names are never used for other pictures; a presigned link is private to its holder."""
    if delivery.public_url:
        return "public, max-age=31536000, immutable"
    return f"private, max-age={int(min(delivery.link_ttl, 86400))}, immutable"


def _client(scheme: str, bucket: str, cloud: CloudConfig) -> Client:
    """Return obstore's client; what is not configured it takes from the environment. Raises `ConfigError`."""
    from obstore.store import AzureStore, GCSStore, S3Store

    seconds = datetime.timedelta(seconds=cloud.timeout)
    endpoints = (cloud.endpoint, *(os.environ.get(name, "") for name in _ENDPOINT_VARIABLES))
    options: dict[str, Any] = {
        "client_options": {
            "timeout": seconds,
            "connect_timeout": min(seconds, datetime.timedelta(seconds=5)),
            **({"allow_http": True} if any(url.startswith("http://") for url in endpoints) else {}),
        },
        # Seconds, not the three minutes of the default: a client is waiting. No new attempt after half a time-out.
        "retry_config": {
            "max_retries": 2,
            "retry_timeout": seconds / 2,
            "backoff": {
                "init_backoff": datetime.timedelta(milliseconds=100),
                "max_backoff": datetime.timedelta(seconds=1),
                "base": 2,
            },
        },
    }
    try:
        if scheme == "gs":
            return GCSStore(bucket, **_set(base_url=cloud.endpoint), **options)
        if scheme == "az":
            keys = _set(account_name=cloud.access_key_id, account_key=cloud.secret_access_key, endpoint=cloud.endpoint)
            return AzureStore(bucket, **keys, **options)
        keys = _set(
            endpoint=_s3_endpoint(bucket, cloud),
            region=cloud.region,
            access_key_id=cloud.access_key_id,
            secret_access_key=cloud.secret_access_key,
        )
        return S3Store(bucket, virtual_hosted_style_request=not cloud.path_style, **keys, **options)
    except Exception:
        raise ConfigError(
            f"delivery.store: {scheme}:// cannot be used with these settings of delivery.cloud and the environment"
        ) from None


def _s3_endpoint(bucket: str, cloud: CloudConfig) -> str:
    """Put the bucket into the endpoint where it is part of the host name, as obstore wants it."""
    if cloud.path_style or not cloud.endpoint:
        return cloud.endpoint
    scheme, _, host = cloud.endpoint.partition("://")
    return cloud.endpoint if host.startswith(f"{bucket}.") else f"{scheme}://{bucket}.{host}"


def _set(**keys: str) -> dict[str, Any]:
    return {name: value for name, value in keys.items() if value}
