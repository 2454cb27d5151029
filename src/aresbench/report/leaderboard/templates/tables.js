"use strict";
// Tables to save as CSV or JSON. A button with data-table="ID" data-as="csv" saves the rows that tables.rows(ID) gives.
window.tables = (() => {
  const quoted = (v) => { const t = v === null || v === undefined ? "" : String(v); return /[",\r\n]/.test(t) ? `"${t.replace(/"/g, '""')}"` : t; };
  function csv(rows) {
    const heads = new Set();
    for (const row of rows) for (const head of Object.keys(row)) heads.add(head);
    return [[...heads], ...rows.map((row) => [...heads].map((head) => row[head]))].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
  }
  function save(name, as, rows) {
    const text = as === "csv" ? csv(rows) : JSON.stringify(rows, null, 1), link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: as === "csv" ? "text/csv" : "application/json" }));
    link.download = `${name}.${as}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  const data = document.getElementById("tables");
  const own = { csv, save, rows: (id) => JSON.parse(data.textContent)[id] };
  document.addEventListener("click", (e) => {
    const button = e.target.closest("[data-table]");
    if (button) save(`${document.title} ${button.dataset.table}`.replace(/[^A-Za-z0-9.]+/g, "-"), button.dataset.as, own.rows(button.dataset.table));
  });
  // A chart in the page's own colours, its legend as wide as its box.
  own.themed = (spec, width) => {
    const style = getComputedStyle(document.documentElement), of = (name) => style.getPropertyValue(name).trim();
    const text = { labelColor: of("--soft"), titleColor: of("--ink") };
    spec.config = { ...spec.config, background: of("--card"), text: { ...spec.config.text, color: of("--ink") }, axis: { ...spec.config.axis, ...text, gridColor: of("--grid"), domainColor: of("--soft"), tickColor: of("--soft") }, legend: { ...spec.config.legend, ...text, symbolBaseFillColor: of("--soft"), symbolBaseStrokeColor: of("--soft"), columns: Math.max(1, Math.floor(width / 150)), labelLimit: Math.min(280, width - 60), layout: { top: { direction: width < 600 ? "vertical" : "horizontal", anchor: "start" } } } };
    return spec;
  };
  return own;
})();
