"use strict";
// The page is whole without this: it makes tables sortable and searchable, and maps easier to walk.
(() => {
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = "v" in cell.dataset ? cell.dataset.v : cell.textContent.trim();
    const number = Number(text);
    return text === "" || text === "–" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
  };

  const compare = (a, b, down) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
    return down ? -order : order;
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const rows = [...body.rows];
        const numeric = rows.some((row) => typeof value(row, column) === "number");
        const before = head.getAttribute("aria-sort");
        const down = before ? before === "ascending" : numeric && head.textContent !== "#";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        rows.sort((a, b) => compare(value(a, column), value(b, column), down));
        body.append(...rows);
      });
    });
  };

  const filterable = (table) => {
    const box = document.createElement("div");
    const label = document.createElement("label");
    const input = document.createElement("input");
    const count = document.createElement("span");
    const rows = [...table.tBodies[0].rows];
    box.className = "filter";
    input.type = "search";
    input.id = `filter-${document.querySelectorAll(".filter").length + 1}`;
    label.htmlFor = input.id;
    label.textContent = table.dataset.filter;
    count.className = "small";
    count.setAttribute("role", "status");
    box.append(label, input, count);
    table.parentElement.before(box);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      rows.forEach((row) => {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      });
      const shown = rows.filter((row) => !row.hidden).length;
      count.textContent = words.length ? `${shown} of ${rows.length} ${table.dataset.unit}` : "";
    });
  };

  // One stop of the tab key for a map; arrows go from point to point.
  const walkable = (map) => {
    const points = [...map.querySelectorAll(".point")];
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    points.forEach((point, place) => point.setAttribute("tabindex", place ? "-1" : "0"));
    map.addEventListener("keydown", (event) => {
      const place = points.indexOf(document.activeElement);
      if (place < 0 || !(event.key in steps)) return;
      event.preventDefault();
      points[(place + steps[event.key] + points.length) % points.length].focus();
    });
  };

  document.querySelectorAll("table[data-sort]").forEach(sortable);
  document.querySelectorAll("table[data-filter]").forEach(filterable);
  document.querySelectorAll(".map").forEach(walkable);
})();
