"""The workflows of the demo's ComfyUI, as a person would export them, and the options that name their inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def _sampled(latent: str) -> dict[str, Any]:
    """Return the nodes from a latent image to a file."""
    settings = {"steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": [latent, 0]}
    return {
        "3": _node("KSampler", seed=1, **settings, **links),
        "4": _node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
        "6": _node("CLIPTextEncode", text="", clip=["4", 1]),
        "7": _node("CLIPTextEncode", text="text, watermark", clip=["4", 1]),
        "8": _node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": _node("SaveImage", images=["8", 0], filename_prefix="demo"),
    }


WORKFLOWS: Final = {
    "comfyui-generate.json": {**_sampled("5"), "5": _node("EmptyLatentImage", width=1024, height=1024, batch_size=1)},
    "comfyui-inpaint.json": {
        **_sampled("12"),
        "10": _node("LoadImage", image="example.png"),
        "11": _node("LoadImageMask", image="example.png", channel="alpha"),
        "12": _node("VAEEncodeForInpaint", pixels=["10", 0], vae=["4", 2], mask=["11", 0], grow_mask_by=6),
    },
}
OPTIONS: Final = """
[upstreams.options]
model = "sdxl"
workflow = "comfyui-generate.json"
inpaint_workflow = "comfyui-inpaint.json"
inputs = { prompt = "6.text", seed = "3.seed", width = "5.width", height = "5.height", n = "5.batch_size" }
inpaint_inputs = { prompt = "6.text", seed = "3.seed", image = "10.image", mask = "11.image" }
"""


def write_workflows(folder: Path) -> None:
    """Write the files that `OPTIONS` names."""
    for name, graph in WORKFLOWS.items():
        (folder / name).write_text(json.dumps(graph, indent=2), "utf-8")
