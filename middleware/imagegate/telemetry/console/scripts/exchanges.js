// Exchanges

const OUTCOMES = {
  ok: ["good", "ok"], invalid: ["bad", "refused"], denied: ["bad", "no access"], overloaded: ["bad", "overloaded"], moderated: ["bad", "moderated"],
  rejected: ["bad", "provider's error"], not_sent: ["bad", "not sent"], uncertain: ["bad", "uncertain"], storage_failed: ["bad", "not stored"],
  client_left: ["", "client left"], internal: ["bad", "gateway failed"],
};

function outcome(entry) {
  const [kind, word] = OUTCOMES[entry.outcome] || ["", entry.outcome];
  return el("span", { class: "chip " + kind }, word === "ok" ? String(entry.status) : entry.status + " " + word);
}

async function picture(entry, index) {
  const response = await fetch(base + "/console/pictures/" + entry.number + "/" + index, { headers: headers() });
  if (response.status !== 200) return null;  // 204: not kept
  return URL.createObjectURL(await response.blob());
}

function show(entry) {
  const id = "x" + entry.instance + entry.number;
  const thumb = el("span", { class: "thumb", "aria-hidden": "true" }, entry.pictures.length ? "" : entry.status < 400 ? "·" : "×");
  const changed = entry.changes.length ? el("span", { class: "chip changed" }, some(entry.changes.length, "change")) : "";
  const head = el("button", { type: "button", class: "head", "aria-expanded": "false", "aria-controls": id },
    thumb,
    el("span", {},
      el("span", { class: "line1" }, el("b", {}, entry.model || "no model"), entry.upstream ? el("span", { class: "muted" }, "→ " + entry.upstream) : "", changed),
      el("span", { class: "prompt1" }, entry.prompt || entry.operation)),
    el("span", { class: "right" }, outcome(entry), el("span", { class: "muted" }, seconds(entry.seconds.total) + ", " + new Date(entry.ended * 1000).toLocaleTimeString())));
  const body = el("div", { class: "body", hidden: true, id });
  const item = el("li", { class: "panel", "data-request": entry.request_id }, head, body);
  head.addEventListener("click", () => toggle(entry, head, body));
  entry.urls = entry.pictures.map(() => null);
  if (entry.pictures.length) loadPicture(entry, 0).then((url) => {
    if (url) thumb.replaceWith(el("img", { class: "thumb", alt: "", src: url }));
  });
  return item;
}

function loadPicture(entry, index) {
  entry.urls[index] = entry.urls[index] || picture(entry, index).catch(() => null);
  return entry.urls[index];
}

function toggle(entry, head, body) {
  const open = head.getAttribute("aria-expanded") !== "true";
  head.setAttribute("aria-expanded", String(open));
  body.hidden = !open;
  if (open && !body.childElementCount) body.append(...details(entry));
}

function details(entry) {
  const first = entry.sent[0], parts = entry.sent.length;
  const sent = first ? first.body : {}, own = state.requests.get(entry.request_id);
  const code = own ? codeBlock("Code of this request") : "";
  if (own) code.update(own);
  const where = first ? el("div", { class: "where" }, el("span", { class: "chip" }, first.upstream), el("code", { class: "muted" }, "POST " + first.path), parts > 1 ? el("span", { class: "muted" }, some(parts, "request")) : "") : el("p", { class: "muted" }, "Nothing was sent.");
  const shown = el("div", { class: "pictures" });
  entry.pictures.forEach((item, index) => loadPicture(entry, index).then((url) => {
    const image = url ? el("img", { src: url, alt: "Picture " + (index + 1) + ": " + entry.prompt.slice(0, 120) }) : el("span", { class: "muted" }, item.base64 ? "Not kept: no page was open, or it was too large." : "Cannot be shown.");
    const safe = item.link && /^https?:/.test(item.link);
    shown.append(safe ? el("a", { href: item.link, target: "_blank", rel: "noreferrer noopener", title: "Open the picture" }, image) : image);
  }));
  const delivered = el("div", {},
    el("h3", {}, "Delivered"),
    entry.error ? el("p", { class: "note bad" }, (entry.error.code ? entry.error.code + ": " : "") + (entry.error.message || "")) : "",
    entry.pictures.length ? shown : "",
    facts(entry));
  return [
    entry.prompt ? el("p", { class: "prompt" }, entry.prompt) : "",
    el("div", { class: "flow" }, el("div", {}, el("h3", {}, "Asked → sent"), where, chips(entry.changes), rewrite(entry.asked, sent, entry.changes)), delivered),
    code,
    timing(entry),
  ].filter((part) => part !== "");
}

