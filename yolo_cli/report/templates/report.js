"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));

  // Sorting: a button in each header; cells may carry a number in data-v.
  const key = (row, column) => {
    const cell = row.cells[column];
    const value = cell.dataset.v ?? cell.textContent.trim();
    return value === "" || value === "–" ? null : isNaN(value) ? value.toLowerCase() : Number(value);
  };
  const order = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
  for (const table of all("table.sortable")) {
    const headers = all("thead th", table);
    headers.forEach((header, column) => {
      const button = header.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const numeric = column > 0;
        const down = header.ariaSort ? header.ariaSort === "ascending" : numeric;
        headers.forEach((other) => other.removeAttribute("aria-sort"));
        header.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = Array.from(body.rows, (row) => [key(row, column), row]);
        // Unknown values stay at the end.
        rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : (down ? -1 : 1) * order(a, b)));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  // A field that filters the rows of a table by the name in their first cell.
  for (const field of all("input[data-table]")) {
    const rows = Array.from(document.getElementById(field.dataset.table).tBodies[0].rows);
    field.addEventListener("input", () => {
      const part = field.value.trim().toLowerCase();
      for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(part);
    });
  }

  // The gallery: three filters, which links elsewhere on the page can set.
  const gallery = document.getElementById("cards");
  if (gallery) {
    const cards = all("li[data-tags]", gallery).map((card) => [card, new Set(card.dataset.tags.split(" "))]);
    const [byClass, byError, byGroup] = ["by-class", "by-error", "by-group"].map((id) => document.getElementById(id));
    const status = document.getElementById("shown");
    const filter = () => {
      const both = byClass.value && byError.value ? [`${byClass.value}-${byError.value}`] : [byClass.value, byError.value];
      const wanted = [...both, byGroup.value].filter((tag) => tag && tag !== "worst");
      let count = 0;
      for (const [card, tags] of cards) {
        // Without a filter, the worst images are shown; the others are examples for the filters.
        const shown = wanted.length ? wanted.every((tag) => tags.has(tag)) : tags.has("worst");
        card.hidden = !shown;
        count += shown;
      }
      status.textContent = `${count} of the ${cards.length} images in this report ${count === 1 ? "is" : "are"} shown.`;
    };
    const select = (field, value) => {
      field.value = value;
      if (field.selectedIndex < 0) field.value = "";
    };
    for (const field of [byClass, byError, byGroup]) field.addEventListener("change", filter);
    document.getElementById("reset").addEventListener("click", () => {
      for (const field of [byClass, byError, byGroup]) field.value = "";
      filter();
    });
    for (const [id, name] of [["with-truth", "no-truth"], ["with-predicted", "no-predicted"]]) {
      const box = document.getElementById(id);
      box.addEventListener("change", () => gallery.classList.toggle(name, !box.checked));
    }
    for (const link of all("a[data-open]")) {
      link.addEventListener("click", () => {
        const [ofClass, ofError, ofGroup] = link.dataset.open.split("|");
        select(byClass, ofClass);
        select(byError, ofError);
        select(byGroup, ofGroup);
        filter();
      });
    }
    filter();
  }

  // A closed part is not printed, and a link into it must open it.
  const opened = [];
  addEventListener("beforeprint", () => {
    for (const part of all("details:not([open])")) {
      part.open = true;
      opened.push(part);
    }
  });
  addEventListener("afterprint", () => {
    for (const part of opened.splice(0)) part.open = false;
  });
  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const part = target && target.closest("details");
    if (part) {
      part.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  reveal();
})();
