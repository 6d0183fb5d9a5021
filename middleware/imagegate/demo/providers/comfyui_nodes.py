"""ComfyUI's nodes, as far as a stand-in needs them: their inputs are checked as ComfyUI does, and sizes, prompts,
seeds and masks flow through them; no image is drawn before it is loaded.

Sources: ComfyUI's nodes.py (inputs, ranges, what a mask means), execution.py (order and wording of the checks).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from PIL import Image, ImageChops

Graph = Mapping[str, Any]
Files = Mapping[str, bytes]
"""Contents of the input folder, by path."""
Values = Mapping[str, Any]
"""What a node's inputs are, by name; `files` for those that load any."""
Outputs = tuple[Any, ...]

CHECKPOINTS: Final = ("sd_xl_base_1.0.safetensors", "flux1-dev-fp8.safetensors")
FAILURE_WORD: Final = "out-of-memory"
"""A sampler that gets a prompt with this word fails while the job runs."""

_SAMPLERS: Final = ("euler", "euler_ancestral", "dpmpp_2m", "ddim", "uni_pc")
_SCHEDULERS: Final = ("normal", "karras", "simple", "sgm_uniform")


@dataclass(frozen=True, slots=True)
class Canvas:
    """A latent or an image: what is known of a picture before it is drawn."""

    width: int
    height: int
    batch: int = 1
    prompt: str = ""
    seed: int | None = None
    sources: int = 0
    """Loaded pictures in it."""
    repainted: Image.Image | None = None
    """White where a mask lets a sampler paint; None: everywhere."""


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a node: a type's name for links, or a widget with its range or choices."""

    kind: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    required: bool = True


@dataclass(frozen=True, slots=True)
class Node:
    """A class of nodes."""

    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]
    run: Callable[[Values], Outputs]
    saves: str = ""
    """For nodes that end a graph: where their pictures go, `output` or `temp`."""


class ExecutionError(Exception):
    """A node failed while the job was running."""

    def __init__(self, node_type: str, message: str) -> None:
        super().__init__(message)
        self.node_type = node_type
        self.message = message


@dataclass(slots=True)
class Checked:
    """What a look at a graph gave: an error of the whole graph, errors by node, the outputs that can be run."""

    error: dict[str, Any] | None = None
    node_errors: dict[str, Any] = field(default_factory=dict[str, Any])
    outputs: list[str] = field(default_factory=list[str])


def _links(**kinds: str) -> dict[str, Input]:
    return {name: Input(kind) for name, kind in kinds.items()}


def _pixels() -> dict[str, Input]:
    return {"width": Input("INT", 16, 16384), "height": Input("INT", 16, 16384)}


def _picture(files: Files, name: str) -> Image.Image:
    image = Image.open(io.BytesIO(files[name]))
    image.load()
    return image


def _load_image(of: Values) -> Outputs:
    """Load an image; the second output is a mask: what is transparent may be painted."""
    picture = _picture(of["files"], of["image"])
    canvas = Canvas(picture.width, picture.height, sources=1)
    if "A" in picture.getbands():
        return canvas, ImageChops.invert(picture.getchannel("A"))
    return canvas, Image.new("L", (64, 64), 0)


def _load_mask(of: Values) -> Outputs:
    """Turn only the alpha channel around."""
    channel: str = of["channel"]
    band = _picture(of["files"], of["image"]).convert("RGBA").getchannel(channel[0].upper())
    return (ImageChops.invert(band) if channel == "alpha" else band,)


