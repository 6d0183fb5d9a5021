// Playground

function request() {
  const body = { model: $("model").value.trim(), prompt: $("prompt").value };
  for (const name of ["size", "quality", "response_format"]) if ($(name).value.trim()) body[name] = $(name).value.trim();
  if ($("n").value) body.n = Number($("n").value);
  const more = $("more").value.trim();
  if (more) {
    const members = JSON.parse(more);
    if (typeof members !== "object" || members === null || Array.isArray(members)) throw new SyntaxError("Other members must be a JSON object.");
    Object.assign(body, members);
  }
  return body;
}

function mark(name) {
  const field = name.startsWith("mask") ? "mask" : /^(image|reference)/.test(name) ? "image" : "";
  for (const [id, what] of [["reference-files", "image"], ["mask-file", "mask"]]) {
    if (field === what) $(id).setAttribute("aria-invalid", "true"); else $(id).removeAttribute("aria-invalid");
  }
  for (const id of ["model", "prompt", "size", "quality", "n", "response_format", "more"]) {
    const wrong = name !== "" && (id === name || (id === "more" && name === "JSON"));
    if (wrong) $(id).setAttribute("aria-invalid", "true"); else $(id).removeAttribute("aria-invalid");
  }
}

// What is sent, and where: JSON, or a form where there are references.
function posted(body, prompt) {
  const path = api + (isEdit() ? "/images/edits" : "/images/generations");
  if (!isEdit()) return [path, { headers: headers({ "content-type": "application/json" }), body: JSON.stringify({ ...body, prompt }) }];
  const files = references.images.map((file) => [imagePart(references.images.length), file]);
  const [type, content] = multipart(formFields({ ...body, prompt }), references.mask ? [...files, ["mask", references.mask]] : files);
  return [path, { headers: headers({ "content-type": type }), body: content }];
}

// FormData would write each end of a line as CR LF, and a prompt would not be what it is as JSON.
function multipart(fields, files) {
  const boundary = "imagegate-" + [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const quoted = (name) => "\"" + name.replaceAll("\"", "%22").replaceAll("\r", "%0D").replaceAll("\n", "%0A") + "\"";
  const start = (name) => "--" + boundary + "\r\nContent-Disposition: form-data; name=" + quoted(name);
  const parts = [];
  for (const [name, value] of fields) parts.push(start(name) + "\r\n\r\n" + value + "\r\n");
  for (const [name, file] of files) parts.push(start(name) + "; filename=" + quoted(file.name) + "\r\nContent-Type: " + (file.type || "application/octet-stream") + "\r\n\r\n", file, "\r\n");
  return ["multipart/form-data; boundary=" + boundary, new Blob([...parts, "--" + boundary + "--\r\n"])];
}

function askedFor(body) {
  const images = references.images.map(fileText);
  return { ...body, ...(images.length ? { image: images.length > 1 ? images : images[0] } : {}), ...(references.mask ? { mask: fileText(references.mask) } : {}) };
}

let waiting = 0, asking = null;
const code = codeBlock("Code of this request");
function showCode() { try { code.update(snapshot(request())); } catch { code.update(null); } }

function changedInput() {
  showCode();
  clearTimeout(waiting);
  waiting = setTimeout(explain, isHeavy() ? 1000 : 200);
}

async function explain() {
  if (asking) asking.abort();
  const preview = $("preview");
  let body;
  try { body = request(); } catch (error) {
    mark("JSON");
    preview.replaceChildren(el("p", { class: "note bad" }, "The other members are no JSON object: " + error.message));
    return;
  }
  if (!body.model) { preview.replaceChildren(el("p", { class: "note muted" }, "Pick a model to see what it would be sent.")); return; }
  asking = new AbortController();
  try {
    const [path, content] = posted(body, body.prompt || "…");
    const response = await fetch(path, { method: "POST", signal: asking.signal, ...content, headers: { ...content.headers, "imagegate-explain": "?1" } });
    const answer = await response.json();
    if (!response.ok) { refused(answer.error, preview); return; }
    mark("");
    preview.replaceChildren(
      el("div", { class: "where" }, el("h3", {}, "Would go to"), el("span", { class: "chip" }, answer.upstream || ""), el("code", { class: "muted" }, answer.method + " " + answer.url)),
      chips(answer.changes), rewrite(askedFor(body), answer.body, answer.changes));
  } catch (error) {
    if (error.name !== "AbortError") preview.replaceChildren(el("p", { class: "note bad" }, "The gateway cannot be reached."));
  }
}

function refused(error, place) {
  mark(error && error.param ? error.param : "");
  place.replaceChildren(el("div", { class: "where" }, el("h3", {}, "Would be refused"), el("span", { class: "chip bad" }, (error && error.code) || "error")),
    el("p", { class: "note bad" }, (error && error.message) || "The gateway answered with an error."));
}

async function send(event) {
  event.preventDefault();
  if (state.sending) { state.sending.abort(); return; }
  let body;
  try { body = request(); } catch { explain(); return; }
  const note = $("note"), button = $("send"), began = performance.now();
  state.sending = new AbortController();
  button.textContent = "Stop";
  note.className = "note muted";
  const clock = setInterval(() => { note.textContent = seconds((performance.now() - began) / 1000); }, 100);
  try {
    const [path, content] = posted(body, body.prompt), asked = snapshot(body);
    const response = await fetch(path, { method: "POST", signal: state.sending.signal, ...content });
    state.open = response.headers.get("x-request-id");
    state.requests.set(state.open, asked);
    if (state.requests.size > MOST) state.requests.delete(state.requests.keys().next().value);
    const answer = await response.json();
    if (response.ok) { mark(""); note.textContent = "Done in " + seconds((performance.now() - began) / 1000); }
    else {
      note.className = "note bad";
      note.textContent = (answer.error && answer.error.message) || "Answered " + response.status;
      mark((answer.error && answer.error.param) || "");
    }
  } catch (error) {
    note.className = "note bad";
    note.textContent = error.name === "AbortError" ? "Stopped." : "The gateway cannot be reached, or its answer cannot be read.";
  } finally {
    clearInterval(clock);
    state.sending = null;
    button.textContent = "Send";
    poll();
  }
}
