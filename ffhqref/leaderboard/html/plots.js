// Plots: Vega-Lite specifications made in Python (ffhqref.leaderboard.plots) are filled with data here.
const COLOURS = { ink: "var(--ink)", muted: "var(--muted)", line: "var(--line)", hair: "var(--hair)" };

function fill(template, values) {
  if (Array.isArray(template)) return template.map((item) => fill(item, values));
  if (template && typeof template === "object") return Object.fromEntries(Object.entries(template).map(([key, item]) => [key, fill(item, values)]));
  return typeof template === "string" && template[0] === "@" && template.slice(1) in values ? values[template.slice(1)] : template;
}

// On a telephone plots are drawn small rather than scaled down, so that text keeps its size.
const sizeName = (node) => ((node.clientWidth || innerWidth) < 480 ? "narrow" : "wide");

// Draw a plot into a node. Drawing takes a moment: of two calls the later one counts.
async function draw(node, name, title, datasets, values) {
  const call = (node.plotCall = (node.plotCall ?? 0) + 1);
  if (!DATA.plots) { node.replaceChildren(note(DATA.plotsRemedy)); return; }
  const [width, height] = DATA.plotSizes[sizeName(node)], holder = el("div", { class: "plot" });
  const spec = fill(DATA.plots[name], { ...COLOURS, width, height, description: title, datasets, ...values });
  // `ast`: expressions are interpreted, never compiled, so that the page needs no unsafe-eval.
  const made = await vegaEmbed(holder, spec, { actions: false, renderer: "svg", ast: true, defaultStyle: false, tooltip: { disableDefaultStyle: true } });
  if (call !== node.plotCall) { made.finalize(); return; }
  node.plotted?.finalize();
  node.plotted = made;
  const root = holder.querySelector("svg");
  root.setAttribute("role", "img");
  root.setAttribute("aria-label", title);
  node.replaceChildren(holder);
}

function empty(node, text) {
  node.plotCall = (node.plotCall ?? 0) + 1;
  node.replaceChildren(note(text));
}

const short = (v) => (v === 0 ? "0" : Math.abs(v) >= 1e4 || Math.abs(v) < 1e-3 ? v.toExponential(0) : String(+v.toPrecision(3))).replace("-", "−");
const note = (text) => el("p", { class: "meta" }, text);
const featureName = (name) => DATA.features[name] ?? name;
const plotState = { benchmark: 0, x: null, y: null, feature: null };
const emphasised = new Set();
const muted = (method) => emphasised.size > 0 && !emphasised.has(method);

function extent(values, room) {
  const known = values.filter(Number.isFinite);
  if (!known.length) return [0, 1];
  let low = known[0], high = known[0];
  for (const v of known) { if (v < low) low = v; if (v > high) high = v; }
  const pad = (high - low || Math.abs(high) || 1) * room;
  return [low - pad, high + pad];
}

const look = (method, ranked = true) => ({ method, colour: colour(method), fill: ranked ? colour(method) : "var(--surface)",
  opacity: muted(method) ? 0.22 : 1, whisker: muted(method) ? 0.12 : 0.45, box: muted(method) ? 0.06 : 0.25 });
const titleOf = (metric) => `${metric} ${arrow(metric)}`;
const limits = (axis, metric, range) => ({ [`${axis}low`]: range[0], [`${axis}high`]: range[1], [`${axis}title`]: titleOf(metric), [`${axis}reverse`]: String(!higher(metric)) });

function drawScatter(node, b, mx, my) {
  const { front, ...labels } = b.plots.pairs[mx][my], places = labels[sizeName(node)];
  const points = b.competing.map((m) => [m, b.cell(m, mx), b.cell(m, my)]).filter(([, p, q]) => p && q).map(([m, p, q]) => ({
    ...look(m, Boolean(p.rank && q.rank)), x: p.mean, xl: p.low, xh: p.high, y: q.mean, yl: q.low, yh: q.high,
    lx: places[m]?.[0] ?? null, ly: places[m]?.[1] ?? null, front: front.includes(m) ? front.indexOf(m) : null,
    told: `${m}: ${titleOf(mx)} ${show(p.mean, mx)}, ${titleOf(my)} ${show(q.mean, my)}` }));
  if (!points.length) { empty(node, "Nothing to show for this choice."); return; }
  draw(node, "scatter", `${titleOf(my)} against ${titleOf(mx)}, ${points.length} methods`, { points },
    { ...limits("x", mx, b.plots.ranges[mx]), ...limits("y", my, b.plots.ranges[my]) });
}