def _empty_latent(of: Values) -> Outputs:
    return (Canvas(of["width"] // 8 * 8, of["height"] // 8 * 8, of["batch_size"]),)


def _masked(canvas: Canvas, mask: Image.Image) -> Outputs:
    return (replace(canvas, repainted=mask.resize((canvas.width, canvas.height), Image.Resampling.NEAREST)),)


def _sample(of: Values) -> Outputs:
    if FAILURE_WORD in of["positive"].lower():
        raise ExecutionError("KSampler", "Allocation on device 0 would exceed allowed memory. (out of memory)")
    return (replace(of["latent_image"], prompt=of["positive"], seed=of["seed"]),)


def _scaled(of: Values) -> Outputs:
    image: Canvas = of["image"]
    return (replace(image, width=of["width"] or image.width, height=of["height"] or image.height),)


def _repeated(of: Values) -> Outputs:
    samples: Canvas = of["samples"]
    return (replace(samples, batch=samples.batch * of["amount"]),)


def _batch(of: Values) -> Outputs:
    first, second = of["image1"], of["image2"]
    return (replace(first, batch=first.batch + second.batch, sources=first.sources + second.sources),)


_SAVE: Final = _links(images="IMAGE")

NODES: Final[Mapping[str, Node]] = {
    "CheckpointLoaderSimple": Node(
        {"ckpt_name": Input("COMBO", choices=CHECKPOINTS)},
        ("MODEL", "CLIP", "VAE"),
        lambda of: (of["ckpt_name"],) * 3,
    ),
    "CLIPTextEncode": Node(
        {"text": Input("STRING"), "clip": Input("CLIP")}, ("CONDITIONING",), lambda of: (of["text"],)
    ),
    "EmptyLatentImage": Node(
        {**_pixels(), "batch_size": Input("INT", 1, 4096)},
        ("LATENT",),
        _empty_latent,
    ),
    "EmptyImage": Node(
        {
            "width": Input("INT", 1, 16384),
            "height": Input("INT", 1, 16384),
            "batch_size": Input("INT", 1, 4096),
            "color": Input("INT", 0, 0xFFFFFF),
        },
        ("IMAGE",),
        lambda of: (Canvas(of["width"], of["height"], of["batch_size"], seed=of["color"]),),
    ),
    "KSampler": Node(
        {
            **_links(model="MODEL"),
            "seed": Input("INT", 0, 2**64 - 1),
            "steps": Input("INT", 1, 10000),
            "cfg": Input("FLOAT", 0, 100),
            "sampler_name": Input("COMBO", choices=_SAMPLERS),
            "scheduler": Input("COMBO", choices=_SCHEDULERS),
            **_links(positive="CONDITIONING", negative="CONDITIONING", latent_image="LATENT"),
            "denoise": Input("FLOAT", 0, 1),
        },
        ("LATENT",),
        _sample,
    ),
    "VAEDecode": Node(_links(samples="LATENT", vae="VAE"), ("IMAGE",), lambda of: (of["samples"],)),
    "VAEEncode": Node(_links(pixels="IMAGE", vae="VAE"), ("LATENT",), lambda of: (of["pixels"],)),
    "VAEEncodeForInpaint": Node(
        {**_links(pixels="IMAGE", vae="VAE", mask="MASK"), "grow_mask_by": Input("INT", 0, 64)},
        ("LATENT",),
        lambda of: _masked(of["pixels"], of["mask"]),
    ),
    "SetLatentNoiseMask": Node(
        _links(samples="LATENT", mask="MASK"), ("LATENT",), lambda of: _masked(of["samples"], of["mask"])
    ),
    "RepeatLatentBatch": Node(
        {**_links(samples="LATENT"), "amount": Input("INT", 1, 64)},
        ("LATENT",),
        _repeated,
    ),
    "LoadImage": Node({"image": Input("FILE")}, ("IMAGE", "MASK"), _load_image),
    "LoadImageMask": Node(
        {"image": Input("FILE"), "channel": Input("COMBO", choices=("alpha", "red", "green", "blue"))},
        ("MASK",),
        _load_mask,
    ),
    "ImageScale": Node(
        {
            **_links(image="IMAGE"),
            "upscale_method": Input("COMBO", choices=("nearest-exact", "bilinear", "area", "bicubic", "lanczos")),
            "width": Input("INT", 0, 16384),
            "height": Input("INT", 0, 16384),
            "crop": Input("COMBO", choices=("disabled", "center")),
        },
        ("IMAGE",),
        _scaled,
    ),
    "ImageInvert": Node(_links(image="IMAGE"), ("IMAGE",), lambda of: (of["image"],)),
    "InvertMask": Node(_links(mask="MASK"), ("MASK",), lambda of: (ImageChops.invert(of["mask"]),)),
    "ImageBatch": Node(_links(image1="IMAGE", image2="IMAGE"), ("IMAGE",), _batch),
    "SaveImage": Node({**_SAVE, "filename_prefix": Input("STRING")}, (), lambda of: (), "output"),
    "PreviewImage": Node(_SAVE, (), lambda of: (), "temp"),
}


def check_graph(graph: Graph, files: Files) -> Checked:
    """Look at a graph before it is queued, in ComfyUI's order: classes, outputs, then each output's ancestors."""
    for id_, node in graph.items():
        if "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return Checked(_graph_error("invalid_prompt", message, f"Node ID '#{id_}'"))
        if node["class_type"] not in NODES:
            message = f"Cannot execute because node {node['class_type']} does not exist."
            return Checked(_graph_error("invalid_prompt", message, f"Node ID '#{id_}'"))
    ends = [id_ for id_, node in graph.items() if NODES[node["class_type"]].saves]
    if not ends:
        return Checked(_graph_error("prompt_no_outputs", "Prompt has no outputs", ""))
    checked = Checked()
    for end in ends:
        bad = {id_: found for id_ in _ancestors(graph, end) if (found := _node_problems(graph, id_, files))}
        for id_, found in bad.items():
            class_type = graph[id_]["class_type"]
            entry = {"errors": found, "dependent_outputs": list[str](), "class_type": class_type}
            checked.node_errors.setdefault(id_, entry)["dependent_outputs"].append(end)
        if not bad:
            checked.outputs.append(end)
    if not checked.outputs:
        problems = [problem for entry in checked.node_errors.values() for problem in entry["errors"]]
        details = "\n".join(f"{problem['message']}: {problem['details']}" for problem in problems)
        message = "Prompt outputs failed validation"
        checked.error = _graph_error("prompt_outputs_failed_validation", message, details)
    return checked


def _graph_error(kind: str, message: str, details: str) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": {}}


def _input_error(name: str, kind: str, message: str, details: str = "") -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details or name, "extra_info": {"input_name": name}}


def _ancestors(graph: Graph, end: str) -> list[str]:
    found: list[str] = []
    waiting = [end]
    while waiting:
        id_ = waiting.pop()
        if id_ in found or id_ not in graph:
            continue
        found.append(id_)
        waiting += [value[0] for value in graph[id_].get("inputs", {}).values() if isinstance(value, list) and value]
    return found


def _node_problems(graph: Graph, id_: str, files: Files) -> list[dict[str, Any]]:
    node = graph[id_]
    given = node.get("inputs", {})
    problems: list[dict[str, Any]] = []
    for name, wanted in NODES[node["class_type"]].inputs.items():
        if name not in given:
            if wanted.required:
                problems.append(_input_error(name, "required_input_missing", "Required input is missing"))
        elif isinstance(given[name], list):
            problems += _link_problems(graph, name, given[name], wanted)
        else:
            problems += _widget_problems(name, given[name], wanted, files)
    return problems


def _link_problems(graph: Graph, name: str, link: list[Any], wanted: Input) -> list[dict[str, Any]]:
    if len(link) != 2 or link[0] not in graph:
        message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
        return [_input_error(name, "bad_linked_input", message)]
    outputs = NODES[graph[link[0]]["class_type"]].outputs
    kind = outputs[link[1]] if link[1] < len(outputs) else "nothing"
    if kind != wanted.kind:
        details = f"{name}, received_type({kind}) mismatch input_type({wanted.kind})"
        return [_input_error(name, "return_type_mismatch", "Return type mismatch between linked nodes", details)]
    return []


def _widget_problems(name: str, value: Any, wanted: Input, files: Files) -> list[dict[str, Any]]:
    if wanted.kind == "FILE":
        if value in files:
            return []
        details = f"{name} - Invalid image file: {value}"
        return [_input_error(name, "custom_validation_failed", "Custom validation failed for node", details)]
    if wanted.choices:
        if value in wanted.choices:
            return []
        details = f"{name}: '{value}' not in {list(wanted.choices)}"
        return [_input_error(name, "value_not_in_list", "Value not in list", details)]
    if wanted.kind in ("INT", "FLOAT"):
        return _number_problems(name, value, wanted)
    if wanted.kind == "STRING":
        return []
    message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
    return [_input_error(name, "bad_linked_input", message)]


def _number_problems(name: str, value: Any, wanted: Input) -> list[dict[str, Any]]:
    try:
        number = int(value) if wanted.kind == "INT" else float(value)
    except (TypeError, ValueError) as error:
        message = f"Failed to convert an input value to a {wanted.kind} value"
        return [_input_error(name, "invalid_input_type", message, f"{name}, {value}, {error}")]
    if wanted.low is not None and number < wanted.low:
        message = f"Value {number} smaller than min of {wanted.low}"
        return [_input_error(name, "value_smaller_than_min", message)]
    if wanted.high is not None and number > wanted.high:
        message = f"Value {number} bigger than max of {wanted.high}"
        return [_input_error(name, "value_bigger_than_max", message)]
    return []


def run_graph(graph: Graph, output: str, files: Files) -> Canvas:
    """Return what an output node would save. Raises `ExecutionError`."""
    made: dict[str, tuple[Any, ...]] = {}

    def value_of(value: Any) -> Any:
        if isinstance(value, list):
            id_, slot = value
            if id_ not in made:
                made[id_] = run(id_)
            return made[id_][slot]
        return value

    def run(id_: str) -> tuple[Any, ...]:
        node = graph[id_]
        wanted = NODES[node["class_type"]]
        arguments = {name: value_of(node["inputs"][name]) for name in wanted.inputs}
        if any(needed.kind == "FILE" for needed in wanted.inputs.values()):
            arguments["files"] = files
        return wanted.run(arguments)

    canvas: Canvas = value_of(graph[output]["inputs"]["images"])
    return canvas
