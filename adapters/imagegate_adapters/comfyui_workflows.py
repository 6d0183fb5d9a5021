"""Workflows of ComfyUI, in its API format, and the map from a request's members to inputs of their nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from imagegate.adapter import TextFile
from imagegate.errors import ConfigError

Inputs = dict[str, tuple[str, ...]]
"""Member -> the inputs that get its value, each as ``node.input``."""

_SIZE: Final = ("width", "height")
_FILES: Final = ("image", "mask")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of an upstream: its workflows, as ComfyUI exports them for its API."""

    model: str = "*"
    """The model that the workflows are; default: whatever is addressed to the upstream."""
    workflow: TextFile | None = None
    """For generations."""
    inputs: Mapping[str, str | tuple[str, ...]] = {}
    """Member -> ``node.input``, or several: `prompt`, `seed`, `width`, `height`, `n`, `negative_prompt`, and any other
    member that clients may send."""
    edit_workflow: TextFile | None = None
    """For edits: `edit_inputs` has `image` as well, with one input for each image."""
    edit_inputs: Mapping[str, str | tuple[str, ...]] = {}
    inpaint_workflow: TextFile | None = None
    """For edits with a mask, where `edit_workflow` has no place for one."""
    inpaint_inputs: Mapping[str, str | tuple[str, ...]] = {}
    mask_polarity: Literal["alpha", "white"] = "alpha"
    """What the workflow paints: what is transparent, as `LoadImage` and the alpha channel have it, or what is white."""


class Workflow:
    """A graph with places for a request's members."""

    def __init__(self, source: str, inputs: Inputs, *, option: str, inputs_option: str) -> None:
        self._option, self._inputs_option = option, inputs_option
        try:
            self._graph: Any = json.loads(source)
        except ValueError:
            self._graph = None
        self.inputs = inputs

    @classmethod
    def of(
        cls, file: TextFile | None, inputs: Mapping[str, str | tuple[str, ...]], option: str, inputs_option: str
    ) -> Workflow | None:
        """Return the workflow of two options; None: there is none."""
        if file is None:
            return None
        places = {name: (at,) if isinstance(at, str) else tuple(at) for name, at in inputs.items()}
        return cls(file.text, places, option=option, inputs_option=inputs_option)

    def check(self) -> None:
        """Raise `ConfigError` where the file is no workflow, or has not the inputs that are named."""
        nodes = self._graph if isinstance(self._graph, dict) else {}
        if not nodes or not all(isinstance(node, dict) and "class_type" in node for node in nodes.values()):
            raise ConfigError(
                f"options.{self._option}: is no workflow in API format (ComfyUI: Workflow > Export (API))"
            )
        for name, places in self.inputs.items():
            for place in places or ("",):
                node, _, input_ = place.partition(".")
                if input_ not in nodes.get(node, {}).get("inputs", {}):
                    raise ConfigError(f"options.{self._inputs_option}.{name}: the workflow has no input '{place}'")
        for name in ("prompt", "seed"):
            if name not in self.inputs:
                why = "" if name == "prompt" else ": with the file's own, all pictures would be the same"
                raise ConfigError(f"options.{self._inputs_option}: '{name}' is missing{why}")
        if len(self.inputs.keys() & {*_SIZE}) == 1:
            raise ConfigError(f"options.{self._inputs_option}: 'width' and 'height' belong together")
        if len(self.inputs.get("mask", ())) > 1:
            raise ConfigError(f"options.{self._inputs_option}.mask: a workflow takes one mask")

    def contract(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return the table of a contract: what has no input is no member of the model.

        Args:
            known: the table of all that a workflow may have.
        """
        parameters: dict[str, Any] = {"n": {"type": "integer", "min": 1, "max": 1}}
        for name, places in self.inputs.items():
            if name not in (*_SIZE, *_FILES) and places:
                parameters[name] = known["parameters"].get(name) or {"type": _type_of(self._value(places[0]))}
        parameters.setdefault("output_format", known["parameters"]["output_format"])
        return {"parameters": parameters, "size": known["size"] if "width" in self.inputs else {"rule": "none"}}

    def _value(self, place: str) -> Any:
        node, _, input_ = place.partition(".")
        return (
            self._graph[node]["inputs"].get(input_) if isinstance(self._graph, dict) and node in self._graph else None
        )

    def filled(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the graph with the values in their places; a list has one value for each place."""
        graph: dict[str, Any] = json.loads(json.dumps(self._graph))
        for name, value in values.items():
            places = self.inputs.get(name, ())
            each = value if name == "image" else [value] * len(places)
            for place, own in zip(places, each, strict=True):
                node, _, input_ = place.partition(".")
                graph[node]["inputs"][input_] = own
        return graph


def _type_of(value: Any) -> str:
    """Return the JSON type of what the workflow has there."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "string"
