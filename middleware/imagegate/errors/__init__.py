"""Every error that a client can see, and the envelope it is sent in.

::

    ImagegateError
    ├── RequestError              400  the request is wrong; names the field
    │   ├── ContentRefused        400  by the application's moderation
    │   ├── PayloadTooLarge       413
    │   ├── RequestTimeout        408
    │   └── UnsupportedMedia      415
    ├── AuthenticationError       401
    ├── NotPermitted              403  the key is good, but not for this
    ├── ModelNotFound             404
    ├── Overloaded                503  nothing was sent; try again later
    │   └── ShuttingDown          503  the gateway is shutting down
    ├── ContentWithheld           400  the picture was made, and the application's moderation withholds it
    ├── StorageError              502  the picture was made but could not be stored
    ├── FetchError                502  the provider's link could not be read
    └── UpstreamError                  the provider did not answer with a picture
        ├── UpstreamRefused            its own error, in the status that it meant
        │   └── ModerationBlocked 400  refused for its content
        ├── UpstreamUnreachable   502  nothing reached it
        ├── UpstreamUnavailable   503  it was not asked: its breaker is open, or it is at its limits
        └── UpstreamUncertain     502  it may have made the picture all the same (504 on time-out)

`ConfigError` is for operators and never reaches a client.
"""

from imagegate.errors.base import ConfigError, ImagegateError, forget_frames
from imagegate.errors.gateway import (
    ContentWithheld,
    FetchError,
    ImageStoreUnavailable,
    ModerationUnavailable,
    NoRoom,
    Overloaded,
    ShuttingDown,
    StorageError,
)
from imagegate.errors.request import (
    AuthenticationError,
    ContentRefused,
    ModelNotFound,
    NotPermitted,
    PayloadTooLarge,
    RequestError,
    RequestTimeout,
    UnsupportedMedia,
    choice_error,
    type_error,
)
from imagegate.errors.upstream import (
    ModerationBlocked,
    Outcome,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnavailable,
    UpstreamUncertain,
    UpstreamUnreachable,
)

__all__ = [
    "AuthenticationError",
    "ConfigError",
    "ContentRefused",
    "ContentWithheld",
    "FetchError",
    "ImageStoreUnavailable",
    "ImagegateError",
    "ModelNotFound",
    "ModerationBlocked",
    "ModerationUnavailable",
    "NoRoom",
    "NotPermitted",
    "Outcome",
    "Overloaded",
    "PayloadTooLarge",
    "RequestError",
    "RequestTimeout",
    "ShuttingDown",
    "StorageError",
    "UnsupportedMedia",
    "UpstreamError",
    "UpstreamRefused",
    "UpstreamUnavailable",
    "UpstreamUncertain",
    "UpstreamUnreachable",
    "choice_error",
    "forget_frames",
    "type_error",
]
