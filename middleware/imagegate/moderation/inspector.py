"""Images of an answer before they are delivered: shown to the hook, which may withhold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from imagegate.errors import ContentWithheld, ImagegateError, ModerationUnavailable
from imagegate.http.guarded_fetch import Fetcher
from imagegate.moderation.moderator import Moderator
from imagegate.moderation.subjects import ModeratedImages, image_of_reply
from imagegate.protocol.links import absolute_link
from imagegate.protocol.messages import ReplyImage, StreamEvent
from imagegate.protocol.parsers.lenient_json import read_object
from imagegate.protocol.reply_streams import event_images
from imagegate.telemetry.progress import Progress


class Inspector:
    """Asks about images.

    Args:
        moderator: has the hook.
        fetcher: reads links for it.
    """

    def __init__(self, moderator: Moderator, fetcher: Fetcher) -> None:
        self._moderator = moderator
        self._fetcher = fetcher

    async def check(
        self,
        images: Sequence[ReplyImage],
        progress: Progress,
        *,
        prompt: str = "",
        origin: str = "",
        is_partial: bool = False,
    ) -> None:
        """Raise `ContentWithheld` where images must not be delivered; they count as made all the same.

        Args:
            progress: of their exchange.
            prompt: that they were made of; empty: not known.
            origin: of the provider; links to it are trusted.
            is_partial: whether they are previews, which are not counted.
        """
        if not images:
            return
        shown = [image_of_reply(image, self._fetcher, origin=origin, is_partial=is_partial) for image in images]
        subject = ModeratedImages(shown, principal=progress.principal, model=progress.model, prompt=prompt)
        try:
            withheld = await self._moderator.after(subject)
        except ModerationUnavailable:
            error = ContentWithheld(
                "The images were made, but could not be checked, so they are withheld.",
                status=502,
                type="server_error",
                code="moderation_unavailable",
            )
        except ImagegateError as own:  # of the hook's, that may say nothing was sent: the images are paid for
            error = ContentWithheld(own.message, status=own.status, type=own.type, code=own.code)
        else:
            if withheld is None:
                return
            error = ContentWithheld(withheld.reason)
        if not is_partial:
            progress.images_withheld += len(images)
            error.details["images_withheld"] = progress.images_withheld
        raise error


def images_of_event(event: StreamEvent, origin: str) -> list[ReplyImage]:
    """Return every image that an event of a stream carries, previews too."""
    return [*(ReplyImage(picture=picture) for picture in event.pictures.values()), *_written(event, origin)]


def _written(event: StreamEvent, origin: str) -> Iterator[ReplyImage]:
    for node in event_images(read_object(event.data) or {}):
        url, text = node.get("url"), node.get("b64_json")
        if isinstance(text, str) and text and text not in event.pictures:
            yield ReplyImage(b64_json=text)
        elif isinstance(url, str) and url and url not in event.pictures:
            yield ReplyImage(url=absolute_link(url, origin) if origin else url)