function facts(entry) {
  const rows = [];
  const add = (name, value) => { if (value) rows.push(el("dt", {}, name), el("dd", {}, value)); };
  if (entry.images.asked) add("Images", entry.images.delivered + " of " + entry.images.asked + (entry.form ? ", as " + entry.form : "") + (entry.sizes.length ? ", " + entry.sizes.join(", ") : ""));
  add("Cost", entry.cost);
  add("Tried", [entry.counts.attempts > 1 ? some(entry.counts.attempts, "POST") : "", entry.counts.retries ? some(entry.counts.retries, "retry").replace("retrys", "retries") : "", entry.counts.fallbacks ? some(entry.counts.fallbacks, "fallback") : "", entry.counts.polls ? some(entry.counts.polls, "poll") : ""].filter(Boolean).join(", "));
  add("Idempotency", entry.idempotent);
  if (!entry.contract) add("Contract", "none: sent as it was");
  add("Bytes", bytes(entry.bytes.in) + " in, " + bytes(entry.bytes.out) + " out");
  add("Key", entry.key);
  rows.push(el("dt", {}, "Request"), el("dd", { class: "mono id", title: entry.request_id }, entry.request_id));
  return el("dl", { class: "facts" }, rows);
}

function timing(entry) {
  const total = entry.seconds.total || 1;
  const segments = ["queue", "upstream", "delivery"].filter((name) => entry.seconds[name] >= 0.001);
  const bar = el("div", { class: "bar", role: "img", "aria-label": "Where the time went" }, segments.map((name) => {
    const part = el("i", { class: name });
    part.style.width = Math.min(100, 100 * entry.seconds[name] / total) + "%";
    return part;
  }));
  const legend = el("div", { class: "legend" }, segments.map((name) => el("span", {}, el("span", { class: "key " + name }), name + " " + seconds(entry.seconds[name]))),
    el("span", {}, "first byte " + seconds(entry.seconds.first_byte)), el("span", {}, "total " + seconds(entry.seconds.total)));
  return el("div", {}, bar, legend);
}

function running(list) {
  for (const old of document.querySelectorAll("[data-running]")) if (!list.some((item) => item.request_id === old.dataset.running)) old.remove();
  for (const item of list) {
    const elapsed = seconds(Math.max(0, state.now - item.began));
    const there = document.querySelector("[data-running=\"" + CSS.escape(item.request_id) + "\"]");
    if (there) { there.querySelector(".clock").textContent = elapsed; continue; }
    $("list").prepend(el("li", { class: "panel", "data-running": item.request_id },
      el("div", { class: "head" }, el("span", { class: "thumb" }, el("span", { class: "spin" })), el("span", { class: "line1" }, el("b", {}, item.model || item.operation), el("span", { class: "muted" }, "running")), el("span", { class: "right muted clock" }, elapsed))));
  }
}

// While somebody reads, what arrives above moves nothing.

function anchor() {
  const list = $("list"), inView = (node) => { const box = node.getBoundingClientRect(); return box.height > 0 && box.bottom > 0 && box.top < innerHeight; };
  const read = [list.contains(document.activeElement) ? document.activeElement : null, ...list.querySelectorAll("[aria-expanded=true], .body:not([hidden])")];
  const above = list.getBoundingClientRect().top < 0 ? [...list.children] : [];
  const node = [...read, ...above].find((found) => found !== null && inView(found));
  return node && { node, top: node.getBoundingClientRect().top };
}

