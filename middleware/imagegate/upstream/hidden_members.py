"""Keeps from clients what an adapter names as hidden, in replies and in events of streams."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from starlette.types import Message, Send

from imagegate.protocol.messages import EVENT, ImageReply
from imagegate.protocol.parsers.lenient_json import read_object


def without_hidden(reply: ImageReply, names: Collection[str]) -> ImageReply:
    """Return a reply without members of these names, its own and those of its images."""
    images = tuple(msgspec.structs.replace(image, fields=_shown(image.fields, names)) for image in reply.images)
    return msgspec.structs.replace(reply, images=images, fields=_shown(reply.fields, names))


def hiding(send: Send, names: Collection[str]) -> Send:
    """Return a `send` that leaves members of these names out of the events of a stream, at any depth."""

    async def filtered(message: Message) -> None:
        if message["type"] == EVENT:
            event = message["event"]
            document = read_object(event.data)
            if document is not None:
                event = msgspec.structs.replace(event, data=msgspec.json.encode(_without(document, names)))
                message = {**message, "event": event}
        await send(message)

    return filtered


def _shown(fields: Mapping[str, Any], names: Collection[str]) -> Mapping[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _without(node: Any, names: Collection[str]) -> Any:
    if isinstance(node, dict):
        return {name: _without(value, names) for name, value in node.items() if name not in names}
    return [_without(item, names) for item in node] if isinstance(node, list) else node
