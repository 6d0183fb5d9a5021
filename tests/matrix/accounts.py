"""An account at every adapter that ships, and the models of it that stand in the matrix."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from imagegate import Config
from imagegate.config.loader import parse_config
from imagegate.contract import Operation
from imagegate.registry import load_adapter


class Models(NamedTuple):
    """What an adapter is asked for."""

    generations: str
    edits: str = ""
    """Where it is another model."""
    options: Mapping[str, Any] = {}

    def of(self, operation: Operation) -> str:
        return self.edits or self.generations if operation == "edits" else self.generations


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def _workflow(**more: Any) -> str:
    """A graph as ComfyUI's own examples have it."""
    return json.dumps(
        {
            "3": _node("KSampler", seed=1, steps=20, cfg=8.0, denoise=1.0, positive=["6", 0], negative=["7", 0]),
            "5": _node("EmptyLatentImage", width=1024, height=1024, batch_size=1),
            "6": _node("CLIPTextEncode", text="", clip=["4", 1]),
            "7": _node("CLIPTextEncode", text="", clip=["4", 1]),
            "9": _node("SaveImage", images=["8", 0], filename_prefix="picture"),
            **more,
        }
    )


_INPUTS: Final = {"prompt": "6.text", "negative_prompt": "7.text", "seed": "3.seed"}
_COMFYUI: Final = {
    "workflow": "generate.json",
    "inputs": {**_INPUTS, "width": "5.width", "height": "5.height", "n": "5.batch_size"},
    "edit_workflow": "edit.json",
    "edit_inputs": {**_INPUTS, "image": "10.image"},
    "inpaint_workflow": "inpaint.json",
    "inpaint_inputs": {**_INPUTS, "image": "10.image", "mask": "11.image"},
}
_IMAGE: Final = _node("LoadImage", image="example.png")
FILES: Final[Mapping[str, str]] = {
    "generate.json": _workflow(),
    "edit.json": _workflow(**{"10": _IMAGE}),
    "inpaint.json": _workflow(**{"10": _IMAGE, "11": _node("LoadImageMask", image="example.png", channel="alpha")}),
}
"""Beside the configuration."""

ACCOUNTS: Final[Mapping[str, Models]] = {
    "openai": Models("gpt-image-2"),
    "azure": Models("gpt-image-2", options={"resource": "studio"}),
    "gemini": Models("gemini-3.1-flash-image"),
    "vertex": Models("gemini-3-pro-image", options={"project": "studio-1"}),
    "xai": Models("grok-imagine-image-2.0"),
    "bfl": Models("flux-2-pro"),
    "ideogram": Models("ideogram-v3"),
    "recraft": Models("recraftv4_1"),
    "stability": Models("core", "sd3.5-large"),
    "bedrock": Models("stability.stable-image-ultra-v1:1", "stability.sd3-5-large-v1:0"),
    "seedream": Models("seedream-4-5-251128"),
    "dashscope": Models("qwen-image-2.0"),
    "zai": Models("glm-image"),
    "fal": Models("fal-ai/flux-2"),
    "replicate": Models("google/nano-banana-2"),
    "together": Models("black-forest-labs/FLUX.2-pro"),
    "deepinfra": Models("black-forest-labs/FLUX-2-dev"),
    "fireworks": Models("flux-1-schnell-fp8", "flux-kontext-pro"),
    "huggingface": Models("black-forest-labs/FLUX.1-dev"),
    "siliconflow": Models("Qwen/Qwen-Image", "Qwen/Qwen-Image-Edit-2509"),
    "modelscope": Models("Qwen/Qwen-Image", "Qwen/Qwen-Image-Edit"),
    "openrouter": Models("google/gemini-3.1-flash-image"),
    "tokmodel": Models("openai/gpt-image-2"),
    "tokenbay": Models("gpt-image-2"),
    "tokenlab": Models("gemini-3-pro-image-preview"),
    "toapis": Models("gpt-image-2"),
    "onetoken": Models("gpt-image-2"),
    "openai-compatible": Models("any-model"),
    "vllm-omni": Models("Qwen/Qwen-Image"),
    "sglang": Models("Qwen/Qwen-Image"),
    "stable-diffusion-cpp": Models("flux-1-dev"),
    "localai": Models("flux.1-dev"),
    "ollama": Models("x/z-image-turbo"),
    "a1111": Models("sd_xl_base_1.0"),
    "comfyui": Models("sdxl", options=_COMFYUI),
}


def config_of_all(directory: Any) -> Config:
    """Return a configuration with every account, whose files are in a folder."""
    for name, text in FILES.items():
        (directory / name).write_text(text, "utf-8")
    lines: list[str] = []
    for name, models in ACCOUNTS.items():
        lines += ["[[upstreams]]", f'name = "{name}"', 'api_key = "key"']
        if not load_adapter(name).base_url and "resource" not in models.options:
            lines.append(f'base_url = "http://{name}.test"')
        if models.options:
            lines.append(f"options = {_inline(models.options)}")
    return parse_config("\n".join(lines), environment={}, directory=directory)


def _inline(value: Any) -> str:
    """Return a value as TOML in a line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_inline(each)}" for name, each in value.items()) + " }"
    return json.dumps(value)
