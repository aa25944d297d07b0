// Two methods side by side: what differs, how surely, and in which cases most.
const compareState = { benchmark: 0, a: null, b: null, metric: null };

function drawCompare() {
  const s = compareState, b = BENCHMARKS[s.benchmark], out = $("#compare-out");
  if (!b || b.competing.length < 2) { out.replaceChildren(note("There are no two methods to compare.")); return; }
  const methods = DATA.methods.filter((m) => b.competing.includes(m));
  s.a = methods.includes(s.a) ? s.a : methods[0];
  s.b = methods.includes(s.b) && s.b !== s.a ? s.b : methods.find((m) => m !== s.a);
  s.metric = b.scored.includes(s.metric) ? s.metric : b.main;
  const set = (key) => (value) => { s[key] = value; drawCompare(); writeAddress(); };
  redraw($("#compare-controls"),
    choice("Benchmark", BENCHMARKS.map((x, i) => [i, x.name]), s.benchmark, (v) => { s.benchmark = Number(v); drawCompare(); writeAddress(); }),
    choice("First", methods, s.a, set("a")), choice("Second", methods.filter((m) => m !== s.a), s.b, set("b")), choice("Cases by", b.scored, s.metric, set("metric")));
  const rows = b.scored.map((metric) => ({ metric, ...b.comparison(s.a, s.b, metric) })).filter((row) => Number.isFinite(row.difference));
  const verdict = ({ metric, difference, p }) => {
    if (new Set(b.groups).size < DATA.fewPeople) return el("span", { class: "verdict open" }, "too few people");
    if (!(p <= DATA.alpha)) return el("span", { class: "verdict open" }, "open");
    return el("span", { class: "verdict" }, `${(difference > 0) === higher(metric) ? s.a : s.b} better`);
  };
  const one = b.column(s.a, s.metric), two = b.column(s.b, s.metric), cases = [];
  one.forEach((v, i) => { if (!Number.isNaN(v - two[i])) cases.push({ i, d: v - two[i], g: gain(v, two[i], s.metric) }); });
  cases.sort((p, q) => q.g - p.g);
  const won = cases.filter((c) => c.g > 0), lost = cases.filter((c) => c.g < 0).reverse();
  const plot = el("div", { class: "plot-place" });
  const tiles = (list) => el("div", { class: "tiles" }, list.slice(0, 10).map(({ i, g }) => {
    const album = b.pictures[i];
    return el("button", { type: "button", onclick: () => { select(b, i, [s.b, s.a]); $("#viewer").scrollIntoView({ block: "start" }); $("#viewer").focus({ preventScroll: true }); } },
      album ? el("span", { class: "duo" }, thumb(album.out[s.b], s.b), thumb(album.out[s.a], s.a)) : null,
      el("span", {}, b.cases[i]), el("b", {}, `${show(Math.abs(g), s.metric)} better`));
  }), list.length ? null : note("None."));
  redraw(out,
    el("div", {}, el("h3", {}, `${s.a} minus ${s.b}`), el("div", { class: "scroll" }, el("table", { class: "plain" },
      el("thead", {}, el("tr", {}, ["Metric", "Difference", "95 % interval", "p, corrected", "Verdict"].map((text, n) => el("th", { scope: "col", class: n && n < 4 ? "num" : null }, text)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, `${row.metric} ${arrow(row.metric)}`), el("td", { class: "num" }, show(row.difference, row.metric)),
        el("td", { class: "num" }, `[${show(row.low, row.metric)}, ${show(row.high, row.metric)}]`), el("td", { class: "num" }, row.p < 0.001 ? "< 0.001" : row.p.toFixed(3)), el("td", {}, verdict(row))))))),
      note("The interval is for this pair alone; p is corrected for all pairs of methods, and the verdict follows it.")),
    el("div", {}, el("h3", {}, `${s.metric}, case by case`), plot,
      note(`${s.a} is better in ${won.length} of ${cases.length} cases, ${s.b} in ${lost.length}.`)),
    el("div", {}, el("h3", {}, `Where ${s.a} gains most`), tiles(won)), el("div", {}, el("h3", {}, `Where ${s.b} gains most`), tiles(lost)));
  if (cases.length) drawHistogram(plot, cases.map((c) => c.d), s.metric);
  else empty(plot, "No shared cases.");
}
drawCompare();
keep("compare", () => compareState.benchmark, (v) => oneOf(BENCHMARKS.map((b) => b.index), v, () => { compareState.benchmark = Number(v); }));
for (const [name, key] of [["a", "a"], ["b", "b"], ["by2", "metric"]]) keep(name, () => compareState[key], (v) => { compareState[key] = v; });

// Put the page into the state of its address.
function followAddress() {
  const words = readAddress();
  if (!words) return;
  drawPlots();
  drawCompare();
  drawFilters();
  refresh();
  const s = caseState, at = s.found.findIndex((entry) => s.selected && entry.b === s.selected.b && entry.i === s.selected.i);
  if (at >= 0) { s.page = Math.floor(at / PAGE); drawList(); }
  drawViewer();
  if (words.has("lens")) openLens();
  else if (words.has("case")) $("#viewer").scrollIntoView({ block: "start", behavior: "instant" });
}
addEventListener("hashchange", followAddress);
followAddress();

let resizing = 0, drawnAt = innerWidth;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => {
    if (innerWidth === drawnAt) return;
    drawnAt = innerWidth;
    drawPlots();
    drawCompare();
  }, 150);
});
