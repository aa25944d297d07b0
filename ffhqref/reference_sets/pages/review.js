"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  const pairKey = (a, b) => JSON.stringify(a < b ? [a, b] : [b, a]);
  // Verdicts: target id -> accept | reject; pairs rejected in both directions.
  const state = { targets: new Map(), pairs: new Set(), here: 0, unsaved: false };

  function make(tag, options = {}, ...children) {
    const { attributes = {}, ...properties } = options;
    const node = Object.assign(document.createElement(tag), properties);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children.filter((child) => child !== null));
    return node;
  }

  function complain(text) {
    element("message").textContent = text;
    element("message").hidden = !text;
  }

  function remember() {
    const kept = { targets: [...state.targets], pairs: [...state.pairs], here: data.targets[state.here].id, unsaved: state.unsaved };
    try {
      localStorage.setItem(data.key, JSON.stringify(kept));
    } catch {
      complain("This browser does not keep verdicts for this file: save the CSV before you close the page.");
    }
  }

  function recall() {
    try {
      const kept = JSON.parse(localStorage.getItem(data.key) ?? "null");
      if (!kept) return;
      state.targets = new Map(kept.targets);
      state.pairs = new Set(kept.pairs);
      state.unsaved = kept.unsaved;
      state.here = Math.max(0, data.targets.findIndex((target) => target.id === kept.here));
    } catch {
      complain("The verdicts kept in this browser cannot be read; load your last exclusions.csv.");
    }
  }

  const rejected = (target) => target.references.filter((row) => state.pairs.has(pairKey(target.id, row.id))).length;

  function picture(id, alt) {
    const source = data.pictures[id];
    return source ? make("img", { src: source, alt, decoding: "async" }) : make("div", { className: "gap", textContent: `${id} cannot be read` });
  }

  const years = (value) => `${value > 0 ? "+" : value < 0 ? "−" : "±"}${Math.abs(value)} years`;

  function verdictButton(text, verdict, extra) {
    const target = data.targets[state.here];
    const pressed = String(state.targets.get(target.id) === verdict);
    const button = make("button", { type: "button", className: extra, textContent: text, attributes: { "aria-pressed": pressed } });
    button.addEventListener("click", () => (verdict === "accept" ? accept() : rejectTarget()));
    return button;
  }

  function show() {
    const target = data.targets[state.here];
    const verdict = state.targets.get(target.id);
    element("target").replaceChildren(
      make("figure", { className: verdict === "reject" ? "rejected" : "" },
        picture(target.id, `target ${target.id}`),
        make("figcaption", {}, make("b", { textContent: target.id }), ` · person ${target.person}`, target.age === null ? null : ` · ${target.age} years`)),
      make("div", { className: "verdicts" }, verdictButton("Accept", "accept", ""), verdictButton("Reject target", "reject", "no")),
    );
    element("references").replaceChildren(...target.references.map((row, index) => {
      const facts = [row.distance === null ? null : `distance ${row.distance}`, row.gap === null ? null : years(row.gap)];
      const pressed = String(state.pairs.has(pairKey(target.id, row.id)));
      const button = make("button", { type: "button", className: "reference", attributes: { "aria-pressed": pressed, "aria-label": `reject reference ${row.id}` } },
        make("figure", {},
          picture(row.id, `reference ${row.id}`),
          make("figcaption", {}, make("b", { textContent: row.id }), make("br"), make("span", { className: "muted", textContent: facts.filter(Boolean).join(" · ") }))),
        make("kbd", { textContent: index < 9 ? String(index + 1) : "" , hidden: index >= 9 }));
      button.addEventListener("click", () => toggle(index));
      return button;
    }));
    const decided = data.targets.filter((each) => state.targets.has(each.id)).length;
    element("progress").textContent = `${state.here + 1} of ${data.targets.length} · ${decided} decided · rejected: pairs ${state.pairs.size}, ` +
      `targets ${[...state.targets.values()].filter((each) => each === "reject").length}${state.unsaved ? " · not saved yet" : ""}`;
    [...element("strip").children].forEach((mark, index) => {
      const each = data.targets[index];
      const some = rejected(each) ? "some" : "";
      mark.className = `${state.targets.get(each.id) ?? ""} ${some} ${index === state.here ? "here" : ""}`;
    });
  }

  function changed() {
    state.unsaved = true;
    remember();
    show();
  }

  function go(index) {
    state.here = Math.min(data.targets.length - 1, Math.max(0, index));
    remember();
    show();
    scrollTo(0, 0);
  }

  function accept() {
    state.targets.set(data.targets[state.here].id, "accept");
    state.here = Math.min(data.targets.length - 1, state.here + 1);
    changed();
  }

  function rejectTarget() {
    const { id } = data.targets[state.here];
    if (state.targets.get(id) === "reject") state.targets.delete(id);
    else state.targets.set(id, "reject");
    changed();
  }

  function toggle(index) {
    const target = data.targets[state.here];
    if (index >= target.references.length) return;
    const key = pairKey(target.id, target.references[index].id);
    if (!state.pairs.delete(key)) state.pairs.add(key);
    const focused = element("references").contains(document.activeElement);
    changed();
    if (focused) element("references").children[index].focus({ preventScroll: true });
  }

  function clear() {
    const target = data.targets[state.here];
    state.targets.delete(target.id);
    target.references.forEach((row) => state.pairs.delete(pairKey(target.id, row.id)));
    changed();
  }

  function nextUndecided() {
    const order = data.targets.map((_, step) => (state.here + 1 + step) % data.targets.length);
    const found = order.find((index) => !state.targets.has(data.targets[index].id));
    if (found !== undefined) go(found);
  }

  const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  function csvText() {
    const rows = [...state.targets].map(([id, verdict]) => [id, "", verdict]);
    for (const key of state.pairs) rows.push([...JSON.parse(key), "reject"]);
    rows.sort((a, b) => (a.join("\0") < b.join("\0") ? -1 : 1));
    return [["target_id", "reference_id", "verdict"], ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
  }

  function save() {
    const address = URL.createObjectURL(new Blob([csvText()], { type: "text/csv" }));
    make("a", { href: address, download: "exclusions.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    state.unsaved = false;
    remember();
    show();
  }

  function parseCsv(text) {
    const rows = [[""]];
    let quoted = false;
    for (let i = 0; i < text.length; i += 1) {
      const sign = text[i];
      const row = rows[rows.length - 1];
      if (quoted) {
        if (sign !== '"') row[row.length - 1] += sign;
        else if (text[i + 1] === '"') { row[row.length - 1] += '"'; i += 1; } else quoted = false;
      } else if (sign === '"') quoted = true;
      else if (sign === ",") row.push("");
      else if (sign === "\n") rows.push([""]);
      else if (sign !== "\r") row[row.length - 1] += sign;
    }
    return rows.filter((row) => row.length > 1);
  }

  async function load(event) {
    const [file] = event.target.files;
    event.target.value = "";
    if (!file) return;
    const [header, ...rows] = parseCsv((await file.text()).replace(/^\ufeff/, ""));
    const good = header?.join() === "target_id,reference_id,verdict" && rows.every((row) => row.length === 3 && ["accept", "reject"].includes(row[2]));
    if (!good) {
      complain(`${file.name} is no exclusions.csv: expected the columns target_id, reference_id, verdict (accept or reject).`);
      return;
    }
    complain("");
    for (const [target, reference, verdict] of rows) {
      if (!reference) state.targets.set(target, verdict);
      else if (verdict === "reject") state.pairs.add(pairKey(target, reference));
    }
    changed();
  }

  const keys = {
    a: accept, x: rejectTarget, z: clear, u: nextUndecided, s: save,
    ArrowRight: () => go(state.here + 1), ArrowLeft: () => go(state.here - 1),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = keys[event.key] ?? (/^[1-9]$/.test(event.key) ? () => toggle(Number(event.key) - 1) : null);
    if (!action) return;
    event.preventDefault();
    action();
  });
  element("undecided").addEventListener("click", nextUndecided);
  element("save").addEventListener("click", save);
  element("load").addEventListener("change", load);
  element("title").textContent = `${data.name}: ${data.split} targets and their references`;
  document.title = `Review: ${data.name}, ${data.split}`;
  element("strip").replaceChildren(...data.targets.map((target, index) => {
    const mark = make("i", { title: target.id });
    mark.addEventListener("click", () => go(index));
    return mark;
  }));
  recall();
  show();
})();