function drawCost(node, b, cost, my, none) {
  const { front, ...labels } = b.plots.pairs[cost][my], places = labels[sizeName(node)];
  const points = b.competing.map((m) => [m, b.board[m]?.[cost], b.cell(m, my)]).filter(([, v, c]) => v > 0 && c).map(([m, v, c]) => ({
    ...look(m, Boolean(c.rank)), x: v, xl: null, xh: null, y: c.mean, yl: c.low, yh: c.high, lx: places[m]?.[0] ?? null, ly: places[m]?.[1] ?? null,
    front: front.includes(m) ? front.indexOf(m) : null, told: `${m}: ${short(v)} ${DATA.costs[cost]}, ${titleOf(my)} ${show(c.mean, my)}` }));
  if (!points.length) { empty(node, none); return; }
  draw(node, "cost", `${titleOf(my)} against ${DATA.costs[cost]}`, { points },
    { xlow: b.plots.ranges[cost][0], xhigh: b.plots.ranges[cost][1], xtitle: DATA.costs[cost], xreverse: "false", ...limits("y", my, b.plots.ranges[my]) });
}

function drawGroups(node, b, feature, metric) {
  if (!feature) { empty(node, "No sub-groups in this benchmark."); return; }
  const M = b.methods.length, K = b.metrics.length, k = b.metrics.indexOf(metric), values = b.array("group " + feature.feature, () => feature.values);
  const few = b.competing.filter((m) => !muted(m)).length <= 3, groups = [];
  for (const m of b.competing) feature.groups.forEach((name, order) => {
    const at = ((order * M + b.methods.indexOf(m)) * K + k) * 3, [mean, low, high] = values.slice(at, at + 3), whisker = few && !muted(m) && Number.isFinite(low);
    if (Number.isFinite(mean)) groups.push({ ...look(m), group: `${name}|n ${feature.n[order]}`, order, mean, low: whisker ? low : null, high: whisker ? high : null,
      dashed: DATA.methods.indexOf(m) >= 10, told: `${m}, ${name}: ${show(mean, metric)} [${show(low, metric)}, ${show(high, metric)}]` });
  });
  if (!groups.length) { empty(node, "No values for this choice."); return; }
  const [ylow, yhigh] = extent(groups.flatMap((g) => [g.mean, g.low ?? NaN, g.high ?? NaN]), 0.06);
  draw(node, "groups", `${metric} by ${featureName(feature.feature)}`, { groups }, { xtitle: featureName(feature.feature), ytitle: titleOf(metric), ylow, yhigh });
}

const quantile = (sorted, q) => {
  const at = (sorted.length - 1) * q, low = Math.floor(at);
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (at - low);
};

function personMeans(b, method, metric) {
  const sums = new Map();
  b.column(method, metric).forEach((v, i) => {
    if (!Number.isFinite(v)) return;
    const entry = sums.get(b.groups[i]) ?? [0, 0];
    entry[0] += v; entry[1] += 1; sums.set(b.groups[i], entry);
  });
  return [...sums.values()].map(([sum, count]) => sum / count).sort((p, q) => p - q);
}

function drawPeople(node, b, metric) {
  const rows = b.competing.map((m) => [m, personMeans(b, m, metric)]).filter(([, means]) => means.length);
  if (!rows.length) { empty(node, "No values for this choice."); return; }
  rows.sort((p, q) => (higher(metric) ? -1 : 1) * (quantile(p[1], 0.5) - quantile(q[1], 0.5)));
  const boxes = [], dots = [];
  rows.forEach(([m, means], order) => {
    const [q1, q2, q3] = [0.25, 0.5, 0.75].map((q) => quantile(means, q)), every = Math.ceil(means.length / 150);
    boxes.push({ ...look(m), order, q1, q2, q3, told: `${m}: median ${show(q2, metric)}, middle half ${show(q1, metric)} to ${show(q3, metric)}, ${means.length} people` });
    means.forEach((value, i) => { if (i % every === 0) dots.push({ ...look(m), order, value, jitter: (((i * 7) % 9) - 4) / 6 }); });
  });
  const [xlow, xhigh] = extent(rows.flatMap(([, means]) => [means[0], means[means.length - 1]]), 0.03);
  draw(node, "people", `Spread of ${metric} over people`, { boxes, dots }, { xtitle: titleOf(metric), xlow, xhigh });
}

