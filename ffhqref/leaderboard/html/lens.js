// The lens: any number of images of a case, zoomed and moved together.
const lens = $("#lens");
// Width of each image on the screen in pixels (0: fits its pane), and the point in the middle, as shares of the image.
const lensState = { width: 0, u: 0.5, v: 0.5, hidden: new Set(), full: false, panes: [] };

function lensImages() {
  const { b, i } = caseState.selected, album = b.pictures[i] ?? { refs: [], out: {}, files: {} };
  const found = [["LQ", album.lq, album.files.LQ], ["ground truth", album.gt, album.files["ground truth"]]];
  album.refs.forEach((number, r) => found.push([`reference ${r + 1}`, number, null]));
  DATA.methods.filter((m) => b.competing.includes(m)).forEach((m) => found.push([m, album.out[m], album.files[m]]));
  return found.filter(([, number]) => picture(number)).map(([name, number, file]) => ({ name, number, file }));
}

// Pixels of the largest image: at 1:1 each of them is one pixel of the screen.
const lensPixels = () => Math.max(1, ...lensState.panes.map(({ img }) => img.naturalWidth));
const paneSize = () => lensState.panes[0]?.pane.clientWidth || 1;
const lensWidth = () => lensState.width || paneSize();

function placeLens() {
  const s = lensState, size = paneSize(), width = lensWidth(), pixels = lensPixels();
  const half = Math.min(0.5, size / width / 2);
  s.u = Math.min(1 - half, Math.max(half, s.u));
  s.v = Math.min(1 - half, Math.max(half, s.v));
  for (const { img, told, source } of s.panes) {
    const left = Math.round(size / 2 - s.u * width), top = Math.round(size / 2 - s.v * width);
    img.style.width = img.style.height = `${width}px`;
    img.style.transform = `translate(${left}px, ${top}px)`;
    img.style.imageRendering = width > (img.naturalWidth || pixels) ? "pixelated" : "auto";
    told.textContent = `${img.naturalWidth} × ${img.naturalHeight} px, ${source()}`;
  }
  const shown = (width * devicePixelRatio) / pixels;
  $("#lens-zoom").textContent = Math.abs(shown - 1) < 0.005 ? "1:1" : `${Math.round(shown * 100)} %`;
  $("#lens-pixels").textContent = `100 % is one pixel of the largest image (${pixels} px) on one of the screen; smaller ones are enlarged.`;
}

// Zoom so that the point under (x, y) of a pane stays there.
function zoomLens(factor, x = paneSize() / 2, y = paneSize() / 2) {
  const s = lensState, size = paneSize(), before = lensWidth(), after = Math.min(16 * lensPixels(), Math.max(size, before * factor));
  s.u += (x - size / 2) * (1 / before - 1 / after);
  s.v += (y - size / 2) * (1 / before - 1 / after);
  s.width = after <= size ? 0 : after;
  placeLens();
}
function moveLens(dx, dy) {
  lensState.u -= dx / lensWidth();
  lensState.v -= dy / lensWidth();
  placeLens();
}
function exactLens() {
  const after = lensPixels() / devicePixelRatio;
  lensState.width = after;
  placeLens();
}

function lensPane({ name, number, file }) {
  const img = el("img", { alt: `${name}, case ${caseState.selected.b.cases[caseState.selected.i]}`, draggable: "false" });
  const told = el("small"), pane = el("div", { class: "pane" }, img), embedded = picture(number);
  let source = () => "reduced or lossy copy (WebP)";
  const own = { img, told, pane, source: () => source() };
  img.addEventListener("load", placeLens);
  img.addEventListener("error", () => { if (img.getAttribute("src") !== embedded) { source = () => "copy: the file is not beside this page"; img.src = embedded; } });
  if (lensState.full && file) { source = () => "the file itself"; img.src = file; } else {
    if (lensState.full) source = () => "copy (WebP): its file is not part of the workspace";
    img.src = embedded;
  }
  let from = null;
  pane.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; pane.setPointerCapture(event.pointerId); });
  pane.addEventListener("pointermove", (event) => { if (from) { moveLens(event.clientX - from[0], event.clientY - from[1]); from = [event.clientX, event.clientY]; } });
  for (const end of ["pointerup", "pointercancel"]) pane.addEventListener(end, () => { from = null; });
  pane.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = pane.getBoundingClientRect();
    zoomLens(Math.exp(-event.deltaY * 0.002), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  pane.addEventListener("dblclick", () => (lensState.width ? zoomLens(0) : exactLens()));
  return [own, el("figure", { class: "lens-tile" }, pane, el("figcaption", {}, el("b", {}, name), told))];
}

function drawLens() {
  const { b, i } = caseState.selected, images = lensImages(), shown = images.filter(({ name }) => !lensState.hidden.has(name));
  $("#lens-title").textContent = `${b.name} · ${b.cases[i]}`;
  redraw($("#lens-names"), images.map(({ name }) => el("button", { type: "button", "aria-pressed": String(!lensState.hidden.has(name)), onclick: () => {
    lensState.hidden.has(name) ? lensState.hidden.delete(name) : lensState.hidden.add(name);
    drawLens();
    writeAddress();
  } }, name)));
  const made = shown.map(lensPane);
  lensState.panes = made.map(([own]) => own);
  $("#lens-panes").replaceChildren(...made.map(([, tile]) => tile));
  $("#lens-full").setAttribute("aria-pressed", String(lensState.full));
  placeLens();
}

function openLens() {
  if (!caseState.selected || !caseState.selected.b.pictures[caseState.selected.i]) return;
  if (!lens.open) lens.showModal();
  drawLens();
  writeAddress();
}

for (const [id, act] of [["in", () => zoomLens(1.5)], ["out", () => zoomLens(1 / 1.5)], ["fit", () => zoomLens(0)], ["exact", exactLens],
  ["previous", () => { stepCase(-1); drawLens(); }], ["next", () => { stepCase(1); drawLens(); }], ["close", () => lens.close()],
  ["full", () => { lensState.full = !lensState.full; drawLens(); }]]) $(`#lens-${id}`).addEventListener("click", act);
lens.addEventListener("close", writeAddress);
lens.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const far = paneSize() / 8;
  const act = { "+": () => zoomLens(1.5), "=": () => zoomLens(1.5), "-": () => zoomLens(1 / 1.5), 0: () => zoomLens(0), 1: exactLens, ArrowLeft: () => moveLens(far, 0),
    ArrowRight: () => moveLens(-far, 0), ArrowUp: () => moveLens(0, far), ArrowDown: () => moveLens(0, -far) }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
keep("lens", () => (lens.open ? [...lensState.hidden].join("|") || "all" : ""), (value) => { lensState.hidden = new Set(value === "all" ? [] : value.split("|")); });
addEventListener("resize", () => { if (lens.open) placeLens(); });
