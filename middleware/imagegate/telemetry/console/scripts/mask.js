// A mask drawn on the first reference: a PNG of its size that is transparent where the picture is to be changed, else opaque.

const MOST_MASK_PIXELS = 32 * 1024 * 1024;
const SAMPLE = 256;  // pixels of the longer edge on which the part that is marked is counted
const brush = { file: null, strokes: [], before: [], stroke: null, erase: false, down: false, x: 0, y: 0 };

async function openMask() {
  const file = references.images[0], picture = $("mask-picture");
  picture.src = previewOf(file);
  try { await picture.decode(); } catch { say(file.name + " cannot be shown here. Choose a mask that you have made elsewhere."); return; }
  $("mask-dialog").showModal();  // only what is shown has a size
  const [width, height] = storedSize(picture);
  if (width * height > MOST_MASK_PIXELS) { $("mask-dialog").close(); say(file.name + " is too large to draw on. Choose a mask that you have made elsewhere."); return; }
  if (brush.file !== file || !references.drawn) Object.assign(brush, { file, strokes: [] });
  Object.assign($("mask-canvas"), { width, height });
  $("mask-stage").style.aspectRatio = width + " / " + height;
  $("mask-stage").style.maxWidth = "calc(56vh * " + (width / height).toFixed(4) + ")";
  Object.assign(brush, { before: [...brush.strokes], down: false, x: width / 2, y: height / 2 });
  eraseMode(false);
  redraw();
  moveBrush(brush.x, brush.y);
}

// As the file has it and providers compare it with the mask: not turned by an EXIF orientation, as naturalWidth is.
function storedSize(picture) {
  Object.assign(picture.style, { inset: "auto", width: "auto", height: "auto" });
  const size = [picture.offsetWidth, picture.offsetHeight];
  Object.assign(picture.style, { inset: "", width: "", height: "" });
  return size;
}

const brushSize = () => Math.max(1, Math.max($("mask-canvas").width, $("mask-canvas").height) * Number($("mask-size").value) / 100);

function eraseMode(erase) {
  brush.erase = erase;
  $("mask-erase").setAttribute("aria-pressed", String(erase));
}

function begin(x, y) {
  brush.stroke = { erase: brush.erase, size: brushSize(), points: [[x, y]] };
  brush.strokes.push(brush.stroke);
  drawStroke(brush.stroke, 0);
}

function extend(x, y) {
  brush.stroke.points.push([x, y]);
  drawStroke(brush.stroke, brush.stroke.points.length - 2);
}

function drawStroke(stroke, from) {
  const canvas = $("mask-canvas"), context = canvas.getContext("2d");
  context.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
  context.fillStyle = context.strokeStyle = "#e5007d";
  if (stroke.everything) { context.fillRect(0, 0, canvas.width, canvas.height); return; }
  const points = stroke.points.slice(from);
  Object.assign(context, { lineWidth: stroke.size, lineCap: "round", lineJoin: "round" });
  context.beginPath();
  context.moveTo(...points[0]);
  for (const point of points.length > 1 ? points.slice(1) : points) context.lineTo(...point);
  context.stroke();
}

function redraw() {
  const canvas = $("mask-canvas");
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  for (const stroke of brush.strokes) drawStroke(stroke, 0);
  tellMarked("");
}

function markedPart() {
  const mask = $("mask-canvas"), scale = SAMPLE / Math.max(mask.width, mask.height);
  const small = el("canvas", { width: Math.max(1, Math.round(mask.width * scale)), height: Math.max(1, Math.round(mask.height * scale)) });
  const context = small.getContext("2d");
  context.drawImage(mask, 0, 0, small.width, small.height);
  const data = context.getImageData(0, 0, small.width, small.height).data;
  let marked = 0;
  for (let place = 3; place < data.length; place += 4) if (data[place] >= 128) marked += 1;
  return marked / (small.width * small.height);
}

function tellMarked(before) {
  const part = markedPart();
  const words = part === 0 ? "Nothing is marked." : part < 0.01 ? "Less than 1 % is marked." : Math.round(100 * part) + " % is marked.";
  $("mask-status").textContent = (before ? before + " " : "") + words;
}

function moveBrush(x, y) {
  const { width, height } = $("mask-canvas"), cursor = $("mask-brush");
  Object.assign(brush, { x: Math.min(width, Math.max(0, x)), y: Math.min(height, Math.max(0, y)) });
  Object.assign(cursor.style, { left: 100 * brush.x / width + "%", top: 100 * brush.y / height + "%", width: 100 * brushSize() / width + "%" });
  cursor.classList.toggle("down", brush.down || brush.stroke !== null);
}

function pointer(event) {
  const canvas = $("mask-canvas"), box = canvas.getBoundingClientRect();
  const x = (event.clientX - box.left) * canvas.width / box.width, y = (event.clientY - box.top) * canvas.height / box.height;
  if (event.type === "pointerdown" && event.button === 0) { canvas.setPointerCapture(event.pointerId); brush.down = false; begin(x, y); }
  else if (event.type === "pointermove" && brush.stroke && !brush.down) extend(x, y);
  else if (/^pointer(up|cancel)$/.test(event.type) && brush.stroke && !brush.down) { brush.stroke = null; tellMarked(""); }
  moveBrush(x, y);
}

function maskKeys(event) {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (way) {
    const step = event.shiftKey ? 1 : brushSize() / 2;
    moveBrush(brush.x + way[0] * step, brush.y + way[1] * step);
    if (brush.down) extend(brush.x, brush.y);
    const { width, height } = $("mask-canvas");
    tellMarked("Brush at " + Math.round(100 * brush.x / width) + " %, " + Math.round(100 * brush.y / height) + " %.");
  } else if (event.key === " " || event.key === "Enter") {
    brush.down = !brush.down;
    if (brush.down) begin(brush.x, brush.y); else brush.stroke = null;
    moveBrush(brush.x, brush.y);
    tellMarked(brush.down ? "Brush down." : "Brush up.");
  } else return;
  event.preventDefault();
}

function endStroke() { brush.down = false; brush.stroke = null; }

function undoStroke() { endStroke(); brush.strokes.pop(); redraw(); }

function clearStrokes() { endStroke(); brush.strokes = []; redraw(); }

function markEverything() { endStroke(); brush.strokes.push({ everything: true, erase: false }); redraw(); }

function cancelMask() { endStroke(); brush.strokes = brush.before; }

async function useMask(event) {
  event.preventDefault();
  endStroke();
  const file = brush.strokes.length && await drawnMask();
  if (!file) { $("mask-status").textContent = "Nothing is marked. Paint over what is to be changed."; $("mask-canvas").focus(); return; }
  brush.before = brush.strokes;
  $("mask-dialog").close();
  setMask(file, true);
  say("The mask is drawn.");
}

// Edges of strokes are smooth on the screen; in the mask each pixel is either to be changed or not.
async function drawnMask() {
  const { width, height } = $("mask-canvas");
  const canvas = el("canvas", { width, height }), context = canvas.getContext("2d");
  context.drawImage($("mask-canvas"), 0, 0);
  const pixels = context.getImageData(0, 0, width, height), data = pixels.data;
  let marked = 0;
  for (let place = 0; place < data.length; place += 4) {
    const change = data[place + 3] >= 128;
    data[place] = data[place + 1] = data[place + 2] = 0;
    data[place + 3] = change ? 0 : 255;
    marked += change;
  }
  if (!marked) return null;
  context.putImageData(pixels, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  return blob && new File([blob], "mask.png", { type: "image/png" });
}
