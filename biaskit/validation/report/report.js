"use strict";
/* A click on a heading sorts its table by that column: numbers by value, largest first, then text; again turns it round. */
document.querySelectorAll(".wide thead button").forEach((button) => button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], at = head.cellIndex;
  const order = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
  head.parentNode.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order === 1 ? "ascending" : "descending");
  const key = (row) => { const cell = row.cells[at], value = cell.dataset.value;
    return value === undefined ? cell.textContent : Number(value); };
  const kind = (a) => typeof a === "number" ? 0 : 1;
  [...body.rows].sort((a, b) => { const x = key(a), y = key(b);
    return kind(x) - kind(y) || (kind(x) ? -order * x.localeCompare(y) : order * (x - y)); }).forEach((row) => body.append(row));
}));
