// Tables of results: sorting by a click on a heading, and the choice of a benchmark.
function sortTable(table, column) {
  const heads = $$("thead th", table), head = heads[column];
  const before = head.getAttribute("aria-sort");
  // The first click puts the best on top: high values where higher is better, names from A.
  const first = head.dataset.higher === "1" ? "descending" : "ascending";
  const next = before === "none" ? first : before === "ascending" ? "descending" : "ascending";
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
  $$("thead th", table).forEach((head, column) => $("button", head).addEventListener("click", () => sortTable(table, column))));

const panels = $$("[data-panel]");
function showPanel(which) {
  $$("[data-tab]").forEach((tab) => tab.setAttribute("aria-pressed", String(tab.dataset.tab === which)));
  panels.forEach((panel) => { panel.hidden = which !== "all" && panel.dataset.panel !== which; });
}
$$("[data-tab]").forEach((tab) => tab.addEventListener("click", () => showPanel(tab.dataset.tab)));
if (panels.length > 1) showPanel(panels.length > 2 ? "0" : "all");
