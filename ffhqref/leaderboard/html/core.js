"use strict";
// What the other scripts share: the data, small makers of elements, numbers, colours, the theme.
document.documentElement.classList.add("scripted");
const DATA = JSON.parse(document.getElementById("data").textContent);
const CEILING = DATA.ceiling;

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") node.style.cssText = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  // Text always enters as text nodes: names of methods and cases are never read as markup.
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function unpack(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return new Float32Array(bytes.buffer);
}

class Benchmark {
  constructor(facts, index) {
    Object.assign(this, facts);
    this.index = index;
    this.competing = this.methods.filter((method) => method !== CEILING);
    this.arrays = {};
  }
  array(name, text) {
    return (this.arrays[name] ??= unpack(text()));
  }
  // The value of a case, NaN where there is none.
  value(i, method, metric) {
    const values = this.array("values", () => $(`#values-${this.index}`).textContent);
    const j = this.methods.indexOf(method), k = this.metrics.indexOf(metric);
    return j < 0 || k < 0 ? NaN : values[(i * this.methods.length + j) * this.metrics.length + k];
  }
  column(method, metric) {
    const values = this.array("values", () => $(`#values-${this.index}`).textContent);
    const j = this.methods.indexOf(method), k = this.metrics.indexOf(metric);
    const M = this.methods.length, K = this.metrics.length, found = new Float32Array(this.cases.length).fill(NaN);
    if (j >= 0 && k >= 0) for (let i = 0; i < found.length; i++) found[i] = values[(i * M + j) * K + k];
    return found;
  }
  // Why a value is missing: "failed", "left out", or undefined.
  state(i, method, metric) {
    const j = this.methods.indexOf(method), k = this.metrics.indexOf(metric);
    return j < 0 || k < 0 ? undefined : this.states[(i * this.methods.length + j) * this.metrics.length + k];
  }
  error(i, method) {
    return this.errors[`${i},${this.methods.indexOf(method)}`] ?? null;
  }
  // Difference a - b with its interval and corrected p.
  comparison(a, b, metric) {
    const all = this.array("comparisons", () => this.comparisons), M = this.methods.length;
    const at = ((this.metrics.indexOf(metric) * M + this.methods.indexOf(a)) * M + this.methods.indexOf(b)) * 4;
    return { difference: all[at], low: all[at + 1], high: all[at + 2], p: all[at + 3] };
  }
  cell(method, metric) {
    const cell = this.board[method]?.cells[metric];
    return cell ? { mean: cell[0], low: cell[1], high: cell[2], rank: cell[3] } : null;
  }
}
const BENCHMARKS = DATA.benchmarks.map((facts, index) => new Benchmark(facts, index));

function picture(number) {
  const node = number === null || number === undefined ? null : document.getElementById(`picture-${number}`);
  return node ? "data:image/webp;base64," + node.textContent : null;
}

function show(value, metric) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  return value.toFixed(DATA.metrics[metric]?.decimals ?? 3).replace("-", "−");
}
const higher = (metric) => DATA.metrics[metric].higher;
const arrow = (metric) => (higher(metric) ? "↑" : "↓");
const colour = (method) => {
  const place = DATA.methods.indexOf(method);
  return method === CEILING || place < 0 ? "var(--muted)" : `var(--s${place % 10})`;
};

// What a control is called: the same after it was drawn again.
const nameOf = (node) => node.getAttribute("aria-label") ?? node.labels?.[0]?.textContent ?? node.textContent;
const CONTROLS = "button, select, input, summary, a[href], [tabindex]";

// Put other children into a place. What had the focus has it again: found by its name, else by its place.
function redraw(place, ...children) {
  const active = document.activeElement, inside = place !== active && place.contains(active);
  const at = inside ? $$(CONTROLS, place).indexOf(active) : -1, name = inside ? nameOf(active) : null;
  place.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  if (!inside) return;
  const controls = $$(CONTROLS, place), able = controls.filter((node) => !node.disabled);
  const same = able.filter((node) => node.tagName === active.tagName && nameOf(node) === name);
  const next = same.find((node) => controls.indexOf(node) === at) ?? same[0] ?? (able.includes(controls[at]) ? controls[at] : able[Math.min(Math.max(at, 0), able.length - 1)]);
  next?.focus({ preventScroll: true });
}

// The state of the page stands in its address: name there -> how to read and to set it, and what it is by default.
const kept = new Map();
function keep(name, get, set) {
  kept.set(name, { get, set, start: String(get() ?? "") });
}
function writeAddress() {
  const words = new URLSearchParams();
  for (const [name, { get, start }] of kept) {
    const value = String(get() ?? "");
    if (value !== start) words.set(name, value);
  }
  const text = words.toString();
  if (text || location.hash.startsWith("#at?")) history.replaceState(null, "", text ? `#at?${text}` : location.pathname + location.search);
}
function readAddress() {
  if (!location.hash.startsWith("#at?")) return null;
  const words = new URLSearchParams(location.hash.slice(4));
  for (const [name, { set }] of kept) if (words.has(name)) set(words.get(name));
  return words;
}

async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no clipboard without a secure address: the old way
    const area = el("textarea", { style: "position:fixed;opacity:0" }), active = document.activeElement;
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    active?.focus({ preventScroll: true });
  }
  $("#said").textContent = `${what} copied`;
  clearTimeout(copyText.timer);
  copyText.timer = setTimeout(() => { $("#said").textContent = ""; }, 2500);
}

let fields = 0;
// A control with its label above; the label stands beside the control, so that its name is the label alone.
function field(label, control) {
  control.id = `field-${++fields}`;
  return el("div", { class: "field" }, el("label", { for: control.id }, label), control);
}

// A labelled <select>; options are strings or [value, text].
function choice(label, options, value, change) {
  const select = el("select", { onchange: () => change(select.value) },
    options.map((option) => {
      const [key, text] = Array.isArray(option) ? option : [option, option];
      return el("option", { value: key, selected: String(key) === String(value) }, text);
    }));
  return field(label, select);
}

(function theme() {
  const root = document.documentElement, button = $("#theme"), name = $("#theme-name");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const now = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const label = () => { name.textContent = now() === "dark" ? "Light" : "Dark"; };
  try { root.dataset.theme = localStorage.getItem("ffhqref-theme") ?? now(); } catch { root.dataset.theme = now(); }
  button.addEventListener("click", () => {
    root.dataset.theme = now() === "dark" ? "light" : "dark";
    try { localStorage.setItem("ffhqref-theme", root.dataset.theme); } catch { /* pages from disk may have no storage */ }
    label();
  });
  label();
})();