function keepPlace(change) {
  const place = anchor();
  const arrived = change();
  if (arrived) arrived.scrollIntoView({ block: "nearest" });
  else if (place && place.node.isConnected) scrollBy(0, place.node.getBoundingClientRect().top - place.top);
}

function offer(id, value, word) {
  const select = $(id);
  if (!value || [...select.options].some((option) => option.value === value)) return;
  select.append(el("option", { value }, word));
  select.hidden = false;
}

function receive(answer) {
  let arrived = null;
  if (answer.instance !== state.instance) { state.instance = answer.instance; state.after = 0; }
  state.now = answer.now;
  $("spending").hidden = !answer.usage;
  if (answer.usage && answer.exchanges.length) loadSpending();
  $("whose").textContent = answer.everybody ? "" : "of the key " + answer.key;
  $("key-button").textContent = answer.key ? "Key: " + answer.key : "Key";
  for (const entry of answer.exchanges) {
    state.after = Math.max(state.after, entry.number);
    entry.instance = answer.instance;
    const id = answer.instance + entry.number;
    if (state.shown.has(id)) continue;
    const item = show(entry);
    state.shown.set(id, { item, entry });
    offer("only-outcome", entry.outcome, (OUTCOMES[entry.outcome] || ["", entry.outcome])[1]);
    offer("only-upstream", entry.upstream, entry.upstream);
    offer("only-key", entry.key, entry.key);
    item.hidden = !wanted(entry);
    $("list").prepend(item);
    const mine = state.open && entry.request_id === state.open;
    if (mine) { state.open = null; item.querySelector(".head").click(); arrived = $("list").contains(document.activeElement) ? null : item; }
  }
  for (const [id, { item, entry }] of state.shown) {
    if (state.shown.size <= MOST) break;
    if (item.contains(document.activeElement) || item.querySelector("[aria-expanded=true]")) continue;  // it is being read
    for (const url of entry.urls) Promise.resolve(url).then((made) => made && URL.revokeObjectURL(made));
    item.remove();
    state.shown.delete(id);
  }
  running(answer.running);
  const empty = document.querySelector(".empty");
  if ($("list").children.length === 0) $("list").append(el("li", { class: "panel empty" }, el("p", {}, "Nothing yet. Send something from the playground, or from any client:"),
    el("pre", {}, "curl " + location.origin + api + "/images/generations \\\n  -H 'Content-Type: application/json' \\\n  -d '{\"model\": \"…\", \"prompt\": \"A red bicycle\"}'")));
  else if (empty && $("list").children.length > 1) empty.remove();
  tellFilter();
  return arrived;
}

const FILTERS = ["only-outcome", "only-model", "only-upstream", "only-key"];

function wanted(entry) {
  const [outcome, model, upstream, key] = FILTERS.map((id) => $(id).value);
  const names = (entry.model + " " + entry.upstream + "/" + entry.upstream_model).toLowerCase();
  return (!outcome || entry.outcome === outcome) && (!upstream || entry.upstream === upstream) && (!key || entry.key === key) && names.includes(model.trim().toLowerCase());
}

function tellFilter() {
  const isOn = FILTERS.some((id) => $(id).value.trim()), all = [...state.shown.values()];
  const words = isOn ? all.filter(({ item }) => !item.hidden).length + " of " + all.length : "";
  if ($("filter-note").textContent !== words) $("filter-note").textContent = words;
  $("filter-clear").hidden = !isOn;
}

function filter() {
  for (const { item, entry } of state.shown.values()) item.hidden = !wanted(entry);
  tellFilter();
}

function clearFilter() {
  for (const id of FILTERS) $(id).value = "";
  filter();
  $("only-outcome").focus();
}
