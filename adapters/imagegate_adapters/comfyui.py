"""ComfyUI: the operator's own workflows. Jobs get ids of our choosing, so that a lost submit is looked up."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from imagegate.adapter import (
    Adapter,
    Authentication,
    FileID,
    FilePart,
    ImageReply,
    ImageRequest,
    PendingTask,
    ReplyImage,
    TextPart,
    Upload,
    UpstreamReply,
    UpstreamRequest,
)
from imagegate.contract import ContractDocument
from imagegate.errors import ConfigError, RequestError, UpstreamRefused
from imagegate.replies import failure, read_object, uncertain
from imagegate_adapters.comfyui_workflows import Inputs, Options, Workflow

_FOLDER: Final = "imagegate"
"""Of the server's input folder, where uploads go."""
_EXTENSIONS: Final = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_.() -]{1,200}", re.ASCII)
_CLIENT: Final = "imagegate"
_UNUSED: Final = frozenset(["model", "output_format", "n"])
"""Members that no workflow has a place for: pictures are PNG in any case."""


class ComfyUI(Adapter):
    """ComfyUI's server.py and comfy_execution/jobs.py; versions without ``/api/jobs`` are asked for their history."""

    name = "comfyui"
    authentication = Authentication(required=False)
    options_type = Options
    options: Options
    names_jobs = True
    always_tasks = True
    keyed_results = True
    task_path = "/api/jobs/{id}"

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._generations = Workflow.of(self.options.workflow, self.options.inputs, "workflow", "inputs")
        self._edits = Workflow.of(self.options.edit_workflow, self.options.edit_inputs, "edit_workflow", "edit_inputs")
        self._inpainting = Workflow.of(
            self.options.inpaint_workflow, self.options.inpaint_inputs, "inpaint_workflow", "inpaint_inputs"
        )

    def check(self) -> None:
        """Check that the workflows have the inputs that the options name."""
        if self._generations is None and self._edits is None:
            raise ConfigError("options.workflow: the file of a workflow is missing (ComfyUI: Workflow > Export (API))")
        for workflow in (self._generations, self._edits, self._inpainting):
            if workflow is not None:
                workflow.check()
        if self._generations is not None and "image" in self._generations.inputs:
            raise ConfigError("options.inputs.image: a workflow with images belongs in edit_workflow")
        if self._edits is not None and "image" not in self._edits.inputs:
            raise ConfigError("options.edit_inputs: 'image' is missing")
        if self._inpainting is not None and not {"image", "mask"} <= set(self._inpainting.inputs):
            raise ConfigError("options.inpaint_inputs: 'image' and 'mask' are needed")

    def contracts(self) -> ContractDocument:
        """Return one contract, for the model that the options name, or for any: the members are the inputs."""
        document = super().contracts()
        known = document.models["*"]
        workflows = [
            workflow for workflow in (self._generations, self._edits, self._inpainting) if workflow is not None
        ]
        if not workflows:
            return document
        own: dict[str, Any] = {"parameters": {}, "size": {"rule": "none"}}
        if self._generations is not None:
            own = self._generations.contract(known)
        if editing := [workflow for workflow in workflows if workflow is not self._generations]:
            own["edits"] = self._editing(editing, known, own["parameters"])
        return msgspec.structs.replace(document, models={self.options.model: own})

    def _editing(self, workflows: list[Workflow], known: Mapping[str, Any], inherited: Iterable[str]) -> dict[str, Any]:
        """Return the table of edits, which take what any of their workflows does."""
        tables = [workflow.contract(known) for workflow in workflows]
        parameters: dict[str, Any] = dict.fromkeys(inherited, False)
        for table in tables:
            parameters |= table["parameters"]
        parameters["n"] = min((table["parameters"]["n"] for table in tables), key=lambda n: int(n["max"]))
        references = {
            **known["edits"]["references"],
            "max": max(len(workflow.inputs["image"]) for workflow in workflows),
            "mask": any("mask" in workflow.inputs for workflow in workflows),
            "mask_polarity": self.options.mask_polarity,
        }
        return {**tables[0], "parameters": parameters, "references": references}

    def encode_upload(self, upload: Upload) -> UpstreamRequest:
        """Name the file ourselves: a name such as ``a.png [output]`` would lead to another file."""
        facts = upload.facts
        known = f"{upload.filename}\n{upload.size}\n{facts and (facts.width, facts.height)}".encode("utf-8", "replace")
        name = f"{hashlib.sha256(known).hexdigest()[:24]}.{_EXTENSIONS.get(upload.media_type, 'png')}"
        parts = (TextPart("type", "input"), TextPart("subfolder", _FOLDER), FilePart("image", upload, name))
        return UpstreamRequest(method="POST", path="/upload/image", parts=parts)

    def decode_upload(self, reply: UpstreamReply) -> str:
        """Return the file as a node names it. The server keeps another file of the same name, and numbers the new."""
        document = read_object(reply.body)
        if reply.status >= 400 or document is None:
            raise failure(max(reply.status, 400), document)
        name, folder = document.get("name"), document.get("subfolder", "")
        if not isinstance(name, str) or not _SAFE_NAME.fullmatch(name) or folder not in ("", _FOLDER):
            raise uncertain("The provider's reply to an upload cannot be read.")
        return f"{folder}/{name}" if folder else name

    def encode(self, request: ImageRequest) -> UpstreamRequest:
        document = {"prompt": self._graph(request), "client_id": _CLIENT}
        if request.job_id:
            document["prompt_id"] = request.job_id
        return UpstreamRequest(method="POST", path="/prompt", document=document, job_id=request.job_id)

    def _graph(self, request: ImageRequest) -> Mapping[str, Any]:
        """Return the workflow with the request in it. Raises `RequestError` for what it has no place for."""
        workflow = self._generations
        if request.images:
            workflow = (self._inpainting or self._edits) if request.mask is not None else self._edits
            if workflow is None or (request.mask is not None and "mask" not in workflow.inputs):
                raise RequestError("This model needs a mask beside the image.", param="mask")
        if workflow is None:
            raise RequestError("This model needs an image to start from.", param="image")
        values: dict[str, Any] = {name: value for name, value in request.fields.items() if name not in _UNUSED}
        if size := values.pop("size", None):
            values["width"], values["height"] = (int(edge) for edge in size.split("x"))
        if request.n > 1:
            values["n"] = request.n
        if missing := next((name for name in values if name not in workflow.inputs), None):
            param = "size" if missing == "width" else missing
            raise RequestError(f"The workflow of this model has no place for '{param}'.", param=param)
        if "n" in workflow.inputs:
            values["n"] = request.n
        places = len(workflow.inputs.get("image", ()))
        if len(request.images) != places:
            wanted = f"{places} image{'s' if places > 1 else ''}"
            raise RequestError(f"This model takes {wanted}, no more and no fewer.", param="image")
        values["image"] = [_file(image) for image in request.images]
        if request.mask is not None:
            values["mask"] = _file(request.mask)
        return workflow.filled(values)

    def decode(self, reply: UpstreamReply, *, now: int) -> PendingTask:
        """Read the answer to a submit."""
        document = read_object(reply.body)
        if reply.status >= 400:
            raise self._refused(reply, document)
        if document is None:
            raise _unreadable(reply)
        id_ = document.get("prompt_id")
        if not isinstance(id_, str):
            raise uncertain("The provider's reply names no job.")
        return PendingTask(id=id_)

    def _refused(self, reply: UpstreamReply, document: Mapping[str, Any] | None) -> Exception:
        """Return the error of a refused workflow, with the field whose value its node did not take."""
        error = failure(reply.status, document)
        for node, problem in _problems(document or {}):
            info = problem.get("extra_info")
            place = f"{node}.{info.get('input_name') if isinstance(info, Mapping) else ''}"
            error.message = f"{problem.get('message')}: {problem.get('details')} (node {node})"
            error.param = next((name for name, at in self._all_inputs() if place in at), None)
            break
        return error

    def _all_inputs(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        for workflow in (self._generations, self._edits, self._inpainting):
            for name, places in (workflow.inputs if workflow else Inputs()).items():
                yield ("size" if name in ("width", "height") else name), places

    def decode_task(self, task: PendingTask, reply: UpstreamReply, *, now: int) -> ImageReply | PendingTask:
        """Read a job, or the history of versions that have no jobs."""
        document = read_object(reply.body)
        if document is None and reply.status == 404 and task.poll_url is None:
            return PendingTask(id=task.id, poll_url=f"/history/{quote(task.id, safe='')}")
        if reply.status >= 400:
            raise failure(reply.status, document)
        if document is None:
            raise _unreadable(reply)
        if isinstance(cancelled := document.get("cancelled"), bool):
            if cancelled:
                raise _ended("The job was cancelled.", code="task_cancelled")
            return task
        if task.poll_url is not None:
            entry = document.get(task.id)
            if not isinstance(entry, Mapping):
                return task
            document = _as_job(entry)
        match document.get("status"):
            case "completed":
                return _reply(document, now)
            case "failed":
                raise _ended(_reason(document), code="generation_failed")
            case "cancelled":
                raise _ended("The job was cancelled.", code="task_cancelled")
            case _:
                return task

    def cancel(self, task: PendingTask) -> UpstreamRequest | None:
        """Return the request that ends a job, whether it waits or runs; versions without jobs have none."""
        if task.poll_url is not None:
            return None
        return UpstreamRequest(method="POST", path=f"{self.poll(task).path}/cancel", document={})


def _unreadable(reply: UpstreamReply) -> Exception:
    return uncertain(f"The provider answered {reply.status} with a body that is not JSON.")


def _file(reference: object) -> str:
    """Return what a node that loads an image wants: the name that the upload gave."""
    return reference.id if isinstance(reference, FileID) else "(uploaded)"


def _problems(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    nodes = document.get("node_errors")
    for node, entry in nodes.items() if isinstance(nodes, Mapping) else ():
        errors = entry.get("errors") if isinstance(entry, Mapping) else None
        for problem in errors if isinstance(errors, list) else ():
            if isinstance(problem, Mapping):
                yield str(node), problem


def _ended(message: str, *, code: str) -> UpstreamRefused:
    error = UpstreamRefused(message, code=code)
    error.ends_task = True
    return error


def _as_job(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of the history in the words of a job."""
    status = entry.get("status")
    status = status if isinstance(status, Mapping) else {}
    events = {
        message[0]: message[1]
        for message in (status.get("messages") or ())
        if isinstance(message, list) and len(message) == 2 and isinstance(message[0], str)
    }
    word = "completed"
    if status.get("status_str") == "error":
        word = "cancelled" if "execution_interrupted" in events else "failed"
    return {"status": word, "outputs": entry.get("outputs"), "execution_error": events.get("execution_error")}


def _reason(document: Mapping[str, Any]) -> str:
    error = document.get("execution_error")
    error = error if isinstance(error, Mapping) else {}
    message = str(error.get("exception_message") or "").strip() or "The workflow failed."
    return f"{message} ({error['node_type']})" if error.get("node_type") else message


def _reply(document: Mapping[str, Any], now: int) -> ImageReply:
    """Return the saved pictures, in the order of the nodes; what is of the type `temp` is a preview."""
    outputs = document.get("outputs")
    nodes = outputs.values() if isinstance(outputs, Mapping) else ()
    files = [file for node in nodes if isinstance(node, Mapping) for file in (node.get("images") or ())]
    links = [_link(file) for file in files if isinstance(file, Mapping) and file.get("type") == "output"]
    if not links:
        raise _ended("The workflow saved no picture.", code="no_image")
    return ImageReply(images=tuple(ReplyImage(url=link) for link in links), created=now)


def _link(file: Mapping[str, Any]) -> str:
    named = {name: str(file.get(name) or "") for name in ("filename", "subfolder", "type")}
    return f"/view?{urlencode(named)}"


_: type[Adapter] = ComfyUI
