"use strict";
// Sorts and filters tables, which are complete without it. The choices are kept in the address, after "#?".
const TINTS = ["oblivious", "adaptive", "certified"];
const state = () => new URLSearchParams(location.hash.startsWith("#?") ? location.hash.slice(2) : "");

function keep(changes) {
  const chosen = state();
  for (const [key, value] of Object.entries(changes)) value ? chosen.set(key, value) : chosen.delete(key);
  const text = chosen.toString();
  if (text || location.hash.startsWith("#?")) history.replaceState(null, "", "#" + (text && "?" + text));
}

// ---- tooltips for headings and badges, from the explanations on the page
const textOf = (one) => one.textContent.trim();
const words = new Map([...document.querySelectorAll("dl.words dt")].map((one) => [
  one.closest("#checks") ? textOf(one).split(" ")[0] : textOf(one), textOf(one.nextElementSibling)]));
for (const one of document.querySelectorAll("table.board :is(thead th, .under b)")) {
  const meaning = words.get(textOf(one)) || words.get(textOf(one).split(" ")[0]);
  if (meaning) one.title = meaning;
}

// ---- sorting: the header of each column becomes a button; best first, then reversed, then in the original order
// The sort key of a cell: data-v if it has one, else the number or the text that it begins with.
function key(cell, numeric) {
  if (cell.dataset.v !== undefined) return cell.dataset.v;
  if (!numeric) return (cell.querySelector("a") || cell).textContent.trim() || undefined;
  return cell.firstChild?.textContent.replaceAll("−", "-").replace(/[^\d.-]/g, "") || undefined;
}

const tables = [...document.querySelectorAll("table.sortable")].map((table) => {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headers = [...table.tHead.querySelectorAll("th:not(.group)")];
  const name = table.id || table.closest("section").id;
  headers.forEach((header, column) => { header.dataset.column = column; });

  function sort(column, way) {
    for (const header of headers) header.removeAttribute("aria-sort");
    const header = headers.find((one) => one.dataset.column === String(column));
    table.classList.toggle("sorted", Boolean(header && way));
    if (!header || !way) return body.append(...rows);
    header.setAttribute("aria-sort", way);
    const numeric = header.matches(".n, .rank");
    const keys = new Map(rows.map((row) => [row, key(row.cells[column], numeric)]));
    const sign = way === "ascending" ? 1 : -1;
    const compare = (one, other) => {
      const a = keys.get(one), b = keys.get(other);
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b));
    };
    body.append(...[...rows].sort(compare));
  }

  for (const header of headers.filter((one) => !one.classList.contains("still"))) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    const best = header.classList.contains("n") ? ["descending", "ascending"] : ["ascending", "descending"];
    button.addEventListener("click", () => {
      const next = best[best.indexOf(header.getAttribute("aria-sort")) + 1];
      sort(header.dataset.column, next);
      const others = state().getAll("sort").join(",").split(",").filter((one) => one && !one.startsWith(name + "."));
      keep({ sort: [...others, ...(next ? [`${name}.${header.dataset.column}.${next}`] : [])].join(",") });
    });
  }
  return { table, name, rows, headers, sort };
});

// ---- bars: the interval below a number, on a scale from 0 to 100
for (const { rows, headers } of tables) {
  for (const header of headers.filter((one) => one.classList.contains("bar"))) {
    for (const row of rows) {
      const cell = row.cells[header.dataset.column];
      const [low, high] = (cell.querySelector("i")?.textContent || "").split("–");
      if (high === undefined) continue;
      const bar = document.createElement("s");
      bar.className = TINTS.find((one) => header.classList.contains(one)) || "";
      for (const [name, value] of [["--l", low], ["--a", key(cell, true)], ["--h", high]]) bar.style.setProperty(name, `${Number(value)}%`);
      cell.append(bar);
    }
  }
}

function sortAsKept() {
  const kept = (state().get("sort") || "").split(",").map((one) => one.split("."));
  for (const { name, sort } of tables) {
    const [, column, way] = kept.find((one) => one[0] === name) || [];
    sort(column, way);
  }
}

// ---- filters, on the front page only
const form = document.getElementById("filters");
const boards = [...document.querySelectorAll("section.board")].map((section) => ({
  section,
  pill: document.querySelector(`nav.boards a[href="#${section.id}"]`),
  ...tables.find(({ table }) => section.contains(table)),
}));

