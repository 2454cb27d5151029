"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures"), tables = read("tables");

  // Figures -----------------------------------------------------------------------------------
  const drawn = new Map();
  const busy = new Map();
  async function draw(id) {
    const box = document.getElementById(id);
    const width = Math.floor(box.clientWidth);
    if (!width || (drawn.get(id) || {}).width === width) return;
    const spec = structuredClone(figures[id]);
    // A fixed width is the box's own: the page decides, also on paper.
    spec.width = width;
    const room = Math.max(1, Math.floor(width / 230));
    spec.config.legend = { ...spec.config.legend, columns: room, labelLimit: Math.min(280, width - 60) };
    const old = drawn.get(id);
    if (old) old.result.finalize();
    const result = await vegaEmbed(box, spec, {
      mode: "vega-lite", renderer: "svg", downloadFileName: id, scaleFactor: { png: 2 },
      actions: { export: { svg: true, png: true }, source: false, compiled: false, editor: false },
      tooltip: { theme: "custom" },
    });
    drawn.set(id, { width, result });
    // The picture itself is told as one; the menu beside it is not a part of it.
    const picture = box.querySelector("svg.marks"), menu = box.querySelector("details > summary");
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", box.getAttribute("aria-label") || picture.getAttribute("aria-label"));
    box.removeAttribute("role");
    if (menu) menu.setAttribute("aria-label", "Save the figure");
    box.style.minHeight = "0";
    if ((spec.params || []).some((p) => p.name === "pick")) result.view.addSignalListener("pick", (_, pick) => {
      // Small figures without a legend follow the one that stands above them.
      for (const chart of box.closest(".grid").querySelectorAll(".chart")) {
        const other = drawn.get(chart.id);
        if (other && (figures[chart.id].params || []).some((p) => p.name === "follow"))
          other.result.view.signal("follow", pick.model || []).runAsync();
      }
    });
  }
  // One drawing at a time for each figure; a change of width during it is taken up afterwards.
  function queue(id) {
    const next = (busy.get(id) || Promise.resolve()).then(() => draw(id));
    busy.set(id, next);
    return next;
  }
  const all = () => Promise.all(Object.keys(figures).map(queue));
  let timer = 0;
  const watch = new ResizeObserver(() => { clearTimeout(timer); timer = setTimeout(all, 120); });
  for (const id of Object.keys(figures)) watch.observe(document.getElementById(id));
  all().then(() => { document.documentElement.dataset.ready = "yes"; });
  addEventListener("beforeprint", () => { for (const d of document.querySelectorAll("details")) if (!d.open) { d.open = true; d.dataset.shut = "yes"; } });
  addEventListener("afterprint", () => { for (const d of document.querySelectorAll("details[data-shut]")) { d.open = false; delete d.dataset.shut; } });

  // Light and dark ----------------------------------------------------------------------------
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("aresbench-theme", root.dataset.theme); } catch (e) { /* private window */ }
  });

  // Tables ------------------------------------------------------------------------------------
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : column > 0;
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => { const c = row.cells[column]; return c.dataset.sort === undefined ? c.textContent.trim() : c.dataset.sort === "" ? NaN : Number(c.dataset.sort); };
      const sign = down ? -1 : 1;
      [...table.tBodies[0].rows]
        .sort((a, b) => { const x = value(a), y = value(b);
          if (typeof x === "string") return sign * x.localeCompare(y);
          if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);  // not measured stands last, whatever the order
          return sign * (x - y); })
        .forEach((row) => table.tBodies[0].append(row));
    }));
  }
  const quote = (v) => { const t = v === null || v === undefined ? "" : String(v); return /[",\n\r]/.test(t) ? '"' + t.replaceAll('"', '""') + '"' : t; };
  function save(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  for (const button of document.querySelectorAll("[data-table]")) button.addEventListener("click", (event) => {
    event.preventDefault();
    const { table: id, as } = button.dataset, rows = tables[id];
    if (as === "json") return save(`${id}.json`, "application/json", JSON.stringify(rows, null, 1));
    const columns = [...new Set(rows.flatMap(Object.keys))];
    save(`${id}.csv`, "text/csv", [columns, ...rows.map((r) => columns.map((c) => r[c]))].map((r) => r.map(quote).join(",")).join("\r\n") + "\r\n");
  });
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => {
    const code = button.parentElement.querySelector("code");
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
    // A file on disk may not have the clipboard; the text then stands selected.
    if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(done, () => {});
  });
})();
