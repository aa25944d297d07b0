// Plots as inline SVG. Colours are CSS variables, so that they follow the theme and the printer.
const HEIGHT = 360;
// Drawn at the width of the page, so that text keeps its size on a telephone.
let WIDTH = 560;

function ticks(low, high, count = 5) {
  if (!(high > low)) return [low];
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) found.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return found;
}
const short = (v) => (v === 0 ? "0" : Math.abs(v) >= 1e4 || Math.abs(v) < 1e-3 ? v.toExponential(0) : String(+v.toPrecision(3))).replace("-", "−");

function extent(values, pad = 0.06) {
  const known = values.filter(Number.isFinite);
  if (!known.length) return [0, 1];
  let low = known[0], high = known[0];
  for (const v of known) { if (v < low) low = v; if (v > high) high = v; }
  const room = (high - low || Math.abs(high) || 1) * pad;
  return [low - room, high + room];
}

function frame(title, left = 58, bottom = 46, height = HEIGHT) {
  const box = { x0: left, x1: WIDTH - 16, y0: height - bottom, y1: 14 };
  return { box, root: svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": title }) };
}
const linear = ([d0, d1], r0, r1) => (v) => r0 + ((v - d0) / (d1 - d0)) * (r1 - r0);

function axes(root, box, x, y, xTicks, yTicks, xName, yName) {
  for (const [v, text] of yTicks) root.append(
    svg("line", { class: "grid", x1: box.x0, x2: box.x1, y1: y(v), y2: y(v) }),
    svg("text", { x: box.x0 - 8, y: y(v) + 4, "text-anchor": "end" }, text));
  for (const [v, text] of xTicks) root.append(
    svg("line", { class: "grid", x1: x(v), x2: x(v), y1: box.y0, y2: box.y1 }),
    svg("text", { x: x(v), y: box.y0 + 17, "text-anchor": "middle" }, text));
  root.append(svg("line", { class: "axis", x1: box.x0, x2: box.x1, y1: box.y0, y2: box.y0 }));
  if (xName) root.append(svg("text", { class: "title", x: (box.x0 + box.x1) / 2, y: box.y0 + 38, "text-anchor": "middle" }, xName));
  if (yName) root.append(svg("text", { class: "title", transform: `translate(15 ${(box.y0 + box.y1) / 2}) rotate(-90)`, "text-anchor": "middle" }, yName));
}

// Points with interval crosses and labels that keep clear of each other.
function scatter(points, xName, yName, { log = false, front = null, flipX = false, flipY = false } = {}) {
  const { root, box } = frame(`${yName} against ${xName}, ${points.length} methods`);
  if (!points.length) return note("Nothing to show for this choice.");
  const at = (v) => (log ? Math.log10(v) : v);
  const xs = extent(points.flatMap((p) => [at(p.x), p.xl, p.xh].filter((v) => v !== undefined)), 0.1);
  const ys = extent(points.flatMap((p) => [p.y, p.yl, p.yh]), 0.1);
  // Axes of metrics that are better when low are reversed: better is always up, and to the right.
  const x = flipX ? linear(xs, box.x1, box.x0) : linear(xs, box.x0, box.x1);
  const y = flipY ? linear(ys, box.y1, box.y0) : linear(ys, box.y0, box.y1);
  let xTicks = ticks(...xs).map((v) => [v, short(v)]);
  if (log) {
    xTicks = [];
    for (let e = Math.floor(xs[0]); e <= xs[1]; e++) for (const m of xs[1] - xs[0] < 0.7 ? [1, 1.2, 1.5, 2, 3, 4, 6, 8] : xs[1] - xs[0] < 1.6 ? [1, 2, 5] : [1]) {
      const v = e + Math.log10(m);
      if (v >= xs[0] && v <= xs[1]) xTicks.push([v, short(m * 10 ** e) + " s"]);
    }
  }
  axes(root, box, x, y, xTicks, ticks(...ys).map((v) => [v, short(v)]), xName, yName);
  if (front && front.length > 1) root.append(svg("path", {
    d: "M" + front.map((p) => `${x(at(p.x))} ${y(p.y)}`).join("L"), fill: "none", stroke: "var(--muted)", "stroke-dasharray": "4 4" }));
  const taken = points.map((p) => ({ l: x(at(p.x)) - 6, r: x(at(p.x)) + 6, t: y(p.y) - 6, b: y(p.y) + 6 }));
  for (const p of points) {
    const px = x(at(p.x)), py = y(p.y), group = svg("g", { style: `color:${colour(p.method)}`, class: muted(p.method) ? "faint" : null });
    group.append(svg("title", {}, `${p.method}: ${xName} ${p.xText}, ${yName} ${p.yText}`));
    if (p.xl !== undefined && Number.isFinite(p.xl)) group.append(svg("line", { x1: x(p.xl), x2: x(p.xh), y1: py, y2: py, stroke: "currentColor", opacity: 0.45 }));
    if (Number.isFinite(p.yl)) group.append(svg("line", { x1: px, x2: px, y1: y(p.yl), y2: y(p.yh), stroke: "currentColor", opacity: 0.45 }));
    group.append(svg("circle", { cx: px, cy: py, r: 5, fill: p.ranked ? "currentColor" : "var(--surface)", stroke: "currentColor", "stroke-width": p.ranked ? 0 : 2 }));
    const width = p.method.length * 6.6;
    for (const [dx, dy, anchor] of [[9, -7, 0], [9, 15, 0], [-9, -7, 1], [-9, 15, 1], [0, -12, 0.5], [0, 22, 0.5], [9, 28, 0], [9, -20, 0]]) {
      const area = { l: px + dx - width * anchor, r: px + dx + width * (1 - anchor), t: py + dy - 10, b: py + dy + 3 };
      if (area.l < box.x0 || area.r > WIDTH || area.t < 0 || area.b > box.y0) continue;
      if (taken.some((other) => area.l < other.r && area.r > other.l && area.t < other.b && area.b > other.t)) continue;
      taken.push(area);
      group.append(svg("text", { class: "lab", x: px + dx, y: py + dy, "text-anchor": anchor === 0 ? "start" : anchor === 1 ? "end" : "middle" }, p.method));
      break;
    }
    root.append(group);
  }
  return root;
}

function groupLines(benchmark, feature, metric) {
  const M = benchmark.methods.length, K = benchmark.metrics.length, k = benchmark.metrics.indexOf(metric);
  const values = benchmark.array("group " + feature.feature, () => feature.values);
  const lines = benchmark.competing.map((method) => {
    const j = benchmark.methods.indexOf(method);
    return { method, points: feature.groups.map((_, g) => {
      const at = ((g * M + j) * K + k) * 3;
      return { g, mean: values[at], low: values[at + 1], high: values[at + 2] };
    }).filter((p) => Number.isFinite(p.mean)) };
  }).filter((line) => line.points.length);
  if (!lines.length) return note("No values for this choice.");
  const few = lines.filter((line) => !muted(line.method)).length <= 3;
  const { root, box } = frame(`${metric} by ${FEATURES[feature.feature] ?? feature.feature}`, 58, 62);
  const range = extent(lines.flatMap((l) => l.points.flatMap((p) => (few && !muted(l.method) ? [p.low, p.high] : [p.mean]))));
  const n = feature.groups.length, x = (g) => box.x0 + ((g + 0.5) / n) * (box.x1 - box.x0), y = linear(range, box.y0, box.y1);
  axes(root, box, x, y, feature.groups.map((name, g) => [g, name]), ticks(...range).map((v) => [v, short(v)]), null, `${metric} ${arrow(metric)}`);
  feature.n.forEach((count, g) => root.append(svg("text", { x: x(g), y: box.y0 + 32, "text-anchor": "middle", opacity: 0.8 }, `n ${count}`)));
  root.append(svg("text", { class: "title", x: (box.x0 + box.x1) / 2, y: box.y0 + 54, "text-anchor": "middle" }, FEATURES[feature.feature] ?? feature.feature));
  lines.forEach(({ method, points }, index) => {
    const group = svg("g", { style: `color:${colour(method)}`, class: muted(method) ? "faint" : null });
    const shift = few ? (index - lines.length / 2) * 1.5 : 0;
    group.append(svg("path", { d: "M" + points.map((p) => `${x(p.g) + shift} ${y(p.mean)}`).join("L"), fill: "none", stroke: "currentColor", "stroke-width": 2,
      "stroke-dasharray": DATA.methods.indexOf(method) >= 10 ? "5 3" : null }));
    for (const p of points) {
      if (few && !muted(method) && Number.isFinite(p.low)) group.append(svg("line", { x1: x(p.g) + shift, x2: x(p.g) + shift, y1: y(p.low), y2: y(p.high), stroke: "currentColor", opacity: 0.5 }));
      group.append(svg("circle", { cx: x(p.g) + shift, cy: y(p.mean), r: 3.5, fill: "currentColor" },
        svg("title", {}, `${method}, ${feature.groups[p.g]}: ${show(p.mean, metric)} (${show(p.low, metric)} to ${show(p.high, metric)})`)));
    }
    root.append(group);
  });
  return root;
}

const quantile = (sorted, q) => {
  const at = (sorted.length - 1) * q, low = Math.floor(at);
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (at - low);
};

function personMeans(benchmark, method, metric) {
  const sums = new Map();
  benchmark.column(method, metric).forEach((v, i) => {
    if (Number.isNaN(v)) return;
    const entry = sums.get(benchmark.groups[i]) ?? [0, 0];
    entry[0] += v; entry[1] += 1; sums.set(benchmark.groups[i], entry);
  });
  return [...sums.values()].map(([sum, count]) => sum / count).sort((a, b) => a - b);
}

function people(benchmark, metric) {
  const rows = benchmark.competing.map((method) => ({ method, means: personMeans(benchmark, method, metric) })).filter((r) => r.means.length);
  if (!rows.length) return note("No values for this choice.");
  const sign = higher(metric) ? -1 : 1;
  rows.sort((a, b) => sign * (quantile(a.means, 0.5) - quantile(b.means, 0.5)));
  const left = Math.min(190, 24 + 7 * Math.max(...rows.map((r) => r.method.length))), step = rows.length > 12 ? 20 : 30;
  const { root, box } = frame(`Spread of ${metric} over people`, left, 46, 60 + step * rows.length);
  const range = extent(rows.flatMap((r) => [r.means[0], r.means[r.means.length - 1]]), 0.03), x = linear(range, box.x0, box.x1);
  axes(root, box, x, () => 0, ticks(...range).map((v) => [v, short(v)]), [], `${metric} ${arrow(metric)}`);
  rows.forEach(({ method, means }, r) => {
    const y = box.y1 + step * (r + 0.5), group = svg("g", { style: `color:${colour(method)}`, class: muted(method) ? "faint" : null });
    const [q1, q2, q3] = [0.25, 0.5, 0.75].map((q) => quantile(means, q));
    group.append(svg("title", {}, `${method}: median ${show(q2, metric)}, middle half ${show(q1, metric)} to ${show(q3, metric)}, ${means.length} people`),
      svg("rect", { x: x(q1), width: Math.max(1, x(q3) - x(q1)), y: y - step * 0.32, height: step * 0.64, fill: "currentColor", opacity: 0.22, rx: 3 }),
      svg("line", { x1: x(q2), x2: x(q2), y1: y - step * 0.32, y2: y + step * 0.32, stroke: "currentColor", "stroke-width": 2.5 }));
    const every = Math.ceil(means.length / 150);
    means.forEach((v, i) => { if (i % every === 0) group.append(svg("circle", { cx: x(v), cy: y + ((i * 7) % 9 - 4) * step * 0.03, r: 1.9, fill: "currentColor", opacity: 0.6 })); });
    root.append(group, svg("text", { class: "lab", x: box.x0 - 8, y: y + 4, "text-anchor": "end" }, method.length > 24 ? method.slice(0, 23) + "…" : method));
  });
  return root;
}

const note = (text) => el("p", { class: "meta" }, text);
const FEATURES = { age_gap: "mean years between target and references", n_references: "number of references",
  best_distance: "distance of the best reference (1 − cosine)", strength: "strength of the degradation (0–1)", age: "age in years" };
const featureName = (name) => FEATURES[name] ?? (/(yaw|pitch|roll)$/i.test(name) ? `${name} (degrees, without sign)` : name);
const plotState = { benchmark: 0, x: null, y: null, feature: null };
const emphasised = new Set();
const muted = (method) => emphasised.size > 0 && !emphasised.has(method);

function front(points) {
  const better = (a, b) => a.gx >= b.gx && a.gy >= b.gy && (a.gx > b.gx || a.gy > b.gy);
  const whole = points.filter((p) => p.ranked);
  return whole.filter((p) => !whole.some((q) => better(q, p))).sort((a, b) => a.x - b.x);
}

function drawPlots() {
  const b = BENCHMARKS[plotState.benchmark];
  if (!b) return;
  WIDTH = Math.min(620, Math.max(320, $("#plot-scatter").clientWidth || 560));
  const metrics = b.scored;
  const which = choice("Benchmark", BENCHMARKS.map((x, i) => [i, x.name]), plotState.benchmark, (v) => { plotState.benchmark = Number(v); drawPlots(); });
  if (!metrics.length) {
    $("#plot-controls").replaceChildren(which);
    $("#legend").replaceChildren();
    $$(".plots figure > div").forEach((place) => place.replaceChildren(note("No metric has a value in this benchmark.")));
    return;
  }
  const pick = (wanted, ...others) => [wanted, ...others].find((metric) => metrics.includes(metric)) ?? metrics[0];
  plotState.x = pick(plotState.x, b.roles.fidelity, b.roles.identity);
  plotState.y = pick(plotState.y, b.roles.perception, b.roles.identity, metrics.find((metric) => metric !== plotState.x));
  const features = b.subgroups, feature = features.find((f) => f.feature === plotState.feature) ?? features[0];
  const change = (key) => (value) => { plotState[key] = value; drawPlots(); };
  $("#plot-controls").replaceChildren(
    which, choice("Fidelity", metrics, plotState.x, change("x")), choice("Perception", metrics, plotState.y, change("y")),
    features.length > 1 ? choice("Sub-group", features.map((f) => [f.feature, featureName(f.feature)]), feature.feature, change("feature")) : null);
  $("#legend").replaceChildren(...b.competing.slice().sort((p, q) => DATA.methods.indexOf(p) - DATA.methods.indexOf(q)).map((method) => el("button", {
    type: "button", "aria-pressed": String(!muted(method)), style: `--c:${colour(method)}`,
    onclick: () => { emphasised.has(method) ? emphasised.delete(method) : emphasised.add(method); drawPlots(); } }, method)));
  const { x: mx, y: my } = plotState;
  const point = (method, cx, cy) => ({ method, ranked: Boolean(cx.rank && cy.rank), x: cx.mean, xl: cx.low ?? undefined, xh: cx.high ?? undefined, y: cy.mean, yl: cy.low, yh: cy.high,
    gx: higher(mx) ? cx.mean : -cx.mean, gy: higher(my) ? cy.mean : -cy.mean, xText: show(cx.mean, mx), yText: show(cy.mean, my) });
  const points = b.competing.map((m) => [m, b.cell(m, mx), b.cell(m, my)]).filter(([, p, q]) => p && q).map(([m, p, q]) => point(m, p, q));
  $("#plot-scatter").replaceChildren(scatter(points, `${mx} ${arrow(mx)}`, `${my} ${arrow(my)}`, { front: front(points), flipX: !higher(mx), flipY: !higher(my) }));
  const timed = b.competing.map((m) => ({ m, s: b.board[m]?.seconds, c: b.cell(m, mx) })).filter(({ s, c }) => s > 0 && c)
    .map(({ m, s, c }) => ({ method: m, ranked: Boolean(c.rank), x: s, y: c.mean, yl: c.low, yh: c.high, xText: `${short(s)} s`, yText: show(c.mean, mx) }));
  $("#plot-speed").replaceChildren(timed.length ? scatter(timed, "seconds an image", `${mx} ${arrow(mx)}`, { log: true, flipY: !higher(mx) }) : note("No times were recorded."));
  if ($("#plot-groups")) {
    $("#groups-title").textContent = feature ? `By ${featureName(feature.feature)}` : "By sub-group";
    $("#plot-groups").replaceChildren(feature ? groupLines(b, feature, mx) : note("No sub-groups in this benchmark."));
  }
  $("#plot-people").replaceChildren(people(b, mx));
}
drawPlots();