function filter() {
  const chosen = Object.fromEntries(new FormData(form));
  const boxes = [...form.elements.column];
  const hidden = new Set(boxes.filter((box) => !box.checked).map((box) => box.value));
  const words = (chosen.find || "").toLowerCase().split(/\s+/).filter(Boolean);
  document.body.classList.toggle("no-intervals", hidden.has("intervals"));
  let shownBoards = 0, shownRows = 0;

  for (const { section, pill, table, rows, headers } of boards) {
    const fits = ["dataset", "model", "threat", "goal", "effort"]
      .every((key) => !chosen[key] || section.dataset[key] === chosen[key]);
    const columns = table.querySelectorAll("col");
    let numbers = 0;
    const groups = new Map();
    for (const header of headers) {
      const { column, label, tier, attack } = header.dataset;
      const out = hidden.has(label) || (chosen.tier && tier !== undefined && tier !== "" && tier !== chosen.tier)
        || (chosen.attack && tier && tier !== "certified" && attack !== chosen.attack);
      header.hidden = out;
      columns[column].hidden = out;
      for (const row of rows) row.cells[column].hidden = out;
      if (tier && !out) numbers += 1;
      if (tier !== undefined) groups.set(header.dataset.group, (groups.get(header.dataset.group) || 0) + !out);
    }
    table.querySelectorAll("th.group").forEach((head, place) => {
      const width = groups.get(String(place)) || 0;
      head.hidden = !width;
      head.colSpan = width || 1;
    });
    let found = 0;
    for (const row of rows) {
      const text = [...row.cells[1].querySelectorAll(".name, small")].map((one) => one.textContent).join(" ").toLowerCase();
      const baseline = row.classList.contains("baseline") && !words.length;
      const right = (!chosen.kind || row.dataset.kind === chosen.kind || baseline) && words.every((word) => text.includes(word));
      row.hidden = !right;
      found += right && !baseline;
    }
    const narrowed = chosen.kind || words.length;
    const lacking = (chosen.tier || chosen.attack) && !numbers;
    section.hidden = !fits || lacking || Boolean(narrowed && !found);
    if (pill) pill.hidden = section.hidden;
    if (!section.hidden) [shownBoards, shownRows] = [shownBoards + 1, shownRows + rows.filter((row) => !row.hidden).length];
  }
  for (const group of document.querySelectorAll("div.model")) group.hidden = !group.querySelector("section.board:not([hidden])");
  for (const group of document.querySelectorAll("nav.boards div")) group.hidden = !group.querySelector("a:not([hidden])");
  form.elements.count.value = `${shownBoards} of ${boards.length} boards, ${shownRows} rows`;
}

function fromAddress() {
  const kept = state();
  const hidden = new Set(kept.getAll("hide"));
  for (const field of form.elements) {
    if (field.name === "column") field.checked = !hidden.has(field.value);
    else if (field.name) field.value = kept.get(field.name) || "";
  }
  filter();
}

function toAddress() {
  const kept = state();
  const chosen = new URLSearchParams();
  for (const field of form.elements) {
    if (field.name === "column") !field.checked && chosen.append("hide", field.value);
    else if (field.name && field.value) chosen.set(field.name, field.value);
  }
  if (kept.get("sort")) chosen.set("sort", kept.get("sort"));
  const text = chosen.toString();
  history.replaceState(null, "", "#" + (text && "?" + text));
}

if (form) {
  for (const { table, headers } of boards) {
    for (const header of headers) {
      const { dataset, classList, rowSpan } = header;
      const label = textOf(header);
      if (!classList.contains("first")) dataset.label = label;
      if (rowSpan > 1) continue;
      dataset.tier = TINTS.find((one) => classList.contains(one)) || "";
      if (dataset.tier && !["worst case", "δ", "β"].includes(label)) dataset.attack ??= label;
    }
    const groups = [...table.querySelectorAll("th.group")].flatMap((head, place) => Array(head.colSpan).fill(place));
    headers.filter((one) => one.dataset.tier !== undefined).forEach((one, place) => { one.dataset.group = groups[place]; });
  }
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { filter(); toAddress(); });
  form.addEventListener("reset", () => setTimeout(() => { filter(); toAddress(); }));
  fromAddress();
}
sortAsKept();
addEventListener("hashchange", () => {
  if (location.hash && !location.hash.startsWith("#?")) return;
  sortAsKept();
  if (form) fromAddress();
});
