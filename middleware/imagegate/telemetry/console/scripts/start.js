function live(word, kind) {
  if ($("live").dataset.state === kind && $("live").textContent === word) return;
  $("live").dataset.state = kind;
  $("live").textContent = word;
}

let timer = 0, polling = false;
async function poll() {
  clearTimeout(timer);
  if (polling) { timer = setTimeout(poll, 100); return; }
  polling = true;
  try {
    const query = state.instance ? "?of=" + state.instance + "&after=" + state.after : "";
    const response = await fetch(base + "/console/exchanges" + query, { headers: headers() });
    if (response.status === 401) {
      live("A key is needed", "lost");
      if (!state.asked) { state.asked = true; askKey(); }
    } else if (!response.ok) live("Answered " + response.status, "lost");
    else { const answer = await response.json(); keepPlace(() => receive(answer)); live("Live", "live"); }
  } catch { live("The gateway cannot be reached", "lost"); }
  polling = false;
  if (!document.hidden) timer = setTimeout(poll, 1000);
}

function askKey() { $("key-input").value = sessionStorage.getItem("imagegate.key") || ""; wrongKey(""); $("key-dialog").showModal(); }

function wrongKey(why) {
  $("key-note").textContent = why;
  if (why) $("key-input").setAttribute("aria-invalid", "true"); else $("key-input").removeAttribute("aria-invalid");
}

async function useKey(event) {
  event.preventDefault();
  const key = $("key-input").value.trim();
  try {
    const response = await fetch(base + "/console/exchanges", { headers: key ? { authorization: "Bearer " + key } : {} });
    if (response.status === 401) { wrongKey(key ? "The gateway does not know this key." : "The gateway needs a key."); $("key-input").select(); return; }
  } catch { wrongKey("The gateway cannot be reached."); return; }
  if (key) sessionStorage.setItem("imagegate.key", key); else sessionStorage.removeItem("imagegate.key");
  $("key-dialog").close();
  for (const { item } of state.shown.values()) item.remove();
  state.shown.clear();
  state.instance = "";
  state.after = 0;
  loadModels();
  poll();
}

function browse(step) {
  const heads = [...document.querySelectorAll("#list > li:not([hidden]) .head[aria-expanded]")];
  const place = heads.indexOf(document.activeElement);
  const next = heads[place < 0 ? 0 : Math.min(heads.length - 1, Math.max(0, place + step))];
  if (next) next.focus();
}

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter" && !openDialog()) { event.preventDefault(); $("form").requestSubmit(); return; }
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape" && typing && !openDialog()) event.target.blur();
  if (typing || openDialog() || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); $("prompt").focus(); }
  if (event.key === "j") browse(1);
  if (event.key === "k") browse(-1);
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
$("form").addEventListener("submit", send);
$("form").addEventListener("input", changedInput);
$("model").addEventListener("input", describe);
$("key-button").addEventListener("click", askKey);
$("spending").addEventListener("toggle", loadSpending);
$("key-cancel").addEventListener("click", () => $("key-dialog").close());
$("key-form").addEventListener("submit", useKey);
$("key-input").addEventListener("input", () => wrongKey(""));
for (const id of FILTERS) for (const name of ["input", "change"]) $(id).addEventListener(name, filter);
$("filter-clear").addEventListener("click", clearFilter);
$("code").append(code);
$("reference-files").addEventListener("change", (event) => { addReferences(event.target.files); event.target.value = ""; });
$("mask-file").addEventListener("change", (event) => { setMask(event.target.files[0], false); event.target.value = ""; });
$("mask-draw").addEventListener("click", openMask);
document.addEventListener("paste", pasted);
for (const name of ["dragover", "dragleave", "drop"]) document.addEventListener(name, dragged);
for (const name of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) $("mask-canvas").addEventListener(name, pointer);
$("mask-canvas").addEventListener("keydown", maskKeys);
$("mask-size").addEventListener("input", () => moveBrush(brush.x, brush.y));
$("mask-erase").addEventListener("click", () => eraseMode(!brush.erase));
$("mask-undo").addEventListener("click", undoStroke);
$("mask-clear").addEventListener("click", clearStrokes);
$("mask-everything").addEventListener("click", markEverything);
$("mask-form").addEventListener("submit", useMask);
$("mask-cancel").addEventListener("click", () => $("mask-dialog").close());
$("mask-dialog").addEventListener("close", cancelMask);
loadModels().catch(() => {});
poll();
