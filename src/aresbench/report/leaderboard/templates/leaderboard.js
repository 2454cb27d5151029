"use strict";
// The ranking. State lives in one object, is written to the address, and everything shown follows from it.
(() => {
  const boards = JSON.parse(document.getElementById("boards").textContent);
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const $ = (id) => document.getElementById(id);
  const escaped = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
  const STEP = 30, MORE = 200, SHOWN_CURVES = 6;
  const CHOICES = ["family", "paradigm", "data", "size", "budget", "text", "min", "max"], UNKNOWN = "not told";
  const { csv: written, save, themed } = window.tables;
  const FACTS = ["family", "paradigm", "data", "parameters", "size"];
  for (const board of boards) for (const m of board.models) m.words = `${m.name} ${m.key} ${m.family} ${m.paradigm} ${m.data}`.toLowerCase();

  const state = {};
  let board, visible = [], columns = [], ranks = [], shown = STEP, drawnHead = "";
  const fresh = () => ({ board: boards[0].name, sort: "", dir: "", hide: [], picked: [], plot: "robust", across: "", up: "", track: "0", ...Object.fromEntries(CHOICES.map((c) => [c, ""])) });

  // ---- the address: everything that differs from a fresh page
  function readAddress() {
    const told = new URLSearchParams(location.hash.slice(1)), start = fresh();
    for (const name of Object.keys(start)) {
      const list = Array.isArray(start[name]);
      state[name] = !told.has(name) ? start[name] : list ? JSON.parse(told.get(name)) : told.get(name);
    }
    if (!boards.some((b) => b.name === state.board)) state.board = boards[0].name;
  }
  function writeAddress() {
    const start = fresh(), told = new URLSearchParams();
    for (const [name, value] of Object.entries(state)) {
      const text = Array.isArray(value) ? (value.length ? JSON.stringify(value) : "") : value;
      if (text && text !== start[name]) told.set(name, text);
    }
    history.replaceState(null, "", told.size ? `#${told}` : location.pathname + location.search);
  }

  // ---- what is shown
  const is = (m, fact) => !state[fact] || (m[fact] || UNKNOWN) === state[fact];
  const column = (key) => board.columns.findIndex((c) => c.key === key);
  function choose() {
    const min = state.min === "" ? -Infinity : 1e6 * state.min, max = state.max === "" ? Infinity : 1e6 * state.max;
    const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
    const bySize = state.min !== "" || state.max !== "";
    const open = board.columns.map((c, i) => i).filter((i) => !state.hide.includes(board.columns[i].source) && (!state.budget || !board.columns[i].budget || board.columns[i].budget === state.budget));
    const needed = state.budget ? open.filter((i) => board.columns[i].budget === state.budget) : open;
    visible = board.models.filter((m) =>
      is(m, "family") && is(m, "paradigm") && is(m, "data") && is(m, "size") &&
      (!bySize || (m.parameters !== null && m.parameters >= min && m.parameters <= max)) &&
      words.every((w) => m.words.includes(w)) && needed.some((i) => i in m.figures));
    columns = open.filter((i) => visible.some((m) => i in m.figures));
  }
  function order() {
    let key = state.sort || board.sort;
    if (key !== "name" && key !== "parameters" && !columns.includes(column(key))) key = columns.length ? board.columns[columns[0]].key : "name";
    const i = column(key), lower = i >= 0 && board.columns[i].better === "lower";
    const rising = state.dir ? state.dir === "ascending" : key === "name" || lower;
    const name = (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
    if (key === "name") visible.sort((a, b) => (rising ? 1 : -1) * name(a, b));
    else if (key === "parameters") visible.sort((a, b) => (a.parameters === null) - (b.parameters === null) || (rising ? 1 : -1) * (a.parameters - b.parameters) || name(a, b));
    else visible.sort((a, b) => (b.figures[i] ? 1 : 0) - (a.figures[i] ? 1 : 0) || (a.figures[i] && (rising ? 1 : -1) * (a.figures[i][0] - b.figures[i][0])) || name(a, b));
    rank(i, lower);
    return { key, i, rising };
  }
  // A model's best rank: one after all that are surely better; its worst: the number that are not surely worse.
  function rank(i, lower) {
    ranks = [];
    if (i < 0) return;
    const sign = lower ? -1 : 1, ends = visible.filter((m) => m.figures[i]).map((m) => { const [, a, b] = m.figures[i]; return sign > 0 ? [a, b] : [-b, -a]; });
    const lows = Float64Array.from(ends, (e) => e[0]).sort(), highs = Float64Array.from(ends, (e) => e[1]).sort();
    const above = (sorted, x) => { let a = 0, b = sorted.length; while (a < b) { const c = (a + b) >> 1; if (sorted[c] <= x) a = c + 1; else b = c; } return sorted.length - a; };
    const atLeast = (sorted, x) => { let a = 0, b = sorted.length; while (a < b) { const c = (a + b) >> 1; if (sorted[c] < x) a = c + 1; else b = c; } return sorted.length - a; };
    ranks = ends.map(([low, high]) => [1 + above(lows, high), atLeast(highs, low)]);
  }
  const rankText = (r) => (!r ? "–" : r[0] === r[1] ? `${r[0]}` : `${r[0]}–${r[1]}`);
  const printed = (value) => (value === null ? "–" : value.toFixed(Math.abs(value) < 1 && value !== 0 ? 2 : 1));
  const millions = (m) => (m.parameters === null ? "–" : (m.parameters / 1e6).toFixed(m.parameters < 1e7 ? 1 : 0));
  const facts = (m) => [m.family, m.paradigm || "training not told", m.data, m.size && `${m.size} px`].filter(Boolean).join(" · ");

  function draw() {
    choose();
    const { key, i: sorted, rising } = order();
    const groups = [];
    for (const i of columns) {
      const { source, kind } = board.columns[i];
      if (groups.length && groups.at(-1).source === source && groups.at(-1).kind === kind) groups.at(-1).span++;
      else groups.push({ source, kind, span: 1 });
    }
    const sortable = (id, label, extra = "", more = "") => `<th scope="col"${extra}><button type="button" data-sort="${escaped(id)}">${label}${more && `<span class="unseen">, ${escaped(more)}</span>`}</button></th>`;
    const head = `<tr class="group"><td colspan="4"></td>${groups.map((g) => `<th scope="colgroup" colspan="${g.span}">${g.kind === "published" ? 'Published <span class="mark" aria-hidden="true">†</span>' : "Measured"} · ${escaped(g.source)}</th>`).join("")}</tr>` +
      `<tr><th scope="col"><span class="unseen">Selected</span></th><th scope="col">Rank</th>${sortable("name", "Model")}${sortable("parameters", "Parameters, M", ' class="number" title="millions of parameters"')}${columns.map((i) => { const c = board.columns[i]; return sortable(c.key, escaped(c.label) + (c.better === "lower" && !c.label.includes("↓") ? " ↓" : ""), ` class="number" title="${escaped(c.hint)}"`, `${c.kind}: ${c.source}`); }).join("")}</tr>`;
    if (head !== drawnHead) {
      $("head").innerHTML = drawnHead = head;
      $("table").style.setProperty("--columns", columns.length); // fixed widths are laid out several times faster
      $("columns-body").innerHTML = columns.map((i) => { const c = board.columns[i]; return `<tr><th scope="row">${escaped(c.label)}</th><td>${c.kind}</td><td>${escaped(c.source)}</td><td>${c.better}</td><td>${escaped(c.hint)}</td></tr>`; }).join("");
    } // else the focus stays on its heading
    for (const button of $("head").querySelectorAll("[data-sort]")) {
      const cell = button.parentNode;
      if (button.dataset.sort === key) cell.setAttribute("aria-sort", rising ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    }
    $("body").innerHTML = visible.slice(0, shown).map((m, r) => rowText(m, r, sorted)).join("");
    $("table").setAttribute("aria-rowcount", visible.length + 2);
    $("more").hidden = visible.length <= shown;
    $("told").textContent = `${visible.length} of ${board.models.length} models${visible.length > shown ? `, the first ${shown} shown` : ""}, by ${key === "name" || key === "parameters" ? key : `${board.columns[sorted].label} (${board.columns[sorted].kind}, ${board.columns[sorted].source})`}.${state.picked.length ? ` ${state.picked.length} selected.` : ""}`;
    later();
  }
  function rowText(m, r, sorted) {
    const cells = columns.map((i) => {
      const f = m.figures[i], c = board.columns[i], mine = i === sorted ? " sorted" : "";
      if (!f) return `<td class="number missing${mine}" aria-label="no figure">–</td>`;
      const mark = c.kind === "published" ? '<span class="mark" title="published, not measured here" aria-hidden="true">†</span><span class="unseen"> published</span>' : "";
      const doubt = f[4] ? `<span class="flagged" title="${escaped(f[4].join(", "))}">⚑<span class="unseen"> flags: ${escaped(f[4].join(", "))}</span></span>` : "";
      return `<td class="number ${c.kind}${mine}"><span class="value">${printed(f[0])}</span>${mark}${doubt}${f[3] ? `<small title="95 % interval; n = ${f[3]}">${printed(f[1])}–${printed(f[2])}</small>` : ""}</td>`;
    });
    const flags = m.flags.length ? ` <a class="flagnames" href="${escaped(m.page)}" title="${escaped(m.flags.join(", "))}">⚑ <span class="unseen">flags: </span>${escaped(m.flags.join(", "))}</a>` : "";
    return `<tr aria-rowindex="${r + 3}"><td><input type="checkbox" data-key="${escaped(m.key)}"${state.picked.includes(m.key) ? " checked" : ""} aria-label="Select ${escaped(m.name)}"></td><td class="rank">${rankText(ranks[r])}</td><th scope="row"><a href="${escaped(m.page)}">${escaped(m.name)}</a>${flags}<small>${escaped(facts(m))}</small></th><td class="number quiet">${millions(m)}</td>${cells.join("")}</tr>`;
  }

  // ---- the controls
  const option = (value, text, on) => `<option value="${escaped(value)}"${on ? " selected" : ""}>${escaped(text)}</option>`;
  function controls() {
    board = boards.find((b) => b.name === state.board);
    $("board").innerHTML = boards.map((b) => option(b.name, `${b.title} (${b.models.length})`, b === board)).join("");
    for (const name of ["family", "paradigm", "data", "size"]) {
      const counts = new Map();
      for (const m of board.models) counts.set(m[name] || UNKNOWN, (counts.get(m[name] || UNKNOWN) || 0) + 1);
      const last = ([v]) => (v === UNKNOWN ? 1 : 0);
      $(name).innerHTML = option("", "all", !state[name]) + [...counts].sort((a, b) => last(a) - last(b) || a[0].localeCompare(b[0], "en", { numeric: true })).map(([v, n]) => option(v, `${v}${name === "size" && v !== UNKNOWN ? " px" : ""} (${n})`, v === state[name])).join("");
    }
    $("budget").innerHTML = option("", "all", !state.budget) + [...new Set(board.columns.map((c) => c.budget).filter(Boolean))].map((b) => option(b, b, b === state.budget)).join("");
    for (const name of ["text", "min", "max"]) $(name).value = state[name];
    const sources = new Map(board.columns.map((c) => [c.source, c.kind]));
    $("sources-shown").innerHTML = '<legend class="unseen">Sources shown</legend>' + [...sources].map(([s, k]) => `<label><input type="checkbox" data-source="${escaped(s)}"${state.hide.includes(s) ? "" : " checked"}>${escaped(s)} <span class="quiet">${k}</span></label>`).join("");
    const axes = option("parameters", "parameters, millions") + board.columns.map((c) => option(c.key, `${c.label} (${c.kind}, ${c.source})`)).join("");
    $("across").innerHTML = $("up").innerHTML = axes;
    $("plot").value = state.plot;
    if (state.plot === "own") [$("across").value, $("up").value] = [state.across || "parameters", state.up || board.sort];
    $("track").innerHTML = board.tracks.map((t, i) => option(i, t.title, String(i) === state.track)).join("");
    $("curves-box").hidden = !board.tracks.length;
  }
  const update = (change) => { Object.assign(state, change); shown = STEP; draw(); };
  $("board").addEventListener("change", (e) => { const keep = { plot: state.plot, board: e.target.value }; Object.assign(state, fresh(), keep); controls(); update({}); });
  for (const name of CHOICES) $(name).addEventListener(["text", "min", "max"].includes(name) ? "input" : "change", (e) => update({ [name]: e.target.value }));
  $("clear").addEventListener("click", () => { update({ hide: [], ...Object.fromEntries(CHOICES.map((c) => [c, ""])) }); controls(); });
  $("sources-shown").addEventListener("change", (e) => { const s = e.target.dataset.source; update({ hide: e.target.checked ? state.hide.filter((h) => h !== s) : [...state.hide, s] }); });
  $("head").addEventListener("click", (e) => {
    const button = e.target.closest("[data-sort]");
    if (!button) return;
    const key = button.dataset.sort, before = button.closest("th").getAttribute("aria-sort");
    update({ sort: key, dir: before === "descending" ? "ascending" : before === "ascending" ? "descending" : "" });
  });
  $("body").addEventListener("change", (e) => {
    const key = e.target.dataset.key;
    state.picked = e.target.checked ? [...state.picked, key] : state.picked.filter((k) => k !== key);
    $("told").textContent = `${state.picked.length} selected.`;
    later();
  });
  $("more").addEventListener("click", () => { shown += MORE; draw(); });
  addEventListener("hashchange", () => { if (location.hash.includes("=")) { readAddress(); controls(); draw(); show(); } });
  function show() { // a column far to the right that an address ranks by
    const box = $("table").parentNode, head = $("head").querySelector("[aria-sort]"), name = $("body").querySelector("th");
    if (head && name && head.offsetLeft + head.offsetWidth > box.clientWidth) box.scrollLeft = head.offsetLeft - name.offsetWidth;
  }

  // ---- downloads: every row that passes the filters, in the order shown, not only those drawn
  const heading = (c) => `${c.label} [${c.kind}: ${c.source}]`;
  const numbers = (f) => (f[3] ? f : [f[0], null, null, null]);
  const tableRows = () => visible.map((m, r) => {
    const row = { "rank from": ranks[r]?.[0], "rank to": ranks[r]?.[1], model: m.name, key: m.key, ...Object.fromEntries(FACTS.map((f) => [f, m[f]])), flags: m.flags.join(" ") };
    for (const i of columns) {
      const h = heading(board.columns[i]), f = m.figures[i];
      [row[h], row[`${h} low`], row[`${h} high`], row[`${h} n`]] = f ? numbers(f) : [];
    }
    return row;
  });
  const tree = () => visible.map((m, r) => ({
    rank: ranks[r] || null, model: m.name, key: m.key, ...Object.fromEntries(FACTS.map((f) => [f, m[f] === "" ? null : m[f]])), flags: m.flags,
    figures: columns.filter((i) => m.figures[i]).map((i) => { const c = board.columns[i], [value, low, high, n] = numbers(m.figures[i]); return { figure: c.label, kind: c.kind, source: c.source, protocol: c.hint, value, low, high, n, flags: m.figures[i][4] || [] }; }),
  }));
  const csv = () => written(tableRows()), json = () => JSON.stringify(tree(), null, 1);
  window.tables.rows = (id) => (id === "scatter" ? points().map(({ picked, ...rest }) => rest) : id === "overlay" ? curves().points : specs[id].datasets.points);
  $("csv").addEventListener("click", () => save(board.name, "csv", tableRows()));
  $("json").addEventListener("click", () => save(board.name, "json", tree()));

  // ---- figures: drawn when they come into view, and again a moment after the table has changed
  let library, timer;
  const near = new Set();
  const embed = () => library ||= new Promise((done, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: "charts.js", onload: () => done(window.vegaEmbed), onerror: failed });
    document.head.append(script);
  });
  const put = async (id, spec) => { const show = await embed(); await show($(id), themed(structuredClone(spec), $(id).clientWidth), { renderer: id === "overlay" ? "svg" : "canvas", actions: false }); $(id).dataset.drawn = Number($(id).dataset.drawn || 0) + 1; };
  function later() { clearTimeout(timer); timer = setTimeout(() => { writeAddress(); if (near.has("scatter")) scatter(); if (near.has("overlay")) overlay(); }, 200); }
  const filled = (i) => visible.reduce((n, m) => n + (i in m.figures), 0);
  const mean = (i) => visible.reduce((sum, m) => sum + (m.figures[i]?.[0] || 0), 0) / filled(i);
  const best = (role, group) => columns.filter((i) => board.columns[i].role === role && board.columns[i].group === group).sort((a, b) => filled(b) - filled(a) || mean(a) - mean(b))[0]; // of equals the severest
  const shared = (keys) => visible.reduce((n, m) => n + keys.every((k) => ends(m, k)), 0);
  function axes() { // pairs of columns, both of one source: of those that there are, the one of most models
    const pair = (one, other) => {
      const of = (role) => columns.filter((i) => board.columns[i].role === role);
      const found = of(one).flatMap((i) => of(other).filter((j) => board.columns[j].group === board.columns[i].group).map((j) => [i, j]));
      const counted = found.map((p) => ({ p: p.map((i) => board.columns[i].key), n: visible.reduce((n, m) => n + (p[0] in m.figures && p[1] in m.figures), 0), low: mean(p[0]) + mean(p[1]) }));
      return counted.filter((c) => c.n > 1).sort((a, b) => b.n - a.n || a.low - b.low)[0]?.p;
    };
    if (state.plot === "own") return [[state.across || "parameters", state.up || board.sort]];
    if (state.plot === "size") {
      const groups = [...new Set(columns.map((i) => board.columns[i].group))];
      const found = groups.map((s) => ["clean", "robust"].map((role) => best(role, s)).filter((i) => i !== undefined).map((i) => board.columns[i].key));
      const sized = found.filter((keys) => keys.length).sort((a, b) => b.length - a.length || shared(["parameters", ...b]) - shared(["parameters", ...a]));
      return (sized.find((keys) => shared(["parameters", ...keys])) || []).map((key) => ["parameters", key]);
    }
    const chosen = state.plot === "robust" ? pair("clean", "robust") : pair("robust", "natural") || pair("robust", "corruption");
    return chosen ? [chosen] : [];
  }
  function ends(m, key) {
    if (key === "parameters") return m.parameters === null ? null : Array(3).fill(m.parameters / 1e6);
    const f = m.figures[column(key)];
    return f ? (f[3] ? f : [f[0], f[0], f[0]]) : null;
  }
  const title = (key) => (key === "parameters" ? "parameters, millions" : `${board.columns[column(key)].label} (${board.columns[column(key)].kind}, ${board.columns[column(key)].source})`);
  const short = (key) => (key === "parameters" ? title(key) : `${board.columns[column(key)].label}${board.columns[column(key)].kind === "published" ? " †" : ""}`);
  const known = () => axes().filter((pair) => pair.every((k) => k === "parameters" || column(k) >= 0));
  function points() {
    const drawn = known(), found = [];
    for (const [x, y] of drawn) for (const m of visible) {
      const a = ends(m, x), b = ends(m, y);
      if (!a || !b) continue;
      const published = [x, y].some((k) => k !== "parameters" && board.columns[column(k)].kind === "published");
      const flags = [...new Set([x, y].flatMap((k) => m.figures[column(k)]?.[4] || []))].join(", ");
      found.push({ model: m.name, x: a[0], y: b[0], x_low: a[1], x_high: a[2], y_low: b[1], y_high: b[2], across: title(x), up: title(y), role: short(y), paradigm: m.paradigm || UNKNOWN, source: published ? "published" : "measured", flags, picked: state.picked.includes(m.key) });
    }
    return found;
  }
  function scatter() {
    const drawn = known(), found = points();
    if (drawn.length && state.plot !== "own") [$("across").value, $("up").value] = drawn[0];
    $("scatter-told").textContent = drawn.length ? `${drawn.map(([x, y]) => `${title(x)} against ${title(y)}`).join("; ")}: ${found.length} point${found.length === 1 ? "" : "s"}.` : "No source shown has figures of both kinds.";
    $("scatter").hidden = !found.length;
    if (!found.length) return;
    const spec = structuredClone(specs.scatter);
    spec.datasets = { points: found };
    for (const layer of spec.layer) {
      const axis = (k, keys) => Object.assign(layer.encoding[k], { title: keys.map(short).join(" / "), scale: keys[0] === "parameters" ? { type: "log" } : { zero: false } });
      axis("x", [drawn[0][0]]);
      axis("y", drawn.map((d) => d[1]));
      if (drawn.length > 1 && layer.encoding.shape) Object.assign(layer.encoding.shape, { field: "role", scale: { domain: drawn.map((d) => short(d[1])) } });
    }
    put("scatter", spec);
  }
  function curves() {
    const track = board.tracks[Number(state.track)] || board.tracks[0];
    if (!track) return { points: [] };
    const picked = visible.filter((m) => state.picked.includes(m.key) && m.key in track.points);
    const chosen = picked.length ? picked : visible.filter((m) => m.key in track.points).slice(0, SHOWN_CURVES);
    return { track, points: chosen.flatMap((m) => track.points[m.key].map(([at, place, value, low, high]) => ({ model: m.name, flags: m.flags.join(", "), at, place, value, low, high }))) };
  }
  function overlay() {
    const { track, points: found } = curves();
    $("overlay").hidden = !found.length;
    if (!found.length) return;
    const spec = structuredClone(specs.overlay), words = Object.fromEntries(track.ticks);
    spec.datasets = { points: found.map((p) => ({ ...p, label: p.model + (p.flags && " ⚑") })) };
    for (const layer of spec.layer) Object.assign(layer.encoding.x, { title: track.axis, axis: { grid: false, labelOverlap: "greedy", values: track.ticks.map((t) => t[0]), labelExpr: `(${JSON.stringify(words)})[datum.value] || ''` } });
    put("overlay", spec);
  }
  $("plot").addEventListener("change", (e) => { state.plot = e.target.value; writeAddress(); scatter(); });
  for (const name of ["across", "up"]) $(name).addEventListener("change", () => { Object.assign(state, { plot: "own", across: $("across").value, up: $("up").value }); $("plot").value = "own"; writeAddress(); scatter(); });
  $("track").addEventListener("change", (e) => { state.track = e.target.value; writeAddress(); overlay(); });
  const watch = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      if (!isIntersecting) { near.delete(target.id); continue; }
      near.add(target.id);
      if (target.id === "scatter") scatter();
      else if (target.id === "overlay") overlay();
      else if (!target.dataset.drawn) { target.dataset.drawn = 0; put(target.id, specs[target.id]); }
    }
  }, { rootMargin: "300px" });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const box of document.querySelectorAll(".standing")) if (!near.has(box.id)) delete box.dataset.drawn;
    for (const id of near) (id === "scatter" ? scatter : id === "overlay" ? overlay : () => put(id, specs[id]))();
  });

  readAddress();
  controls();
  draw();
  show();
  for (const box of document.querySelectorAll(".chart")) watch.observe(box);
  window.leaderboard = { state, csv, json };
  document.documentElement.dataset.ready = "yes";
})();
