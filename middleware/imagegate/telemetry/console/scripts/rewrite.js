// What was asked beside what was sent; rows of fields that differ are marked and say why.

// Several images of a form are parts `image[]`, and one is `image`: for people both are the same member.
function members(body) {
  const found = {};
  const valueOf = (part) => part.filename === undefined ? part.value : fileText({ name: part.filename, size: part.size });
  for (const [name, value] of Array.isArray(body) ? body.map((part) => [part.name, valueOf(part)]) : Object.entries(body || {})) {
    const plain = name.replace(/\[\]$/, "");
    found[plain] = plain in found ? [found[plain], value].flat() : value;
  }
  return found;
}

function rewrite(askedBody, sentBody, changes) {
  const asked = members(askedBody), sent = members(sentBody);
  const reasons = new Map((changes || []).map((change) => [change.field, change]));
  const names = [...new Set([...Object.keys(asked), ...Object.keys(sent)])].filter((name) => name !== "prompt");
  const rows = names.map((name) => {
    const before = name in asked ? text(asked[name]) : "", after = name in sent ? text(sent[name]) : "";
    const reason = reasons.get(name);
    const address = name === "model" && before.endsWith("/" + after);  // says who is asked, and is no change
    const changed = reason !== undefined || (before !== after && !address);
    const why = reason ? reason.kind : !(name in asked) ? "added" : "";
    return el("tr", { class: changed ? "changed" : "" },
      el("td", { scope: "row" }, name, changed && why ? el("small", {}, why) : ""),
      el("td", { class: changed && before ? "was" : "" }, before),
      el("td", {}, after));
  });
  const head = el("tr", {}, ["Member", "Asked", "Sent"].map((name) => el("th", { scope: "col" }, name)));
  return el("table", { class: "rewrite" }, el("thead", {}, head), el("tbody", {}, rows));
}

function chips(changes) {
  if (!changes || !changes.length) return el("div", { class: "chips" }, el("span", { class: "chip good" }, "nothing changed"));
  return el("div", { class: "chips" }, changes.map((change) => {
    const from = change.from !== undefined && change.from !== null ? text(change.from) : "";
    const to = change.to !== undefined && change.to !== null ? text(change.to) : "";
    const words = change.kind === "dropped" ? "left out" : change.kind === "added" ? "+ " + to : change.kind === "renamed" ? "→ " + to : from + " → " + to;
    return el("span", { class: "chip changed", title: change.field + " " + change.kind }, el("b", {}, change.field), " " + words);
  }));
}
