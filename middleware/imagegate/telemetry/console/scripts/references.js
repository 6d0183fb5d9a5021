// Reference images and the mask of an edit: chosen, dropped, pasted or drawn. They are files in this page until they are sent.

const references = { images: [], mask: null, drawn: false, previews: new Map() };
const MANY_BYTES = 4 * 1024 * 1024;

const fileText = (file) => file.name + " (" + file.size.toLocaleString("en-US") + " bytes)";
const isEdit = () => references.images.length > 0 || references.mask !== null;
const attached = () => references.mask ? [...references.images, references.mask] : references.images;
const isHeavy = () => attached().reduce((sum, file) => sum + file.size, 0) > MANY_BYTES;

function say(words) { $("reference-note").textContent = words; }

// Pasted pictures all have the same name, and the code that is shown names files.
function withOwnName(file) {
  const taken = new Set(attached().map((other) => other.name));
  if (!taken.has(file.name)) return file;
  const dot = file.name.lastIndexOf("."), stem = dot > 0 ? file.name.slice(0, dot) : file.name, ending = dot > 0 ? file.name.slice(dot) : "";
  let number = 2;
  while (taken.has(stem + "-" + number + ending)) number += 1;
  return new File([file], stem + "-" + number + ending, { type: file.type });
}

function addReferences(files) {
  const images = [...files].filter((file) => file.type.startsWith("image/"));
  for (const file of images) references.images.push(withOwnName(file));
  say(images.length < files.length ? "Only images can be references." : some(images.length, "image") + " added.");
  if (images.length) referencesChanged();
}

function setMask(file, drawn) {
  references.mask = null;
  references.mask = file && withOwnName(file);
  references.drawn = Boolean(file) && drawn;
  referencesChanged();
}

function changeReferences(images, words) {
  const first = references.images[0];
  references.images = images;
  say(words);
  if (references.drawn && images[0] !== first) { references.mask = null; references.drawn = false; say(words + " The mask was drawn on another image and is removed."); }
  referencesChanged();
}

function previewOf(file) {
  if (!references.previews.has(file)) references.previews.set(file, URL.createObjectURL(file));
  return references.previews.get(file);
}

function referencesChanged() {
  const kept = new Set(attached());
  for (const [file, url] of references.previews) if (!kept.has(file)) { URL.revokeObjectURL(url); references.previews.delete(file); }
  $("reference-list").replaceChildren(...references.images.map(referenceItem), ...(references.mask ? [maskItem(references.mask)] : []));
  $("mask-draw").disabled = !references.images.length;
  $("mask-draw").textContent = references.drawn ? "Change the mask" : "Draw a mask";
  changedInput();
}

function fileItem(file, kind, ...buttons) {
  return el("li", {}, el("img", { src: previewOf(file), alt: "" }),
    el("span", { class: "file" }, el("span", { class: "name" }, file.name), el("span", { class: "hint" }, kind + bytes(file.size))), ...buttons);
}

function referenceItem(file, place) {
  const rest = () => references.images.filter((other) => other !== file);
  const first = () => { changeReferences([file, ...rest()], file.name + " is the first image now."); focusIn(0); };
  const remove = () => { changeReferences(rest(), file.name + " is removed."); focusIn(place); };
  return fileItem(file, place === 0 && references.images.length > 1 ? "first, " : "",
    place > 0 ? el("button", { type: "button", onclick: first, "aria-label": "Make " + file.name + " the first image" }, "First") : "",
    el("button", { type: "button", class: "remove", onclick: remove, "aria-label": "Remove " + file.name }, "Remove"));
}

function maskItem(file) {
  const remove = () => { setMask(null, false); say("The mask is removed."); $("mask-draw").disabled ? $("reference-files").focus() : $("mask-draw").focus(); };
  return fileItem(file, references.drawn ? "mask, drawn, " : "mask, ",
    references.drawn ? el("a", { href: previewOf(file), download: file.name }, "Save") : "",
    el("button", { type: "button", class: "remove", onclick: remove, "aria-label": "Remove the mask" }, "Remove"));
}

// The list is made anew when it changes: the focus goes to what has taken the place of the button that was pressed.
function focusIn(place) {
  const buttons = document.querySelectorAll("#reference-list .remove");
  (buttons[Math.min(place, buttons.length - 1)] || $("reference-files")).focus();
}

function pasted(event) {
  const data = event.clipboardData;
  if (openDialog() || !data || !data.files.length || data.types.includes("text/plain")) return;
  event.preventDefault();
  addReferences(data.files);
}

function dragged(event) {
  if (openDialog() || !event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
  $("references").classList.toggle("over", event.type === "dragover");
  if (event.type === "drop") addReferences(event.dataTransfer.files);
}
