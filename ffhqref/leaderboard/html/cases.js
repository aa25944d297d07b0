// The case browser: filters, a paged list, and a before/after viewer.
const PAGE = 24;
const caseState = { benchmark: "all", method: null, metric: null, status: "all", person: "all", min: "", max: "", text: "", sort: "worst",
  page: 0, found: [], selected: null, left: "LQ", right: null, split: 50 };

const allMethods = DATA.methods.filter((method) => method !== CEILING);
const allMetrics = Object.keys(DATA.metrics).filter((metric) => BENCHMARKS.some((b) => b.scored.includes(metric)));
caseState.method = allMethods.find((m) => !DATA.baselines.includes(m) && m !== "bicubic") ?? allMethods[0];
caseState.metric = BENCHMARKS[0]?.main ?? allMetrics[0];

const baseline = (b) => (b.methods.includes(DATA.lq) ? DATA.lq : null);
// How much better a value is than another, in the direction of the metric.
const gain = (value, other, metric) => (higher(metric) ? value - other : other - value);

function statusOf(b, i, method, metric) {
  return b.state(i, method, metric) ?? (Number.isNaN(b.value(i, method, metric)) ? "no value" : "ok");
}

function findCases() {
  const s = caseState, found = [];
  const min = s.min === "" ? -Infinity : Number(s.min), max = s.max === "" ? Infinity : Number(s.max);
  const bounded = s.min !== "" || s.max !== "", text = s.text.trim().toLowerCase();
  for (const b of BENCHMARKS) {
    if (s.benchmark !== "all" && b.name !== s.benchmark) continue;
    const column = b.column(s.method, s.metric), base = baseline(b) ? b.column(baseline(b), s.metric) : null;
    for (let i = 0; i < b.cases.length; i++) {
      const v = column[i];
      if (bounded && !(v >= min && v <= max)) continue;
      if (s.person !== "all" && String(b.people[i]) !== s.person) continue;
      if (text && !b.cases[i].toLowerCase().includes(text) && !b.targets[i].toLowerCase().includes(text)) continue;
      if (s.status !== "all" && statusOf(b, i, s.method, s.metric) !== s.status) continue;
      found.push({ b, i, v, g: base ? gain(v, base[i], s.metric) : NaN });
    }
  }
  const sign = higher(s.metric) ? 1 : -1, last = (x) => (Number.isNaN(x) ? 1 : 0);
  const by = {
    worst: (p, q) => last(q.v) - last(p.v) || sign * (p.v - q.v),
    best: (p, q) => last(p.v) - last(q.v) || sign * (q.v - p.v),
    improved: (p, q) => last(p.g) - last(q.g) || q.g - p.g,
    worsened: (p, q) => last(p.g) - last(q.g) || p.g - q.g,
    id: (p, q) => p.b.index - q.b.index || p.i - q.i,
  }[s.sort];
  s.found = found.sort((p, q) => by(p, q) || p.b.index - q.b.index || p.i - q.i);
  s.page = 0;
}

function thumb(number, text) {
  const data = picture(number);
  return data ? el("img", { src: data, alt: text, decoding: "async" }) : el("span", { class: "nopic", "aria-hidden": "true" }, "no image");
}

function drawList() {
  const s = caseState, pages = Math.max(1, Math.ceil(s.found.length / PAGE)), shown = s.found.slice(s.page * PAGE, (s.page + 1) * PAGE);
  const withPictures = s.found.reduce((n, { b, i }) => n + (b.pictures[i] ? 1 : 0), 0);
  $("#count").textContent = `${s.found.length} cases${withPictures < s.found.length ? `, ${withPictures} with images` : ""} · ${s.method} · ${s.metric} ${arrow(s.metric)}`;
  redraw($("#case-list"), shown.map((entry) => {
    const { b, i, v, g } = entry, chosen = s.selected && s.selected.b === b && s.selected.i === i;
    const extra = s.sort === "improved" || s.sort === "worsened" ? `${g > 0 ? "+" : ""}${show(g, s.metric)} on LQ` : statusOf(b, i, s.method, s.metric) === "ok" ? "" : statusOf(b, i, s.method, s.metric);
    return el("li", {}, el("button", { type: "button", "aria-pressed": String(Boolean(chosen)), onclick: () => select(b, i) },
      thumb(b.pictures[i]?.out[s.method] ?? b.pictures[i]?.lq, ""),
      el("span", { class: "who" }, el("b", {}, b.cases[i]), el("span", {}, [b.name, b.people[i] === null ? null : `person ${b.people[i]}`, extra].filter(Boolean).join(" · "))),
      el("span", { class: "val" }, show(v, s.metric))));
  }));
  const go = (page) => () => { s.page = page; drawList(); $("#case-list").scrollTop = 0; };
  redraw($("#pager"),
    el("button", { type: "button", disabled: s.page === 0, onclick: go(s.page - 1) }, "‹ Previous"),
    el("span", {}, `${s.page + 1} / ${pages}`),
    el("button", { type: "button", disabled: s.page >= pages - 1, onclick: go(s.page + 1) }, "Next ›"));
}

