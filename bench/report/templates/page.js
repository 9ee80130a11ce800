"use strict";
// Makes every header of a sortable table a button; without this script the tables read the same.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headers = [...table.querySelectorAll("th[data-column]")];
  const key = (row, column) => row.cells[column].dataset.sort;
  for (const header of headers) {
    const column = Number(header.dataset.column);
    const numeric = rows.every((row) => key(row, column) === undefined || !Number.isNaN(Number(key(row, column))));
    const best = numeric && !header.classList.contains("rank") ? "descending" : "ascending";
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const now = header.getAttribute("aria-sort");
      const next = now === null ? best : now === best ? (best === "ascending" ? "descending" : "ascending") : null;
      for (const other of headers) other.removeAttribute("aria-sort");
      if (next === null) return body.append(...rows);
      header.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const compare = (one, other) => {
        const a = key(one, column), b = key(other, column);
        if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
        return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b));
      };
      body.append(...[...rows].sort(compare));
    });
  }
}
