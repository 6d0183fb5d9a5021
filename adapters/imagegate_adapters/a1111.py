"""AUTOMATIC1111's stable-diffusion-webui, started with ``--api``, and Forge, which has the same API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from imagegate.adapter import (
    Adapter,
    Authentication,
    ImageReply,
    ImageRequest,
    ReplyImage,
    UpstreamReply,
    UpstreamRequest,
    inline,
    pixels,
)
from imagegate.errors import UpstreamRefused
from imagegate.replies import failure, read_object, uncertain

LOADED: Final = "default"
"""The model whose name means the checkpoint that the server has loaded."""
_OWN: Final = frozenset(["model", "n", "size", "output_format"])


class A1111(Adapter):
    """modules/api: ``/sdapi/v1/txt2img`` and ``/sdapi/v1/img2img``."""

    name = "a1111"
    authentication = Authentication(scheme="Basic", required=False)
    picture_members = ("images",)

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        fields = request.fields
        document = {name: value for name, value in fields.items() if name not in _OWN}
        document |= {"batch_size": 1, "n_iter": request.n, **pixels(fields.get("size"))}
        settings: dict[str, Any] = {"return_grid": False}
        document["override_settings"] = settings
        if request.model != LOADED:
            # Loading a checkpoint takes long: it stays loaded instead of being put back after each request.
            settings["sd_model_checkpoint"] = request.model
            document["override_settings_restore_afterwards"] = False
        if not request.images:
            return UpstreamRequest(method="POST", path="/sdapi/v1/txt2img", document=document)
        document |= {"init_images": [inline(request.images[0])], "resize_mode": 1}
        if request.mask is not None:
            document |= {"mask": inline(request.mask), "inpainting_fill": 1}
        return UpstreamRequest(method="POST", path="/sdapi/v1/img2img", document=document)

    def decode(self, reply: UpstreamReply, *, now: int) -> ImageReply:
        document = read_object(reply.body)
        if reply.status >= 400 or document is None:
            raise failure(max(reply.status, 400), _explained(document)) if document else _unreadable(reply)
        images = document.get("images")
        encoded = [image for image in images if isinstance(image, str)] if isinstance(images, list) else []
        info = _info(document)
        first = info.get("index_of_first_image")
        if isinstance(first, int) and 0 < first < len(encoded):
            encoded = encoded[first:]  # the ones before them are grids of all
        if not encoded:
            raise uncertain("The provider's reply contains no image.")
        _check_checkpoint(document, info)
        fields: dict[str, Any] = {"output_format": "png"}
        if isinstance(info.get("width"), int) and isinstance(info.get("height"), int):
            fields["size"] = f"{info['width']}x{info['height']}"
        return ImageReply(images=tuple(ReplyImage(b64_json=each) for each in encoded), created=now, fields=fields)


def _explained(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the document with the text of its exception where errors are looked for."""
    if not isinstance(document.get("error"), str):
        return document
    words = document.get("errors") or document.get("detail")
    return {"detail": f"{document['error']}: {words}" if words else document["error"]}


def _unreadable(reply: UpstreamReply) -> Exception:
    if reply.status >= 400:
        return failure(reply.status, None)
    return uncertain(f"The provider answered {reply.status} with a body that is not JSON.")


def _info(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the JSON document that ``info`` has as a string."""
    info = document.get("info")
    return (read_object(info.encode()) if isinstance(info, str) else None) or {}


def _check_checkpoint(document: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    """Raise `UpstreamRefused` where another checkpoint made the pictures: an unknown one is dropped in silence."""
    parameters = document.get("parameters")
    settings = parameters.get("override_settings") if isinstance(parameters, Mapping) else None
    asked = settings.get("sd_model_checkpoint") if isinstance(settings, Mapping) else None
    used = [info.get("sd_model_name"), info.get("sd_model_hash")]
    if isinstance(asked, str) and isinstance(used[0], str) and not {_stem(asked), asked} & {*used}:
        raise UpstreamRefused(
            f"The server has no checkpoint '{asked}'; it made the picture with '{used[0]}'.",
            status=404,
            type="invalid_request_error",
            param="model",
            code="model_not_found",
        )


def _stem(checkpoint: str) -> str:
    """Return ``folder/name.safetensors [hash]`` as the server names it in ``info``."""
    name = checkpoint.partition(" [")[0].replace("\\", "/").rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return stem if dot and extension in ("safetensors", "ckpt", "gguf", "pt") else name


_: type[Adapter] = A1111
