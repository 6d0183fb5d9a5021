"""AUTOMATIC1111's stable-diffusion-webui, and Forge, which kept its API: txt2img, img2img, progress.

Sources: stable-diffusion-webui, modules/api/api.py and models.py, modules/processing.py (what of a request is read,
which checkpoints are dropped in silence, how many start pictures there may be).
"""

from __future__ import annotations

import base64
import io
import itertools
import json
from typing import Any, Final

from PIL import Image, ImageOps
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from tests.simulators.base import Repainted, Simulator, TextDialect, decode_base64, is_picture, picture_base64, refuse

from imagegate.demo.providers.common import RefusedError, names
from imagegate.demo.providers.frame import is_open
from imagegate.demo.providers.incoming import Incoming

USER: Final = "artist:secret-of-the-artist"
"""Name and password where it was started with ``--api-auth``."""
CHECKPOINTS: Final = ("sd_xl_base_1.0", "v1-5-pruned-emaonly")
SAMPLERS: Final = ("Euler", "Euler a", "DPM++ 2M", "DDIM", "UniPC")
FAILURE_WORD: Final = "out-of-memory"

_COMMON: Final = names(
    "prompt negative_prompt styles seed subseed subseed_strength seed_resize_from_h seed_resize_from_w"
    " sampler_name sampler_index scheduler batch_size n_iter steps cfg_scale distilled_cfg_scale width height"
    " restore_faces tiling do_not_save_samples do_not_save_grid eta denoising_strength override_settings"
    " override_settings_restore_afterwards refiner_checkpoint refiner_switch_at script_name script_args"
    " send_images save_images alwayson_scripts infotext"
)
_TEXT: Final = names("enable_hr hr_scale hr_upscaler hr_second_pass_steps hr_resize_x hr_resize_y firstphase_width")
_IMAGE: Final = names(
    "init_images resize_mode image_cfg_scale mask mask_blur mask_blur_x mask_blur_y inpainting_fill mask_round"
    " inpaint_full_res inpaint_full_res_padding inpainting_mask_invert initial_noise_multiplier"
    " include_init_images"
)
_INTEGERS: Final = names("seed batch_size n_iter steps width height mask_blur inpainting_fill resize_mode")
_SETTINGS: Final = ("sd_model_checkpoint", "return_grid", "samples_format", "CLIP_stop_at_last_layers")


def create_app(*, has_key: bool = False) -> Starlette:
    """A server with two checkpoints."""
    return _A1111(has_key=has_key).app


class _Dialect(TextDialect):
    def wrong_key(self, key: str) -> RefusedError:
        """See `frame.Dialect`."""
        return _exception(401, "Incorrect username or password")


def _exception(status: int, detail: str, kind: str = "HTTPException", errors: str = "") -> RefusedError:
    """Every exception becomes this document, whatever its status."""
    return refuse(status, error=kind, detail=detail, body="", errors=errors)


