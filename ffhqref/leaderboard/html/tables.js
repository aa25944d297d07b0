// Tables of results: sorting by a click on a heading, and the choice of a benchmark.
function sortTable(table, column, wanted) {
  const heads = $$("thead th", table), head = heads[column];
  const before = head.getAttribute("aria-sort");
  // The first click puts the best on top: high values where higher is better, names from A.
  const first = head.dataset.higher === "1" ? "descending" : "ascending";
  const next = wanted ?? (before === "none" ? first : before === "ascending" ? "descending" : "ascending");
  heads.forEach((other) => other.setAttribute("aria-sort", other === head ? next : "none"));
  const sign = next === "ascending" ? 1 : -1, byName = column === 0;
  const key = (row) => row.children[column].dataset.v;
  // Each block is sorted for itself; ground truth and the block's heading keep their places.
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.matches(".block, .ceiling")), last = [...body.rows].filter((row) => row.matches(".ceiling"));
    const keyed = rows.map((row) => ({ row, key: key(row) }));
    keyed.sort((a, b) => {
      if ((a.key === "") !== (b.key === "")) return a.key === "" ? 1 : -1;
      return sign * (byName ? a.key.localeCompare(b.key) : Number(a.key) - Number(b.key));
    });
    body.append(...keyed.map(({ row }) => row), ...last);
  }
}
$$("table.board").forEach((table) =>
  $$("thead th", table).forEach((head, column) => $("button", head).addEventListener("click", () => { sortTable(table, column); writeAddress(); })));
$$("table.board").forEach((table, place) => keep(`order${place}`,
  () => { const heads = $$("thead th", table), at = heads.findIndex((head) => head.getAttribute("aria-sort") !== "none"); return at < 0 ? "" : `${at}:${heads[at].getAttribute("aria-sort")}`; },
  (value) => { const [at, way] = value.split(":"); if ($$("thead th", table)[at] && ["ascending", "descending"].includes(way)) sortTable(table, Number(at), way); }));

$$("[data-copy]").forEach((button) => button.addEventListener("click", () => {
  const [kind, place] = button.dataset.copy.split(":");
  copyText(DATA.copies[kind][place][button.textContent], `${button.textContent} table`);
}));
$("#copy-link").addEventListener("click", () => { writeAddress(); copyText(location.href, "Link"); });


// Many printed rows start folded; without scripts they are all there.
$$("[data-printed]").forEach((button) => {
  const body = button.closest("tbody"), rows = [...body.rows].filter((row) => !row.matches(".block"));
  const fold = (hide) => {
    rows.forEach((row) => { row.hidden = hide; });
    button.setAttribute("aria-expanded", String(!hide));
    button.textContent = `${hide ? "Show" : "Hide"} ${rows.length} rows`;
  };
  button.addEventListener("click", () => fold(button.getAttribute("aria-expanded") === "true"));
  if (rows.length > 8) fold(true);
});

const panels = $$("[data-panel]");
let panelShown = "all";
function showPanel(which) {
  panelShown = which;
  $$("[data-tab]").forEach((tab) => tab.setAttribute("aria-pressed", String(tab.dataset.tab === which)));
  panels.forEach((panel) => { panel.hidden = which !== "all" && panel.dataset.panel !== which; });
}
$$("[data-tab]").forEach((tab) => tab.addEventListener("click", () => { showPanel(tab.dataset.tab); writeAddress(); }));
if (panels.length > 1) showPanel(panels.length > 2 ? "0" : "all");
keep("tab", () => panelShown, (value) => { if ($(`[data-tab="${CSS.escape(value)}"]`)) showPanel(value); });