function refresh() {
  findCases();
  drawList();
}

function drawFilters() {
  const s = caseState, set = (key) => (value) => { s[key] = value; refresh(); writeAddress(); };
  const people = [...new Set(BENCHMARKS.flatMap((b) => b.people.filter((p) => p !== null)))].sort((a, b) => a - b);
  const typed = (label, key, type) => {
    const input = el("input", { type, value: s[key], step: "any", oninput: () => { s[key] = input.value; refresh(); writeAddress(); } });
    return field(label, input);
  };
  $("#filters").replaceChildren(
    choice("Benchmark", [["all", "all"], ...BENCHMARKS.map((b) => b.name)], s.benchmark, set("benchmark")),
    choice("Method", allMethods, s.method, (value) => { s.method = value; s.right = null; refresh(); drawViewer(); writeAddress(); }),
    choice("Metric", allMetrics, s.metric, set("metric")),
    choice("Order", [["worst", "worst first"], ["best", "best first"], ...(BENCHMARKS.some(baseline) ? [["improved", "most improved on LQ"], ["worsened", "least improved on LQ"]] : []), ["id", "by name"]], s.sort, set("sort")),
    choice("Status", [["all", "all"], ["ok", "ok"], ["failed", "failed"], ["left out", "left out"], ["no value", "no value"]], s.status, set("status")),
    choice("Person", [["all", "all"], ...people.map(String)], s.person, set("person")),
    typed("At least", "min", "number"), typed("At most", "max", "number"), typed("Case", "text", "search"));
  $("#filters").onsubmit = (event) => event.preventDefault();
}

function select(b, i, sides) {
  caseState.selected = { b, i };
  if (sides) [caseState.left, caseState.right] = sides;
  drawViewer();
  if (started) writeAddress();
  $$("#case-list button").forEach((button, place) => {
    const entry = caseState.found[caseState.page * PAGE + place];
    button.setAttribute("aria-pressed", String(Boolean(entry && entry.b === b && entry.i === i)));
  });
}

function sideNumber(b, i, name) {
  const album = b.pictures[i];
  if (!album) return undefined;
  return name === "LQ" ? album.lq : name === "ground truth" ? album.gt : album.out[name];
}

function slider(b, i, left, right) {
  const half = (name, side) => {
    const data = picture(sideNumber(b, i, name)), error = name === "LQ" || name === "ground truth" ? null : b.error(i, name);
    if (data) return el("img", { class: side, src: data, alt: `${name}, case ${b.cases[i]}`, draggable: "false" });
    const why = error ?? (b.pictures[i] ? "no image" : "the image of this case is not part of this page");
    return el("div", { class: `blank ${side}` }, `${name}: ${why}`);
  };
  const box = el("div", { class: "ba", style: `--p:${caseState.split}%` }, half(left, "left"), half(right, "right"),
    el("div", { class: "edge" }), el("span", { class: "tag l" }, left), el("span", { class: "tag r" }, right));
  const input = el("input", { type: "range", min: 0, max: 100, step: 1, value: caseState.split, id: "split",
    "aria-label": `Boundary between ${left} on the left and ${right} on the right, percent`,
    oninput: () => { caseState.split = Number(input.value); box.style.setProperty("--p", `${input.value}%`); } });
  box.append(input);
  return box;
}

function caseTable(b, i) {
  const metrics = b.scored, ranked = b.competing.filter((m) => !DATA.baselines.includes(m));
  const best = Object.fromEntries(metrics.map((metric) => {
    const values = ranked.map((m) => b.value(i, m, metric)).filter((v) => !Number.isNaN(v));
    return [metric, values.length ? (higher(metric) ? Math.max(...values) : Math.min(...values)) : NaN];
  }));
  const methods = DATA.methods.filter((m) => b.methods.includes(m));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Values of this case" }, el("table", { class: "plain" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Method"), metrics.map((metric) => el("th", { scope: "col", class: "num" }, `${metric} ${arrow(metric)}`)))),
    el("tbody", {}, methods.map((m) => el("tr", {}, el("th", { scope: "row" }, m), metrics.map((metric) => {
      const v = b.value(i, m, metric);
      return el("td", { class: "num" + (v === best[metric] && ranked.includes(m) ? " strong" : "") }, show(v, metric));
    }))))));
}

// The case before or after the selected one, in the order of the list.
function stepCase(by) {
  const s = caseState, place = s.found.findIndex((entry) => s.selected && entry.b === s.selected.b && entry.i === s.selected.i), next = s.found[place + by];
  if (!next) return;
  s.page = Math.floor((place + by) / PAGE);
  select(next.b, next.i);
  drawList();
}

