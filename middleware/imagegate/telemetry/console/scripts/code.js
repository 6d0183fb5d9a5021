// The same request as a command and as a program. Keys are never written, only the variable of the environment that has one.

const KEY_VARIABLE = "IMAGEGATE_API_KEY";
const ARGUMENTS = {
  generate: "model prompt background moderation n output_compression output_format partial_images quality response_format size stream style user".split(" "),
  edit: "model prompt background input_fidelity n output_compression output_format partial_images quality response_format size stream user".split(" "),
};

const keyed = () => sessionStorage.getItem("imagegate.key") !== null;
const described = (file) => ({ name: file.name, type: file.type });

// What codeOf needs, without the files' content.
function snapshot(body) {
  return { body, images: references.images.map(described), mask: references.mask && described(references.mask), edit: isEdit(), keyed: keyed() };
}

const formValue = (value) => typeof value === "string" ? value : JSON.stringify(value);
const formFields = (body) => Object.entries(body).filter(([, value]) => value !== null).map(([name, value]) => [name, formValue(value)]);
const imagePart = (count) => count > 1 ? "image[]" : "image";

const shell = (value) => "'" + value.replaceAll("'", "'\\''") + "'";

function shellFile(part, file) {
  const name = file.name.replaceAll("\\", "\\\\").replaceAll("\"", "\\\"");
  return "-F " + shell(part + "=@\"" + name + "\"" + (file.type ? ";type=" + file.type : ""));
}

function curl(asked) {
  const lines = ["curl " + shell(location.origin + api + (asked.edit ? "/images/edits" : "/images/generations"))];
  if (asked.keyed) lines.push("-H \"Authorization: Bearer $" + KEY_VARIABLE + "\"");
  if (asked.edit) {
    for (const [name, value] of formFields(asked.body)) lines.push("--form-string " + shell(name + "=" + value));
    for (const file of asked.images) lines.push(shellFile(imagePart(asked.images.length), file));
    if (asked.mask) lines.push(shellFile("mask", asked.mask));
  } else {
    lines.push("-H 'Content-Type: application/json'", "-d " + shell(JSON.stringify(asked.body, null, 2)));
  }
  return lines.join(" \\\n  ");
}

function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return "[" + value.map(literal).join(", ") + "]";
  if (typeof value === "object") return "{" + Object.entries(value).map(([name, item]) => literal(name) + ": " + literal(item)).join(", ") + "}";
  return JSON.stringify(value);
}

function python(asked) {
  const method = asked.edit ? "edit" : "generate", known = ARGUMENTS[method], open = (file) => "open(" + literal(file.name) + ", \"rb\")";
  const lines = [], more = {};
  if (asked.images.length) lines.push("image=" + (asked.images.length > 1 ? "[" + asked.images.map(open).join(", ") + "]" : open(asked.images[0])));
  if (asked.mask) lines.push("mask=" + open(asked.mask));
  for (const [name, value] of Object.entries(asked.body)) {
    if (value === null && asked.edit) continue;
    if (known.includes(name) && value !== null) lines.push(name + "=" + literal(value));
    else more[name] = asked.edit ? formValue(value) : value;
  }
  if (Object.keys(more).length) lines.push("extra_body=" + literal(more));
  const shown = asked.body.stream === true ? ["for event in result:", "    print(event.type)"] : ["for image in result.data:", "    print(image.url or len(image.b64_json))"];
  return [
    ...(asked.keyed ? ["import os", ""] : []), "from openai import OpenAI", "",
    "client = OpenAI(", "    base_url=" + literal(location.origin + api) + ",",
    "    api_key=" + (asked.keyed ? "os.environ[\"" + KEY_VARIABLE + "\"]" : "\"not-needed\"") + ",", ")",
    "result = client.images." + method + "(", ...lines.map((line) => "    " + line + ","), ")", ...shown, "",
  ].join("\n");
}

function codeBlock(title) {
  const written = el("pre", { tabindex: "0", role: "region", "aria-label": "Code" }), note = el("span", { class: "hint", role: "status" });
  const languages = [["curl", curl], ["Python", python]];
  let asked = null, chosen = curl;
  const show = () => { written.textContent = asked ? chosen(asked) : ""; note.textContent = ""; };
  const buttons = languages.map(([name, write]) => el("button", { type: "button", "aria-pressed": String(write === chosen), onclick: (event) => {
    chosen = write;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === event.currentTarget));
    show();
  } }, name));
  const copy = el("button", { type: "button", onclick: async () => { note.textContent = await copied(written) ? "Copied" : "Press Ctrl+C to copy"; } }, "Copy");
  const block = el("details", { class: "code" }, el("summary", {}, title), el("div", { class: "languages" }, buttons, copy, note), written);
  block.update = (request) => { asked = request; show(); };
  return block;
}

async function copied(place) {
  try { await navigator.clipboard.writeText(place.textContent); return true; } catch { /* Only pages of https and of this machine may. */ }
  getSelection().selectAllChildren(place);
  return document.execCommand("copy");
}
