async function loadModels() {
  const response = await fetch(api + "/models", { headers: headers() });
  if (!response.ok) return;
  const listed = (await response.json()).data;
  state.models = new Map(listed.map((model) => [model.id, model]));
  $("models").replaceChildren(...listed.map((model) => el("option", { value: model.id }, model.upstreams.join(", "))));
  if (!$("model").value && listed.length) {
    const wanted = listed.find((model) => model.contract && model.contract.size);
    $("model").value = (wanted || listed[0]).id;
  }
  describe();
  showCode();
  explain();
}

async function loadSpending() {
  if (!$("spending").open) return;
  const response = await fetch(base + "/console/usage", { headers: headers() });
  if (!response.ok) return;
  const { currency, accounts } = await response.json();
  const money = (amount) => amount.toFixed(4).replace(/0{1,2}$/, "") + " " + currency;
  $("spending-rows").replaceChildren(...accounts.map((row) => el("tr", {},
    el("th", {}, row.account), el("td", {}, money(row.spent)), el("td", {}, money(row.held)), el("td", {}, money(row.reserved)),
    el("td", {}, String(row.requests)), el("td", {}, String(row.images)))));
}

function describe() {
  const name = $("model").value.trim();
  const model = state.models.get(name);
  const contract = (model && model.contract) || {};
  const size = contract.size || {};
  const words = (value) => Array.isArray(value) ? value : Object.keys(value || {});
  const sizes = [...words(size.values), ...words(size.ratios), ...words(size.tiers)];
  const qualities = ((contract.parameters || {}).quality || {}).values || [];
  $("sizes").replaceChildren(...sizes.map((value) => el("option", { value })));
  $("qualities").replaceChildren(...qualities.map((value) => el("option", { value })));
  const hints = [];
  if (model) hints.push(model.upstreams.join(", then "));
  if (sizes.length) hints.push("sizes " + sizes.slice(0, 8).join(", ") + (sizes.length > 8 ? " …" : ""));
  else if (size.rule === "flexible") hints.push("any size in multiples of " + (size.multiple || 16));
  $("model-hint").textContent = hints.join(" · ");
}