// Differences of two methods case by case. Bins start at zero, so that no bar mixes gains and losses.
function drawHistogram(node, values, metric) {
  const [low, high] = extent(values, 0.02), count = Math.min(31, Math.max(9, Math.round(Math.sqrt(values.length)))), width = (high - low) / count;
  const first = Math.floor(low / width), counts = new Array(Math.ceil(high / width) - first + 1).fill(0);
  values.forEach((v) => { counts[Math.floor(v / width) - first] += 1; });
  const bars = counts.map((n, place) => [(first + place) * width, n]).filter(([, n]) => n).map(([from, n]) => ({ from, to: from + width, base: 0, count: n,
    colour: (higher(metric) ? from >= 0 : from < 0) ? "var(--s0)" : "var(--s1)", told: `${n} cases between ${short(from)} and ${short(from + width)}` }));
  draw(node, "histogram", `Differences in ${metric} over ${values.length} cases`, { bars, zero: [{ at: 0 }] },
    { xtitle: `difference in ${metric}, first minus second`, height: 180 });
}

function drawPlots() {
  const b = BENCHMARKS[plotState.benchmark];
  if (!b) return;
  const metrics = b.scored;
  const which = choice("Benchmark", BENCHMARKS.map((x, i) => [i, x.name]), plotState.benchmark, (v) => { plotState.benchmark = Number(v); drawPlots(); writeAddress(); });
  if (!metrics.length) {
    redraw($("#plot-controls"), which);
    redraw($("#legend"));
    $$(".plots figure > div").forEach((place) => empty(place, "No metric has a value in this benchmark."));
    return;
  }
  const pick = (wanted, ...others) => [wanted, ...others].find((metric) => metrics.includes(metric)) ?? metrics[0];
  plotState.x = pick(plotState.x, b.roles.fidelity, b.roles.identity);
  plotState.y = pick(plotState.y, b.roles.perception, b.roles.identity, metrics.find((metric) => metric !== plotState.x));
  const features = b.subgroups, feature = features.find((f) => f.feature === plotState.feature) ?? features[0];
  const change = (key) => (value) => { plotState[key] = value; drawPlots(); writeAddress(); };
  redraw($("#plot-controls"), 
    which, choice("Fidelity", metrics, plotState.x, change("x")), choice("Perception", metrics, plotState.y, change("y")),
    features.length > 1 ? choice("Sub-group", features.map((f) => [f.feature, featureName(f.feature)]), feature.feature, change("feature")) : null);
  redraw($("#legend"), b.competing.slice().sort((p, q) => DATA.methods.indexOf(p) - DATA.methods.indexOf(q)).map((method) => el("button", {
    type: "button", "aria-pressed": String(!muted(method)), style: `--c:${colour(method)}`,
    onclick: () => { emphasised.has(method) ? emphasised.delete(method) : emphasised.add(method); drawPlots(); } }, method)));
  const { x, y } = plotState;
  if (x === y) empty($("#plot-scatter"), "Choose two different metrics.");
  else drawScatter($("#plot-scatter"), b, x, y);
  drawCost($("#plot-speed"), b, "seconds", x, "No times of one machine were recorded.");
  drawCost($("#plot-work"), b, "multiply_adds", x, "No multiply-adds are known of these methods.");
  if ($("#plot-groups")) {
    $("#groups-title").textContent = feature ? `By ${featureName(feature.feature)}` : "By sub-group";
    drawGroups($("#plot-groups"), b, feature, x);
  }
  drawPeople($("#plot-people"), b, x);
}
drawPlots();
const oneOf = (list, value, set) => { if (list.map(String).includes(value)) set(value); };
keep("plot", () => plotState.benchmark, (v) => oneOf(BENCHMARKS.map((b) => b.index), v, () => { plotState.benchmark = Number(v); }));
for (const [name, key] of [["x", "x"], ["y", "y"], ["group", "feature"]]) keep(name, () => plotState[key], (v) => { plotState[key] = v; });