class _A1111(Simulator):
    def __init__(self, *, has_key: bool) -> None:
        self._random = itertools.count(1)
        self._checkpoint = CHECKPOINTS[0]
        self.sources: list[bytes] = []
        super().__init__(
            {
                ("POST", "/sdapi/v1/txt2img"): self._txt2img,
                ("POST", "/sdapi/v1/img2img"): self._img2img,
                ("GET", "/sdapi/v1/progress"): self._progress,
                ("POST", "/sdapi/v1/interrupt"): self._interrupt,
                ("GET", "/sdapi/v1/sd-models"): self._models,
            },
            dialect=_Dialect(),
            is_authorized=_has_password if has_key else is_open,
        )
        self.app.state.sources = self.sources

    async def _models(self, incoming: Incoming) -> Response:
        return JSONResponse([{"title": f"{name}.safetensors", "model_name": name} for name in CHECKPOINTS])

    async def _progress(self, incoming: Incoming) -> Response:
        return JSONResponse({"progress": 0.0, "eta_relative": 0.0, "state": {}, "current_image": None})

    async def _interrupt(self, incoming: Incoming) -> Response:
        return JSONResponse({})

    async def _txt2img(self, incoming: Incoming) -> Response:
        fields = _validated(incoming)
        self.drop(fields, _COMMON | _TEXT)
        return self._answer(fields, [])

    async def _img2img(self, incoming: Incoming) -> Response:
        fields = _validated(incoming)
        images = fields.get("init_images")
        if images is None:
            raise _exception(404, "Init image not found")
        self.drop(fields, _COMMON | _IMAGE)
        if fields.get("mask"):
            mask = _decoded(fields["mask"])
            if fields.get("inpainting_mask_invert"):
                mask = _inverted(mask)
            self.repainted.append(Repainted(mask, by="white"))
        sources = [_decoded(image) for image in images]
        if len(sources) > int(fields.get("batch_size", 1)):
            words = f"bad number of images passed; {len(sources)}; expecting {fields.get('batch_size', 1)} or less"
            raise _exception(500, "", "RuntimeError", words)
        self.sources += sources
        return self._answer(fields, sources)

    def _answer(self, fields: dict[str, Any], sources: list[bytes]) -> Response:
        sampler = fields.get("sampler_name") or "Euler"
        if sampler not in SAMPLERS:
            raise _exception(404, "Sampler not found")
        settings = fields.get("override_settings") or {}
        self.drop([f"override_settings.{name}" for name in settings if name not in _SETTINGS], ())
        checkpoint = settings.get("sd_model_checkpoint")
        if checkpoint is not None and checkpoint.removesuffix(".safetensors") not in CHECKPOINTS:
            self.dropped.append("override_settings.sd_model_checkpoint")
            checkpoint = None
        model = (checkpoint or self._checkpoint).removesuffix(".safetensors")
        prompt = fields.get("prompt") or ""
        if FAILURE_WORD in prompt:
            words = "CUDA out of memory. Tried to allocate 4.00 GiB"
            raise _exception(500, "", "OutOfMemoryError", words)
        width, height = int(fields.get("width", 512)) // 8 * 8, int(fields.get("height", 512)) // 8 * 8
        count = int(fields.get("batch_size", 1)) * int(fields.get("n_iter", 1))
        if min(width, height, count) <= 0:
            raise _exception(500, "", "RuntimeError", "Trying to create tensor with negative dimension")
        seed = int(fields.get("seed", -1))
        first = next(self._random) * 1000 if seed < 0 else seed
        seeds = [first + index for index in range(count)]
        images = [picture_base64(width, height, prompt=prompt, seed=seed) for seed in seeds]
        if count > 1 and fields.get("save_images") and settings.get("return_grid", True):
            images.insert(0, picture_base64(width * count, height, prompt="grid", seed=0))
        info = {"prompt": prompt, "seed": first, "all_seeds": seeds, "width": width, "height": height}
        info |= {"sd_model_name": model, "sampler_name": sampler, "index_of_first_image": len(images) - count}
        parameters = {**fields, "init_images": None, "mask": None}
        if fields.get("send_images") is False:
            images = []
        return JSONResponse({"images": images, "parameters": parameters, "info": json.dumps(info)})


def _has_password(incoming: Incoming) -> bool:
    given = incoming.headers.get("authorization", "")
    return given == f"Basic {base64.b64encode(USER.encode()).decode()}"


def _validated(incoming: Incoming) -> dict[str, Any]:
    """Pydantic's complaints are a 422; unknown members pass."""
    if incoming.fields is None or incoming.is_form:
        item = {"loc": ["body"], "msg": "value is not a valid dict", "type": "type_error.dict"}
        raise refuse(422, detail=[item])
    problems: list[dict[str, Any]] = []
    for name, value in incoming.fields.items():
        if name in _INTEGERS and not str(value).lstrip("-").isdecimal():
            problem = ("value is not a valid integer", "type_error.integer")
        elif name in ("prompt", "negative_prompt") and not isinstance(value, str):
            problem = ("str type expected", "type_error.str")
        elif name == "init_images" and not isinstance(value, list):
            problem = ("value is not a valid list", "type_error.list")
        elif name == "override_settings" and not isinstance(value, dict):
            problem = ("value is not a valid dict", "type_error.dict")
        else:
            continue
        problems.append({"loc": ["body", name], "msg": problem[0], "type": problem[1]})
    if problems:
        raise refuse(422, detail=problems)
    return incoming.fields


def _decoded(text: Any) -> bytes:
    """Bare base64 or a data URL; links are not followed unless the operator wants it."""
    text = str(text)
    if text.startswith(("http://", "https://")):
        raise _exception(500, "Requests not allowed")
    content = decode_base64(text.partition(",")[2] if text.startswith("data:image/") else text)
    if content is None or not is_picture(content):
        raise _exception(500, "Invalid encoded image")
    return content


def _inverted(mask: bytes) -> bytes:
    encoded = io.BytesIO()
    ImageOps.invert(Image.open(io.BytesIO(mask)).convert("L")).save(encoded, "PNG")
    return encoded.getvalue()