function drawViewer() {
  const s = caseState, viewer = $("#viewer");
  if (!s.selected) { viewer.replaceChildren(note("Choose a case on the left.")); return; }
  const { b, i } = s.selected, album = b.pictures[i];
  const sides = ["LQ", "ground truth", ...DATA.methods.filter((m) => b.competing.includes(m))];
  const right = sides.includes(s.right) ? s.right : b.competing.includes(s.method) ? s.method : sides[2] ?? "ground truth";
  const left = sides.includes(s.left) ? s.left : "LQ";
  const place = s.found.findIndex((entry) => entry.b === b && entry.i === i);
  const known = (name, text) => { const v = b.about[name]?.[i]; return v === null || v === undefined ? null : text(v); };
  const about = [b.name, b.people[i] === null ? null : `person ${b.people[i]}`, known("age", (v) => `age ${v.toFixed(0)}`),
    known("age_gap", (v) => `references ${v.toFixed(0)} years away on average`),
    known("best_distance", (v) => `best reference at ${v.toFixed(2)}`), known("n_references", (v) => `${v} references`), known("strength", (v) => `strength ${v.toFixed(2)}`)].filter(Boolean).join(" · ");
  const set = (side) => (value) => { s[side] = value; drawViewer(); writeAddress(); };
  redraw(viewer,
    el("div", { class: "viewer-head" }, el("h3", {}, b.cases[i]),
      el("span", {}, el("button", { type: "button", disabled: place <= 0, onclick: () => stepCase(-1), "aria-label": "Previous case" }, "‹"), " ",
        el("button", { type: "button", disabled: place < 0 || place >= s.found.length - 1, onclick: () => stepCase(1), "aria-label": "Next case" }, "›")),
      el("p", { class: "meta" }, about)),
    el("div", { class: "sides" }, choice("Left", sides, left, set("left")), choice("Right", sides, right, set("right")),
      el("button", { type: "button", onclick: () => { [s.left, s.right] = [right, left]; drawViewer(); writeAddress(); }, "aria-label": "Swap left and right" }, "⇄"),
      album ? el("button", { type: "button", onclick: () => openLens() }, "Lens") : null),
    album ? note(`Images here are at most ${DATA.imageSize} pixels (references ${DATA.referenceSize}) and lossy; the lens shows which, and the files themselves where they lie beside this page.`) : null,
    el("div", { class: "stage" }, slider(b, i, left, right),
      el("div", { class: "refs" }, el("h4", {}, album?.refs.length ? "References" : "No reference"),
        el("div", {}, (album?.refs ?? []).map((number, r) => thumb(number, `Reference ${r + 1} of case ${b.cases[i]}`))))),
    album ? el("div", { class: "strip", role: "group", "aria-label": "All images; a click shows one on the right" }, sides.map((name) => {
      const data = picture(sideNumber(b, i, name));
      return el("button", { type: "button", "aria-pressed": String(name === right), title: b.error(i, name) ?? name, onclick: () => set("right")(name) },
        data ? el("img", { src: data, alt: "" }) : el("span", { class: "nopic" }, b.error(i, name) ? "failed" : "none"), el("span", {}, name));
    })) : null,
    caseTable(b, i));
}

let started = false;
drawFilters();
refresh();
if (caseState.found.length) {
  const withOutput = ({ b, i }) => picture(b.pictures[i]?.out[caseState.method]);
  const first = caseState.found.find(withOutput) ?? caseState.found.find(({ b, i }) => b.pictures[i]) ?? caseState.found[0];
  select(first.b, first.i);
} else drawViewer();
for (const [name, key, list] of [["bench", "benchmark", ["all", ...BENCHMARKS.map((b) => b.name)]], ["method", "method", allMethods], ["metric", "metric", allMetrics],
  ["by", "sort", ["worst", "best", "improved", "worsened", "id"]], ["status", "status", ["all", "ok", "failed", "left out", "no value"]], ["person", "person", null],
  ["min", "min", null], ["max", "max", null], ["text", "text", null], ["left", "left", null], ["right", "right", null]]) {
  keep(name, () => caseState[key], (value) => { if (!list || list.includes(value)) caseState[key] = value; });
}
keep("case", () => (caseState.selected ? `${caseState.selected.b.name}/${caseState.selected.b.cases[caseState.selected.i]}` : ""), (value) => {
  for (const b of BENCHMARKS) b.cases.forEach((name, i) => { if (`${b.name}/${name}` === value) caseState.selected = { b, i }; });
});
started = true;

// j and k, or the arrows, go through the cases, as on the review page; controls keep the keys that are theirs.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.target.matches("input, select, textarea, .scroll") || (lens.open && event.key.startsWith("Arrow"))) return;
  const by = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  stepCase(by);
  if (lens.open) drawLens();
});
