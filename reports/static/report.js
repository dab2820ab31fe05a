// The layer page: filters, sorting, threshold, virtual list, unit view, exports. A classic script, because modules and
// fetch do not work from disk; data files call the functions of `dissect`. Text enters the page as text nodes only.
"use strict";
(() => {
  const ROOT = "../../", BARS = 240, TWIN = 100, MASKS = ["", "outline", "heat", "none"], HIDDEN = { "aria-hidden": "true" };
  const FIELDS = ["q", "category", "min", "max", "show", "mask"];
  const slot = new Map(), cols = {}, details = new Map(), segments = new Map(), waiting = new Map();
  let C, meta, have = 0, N = 0;   // C: columns of the concepts; slot: label number -> place in them
  let label, iou, area, byIou;    // over units; label is a place in C or -1, area is G
  let view = {}, rows = [], bars = [], cut = 0, at = -1, open = -1, firm = null, drawn = null;
  const $ = (id) => document.getElementById(id);

  window.dissect = {
    concepts(c) { C = c; c.number.forEach((n, i) => slot.set(n, i)); },
    layer(m) { meta = m; if (!m.count) start(); },
    columns(first, c) {
      for (const k in c) { cols[k] = cols[k] || new Array(meta.count).fill(0); c[k].forEach((v, i) => { cols[k][first + i] = v; }); }
      have += c.concept.length;
      if (have === meta.count) start();
    },
    units(first, found) { found.forEach((r, i) => details.set(first + i, r)); arrived(first); },
    segments(block, found) { segments.set(block, found); arrived("s" + block); }
  };
  function arrived(key) { const all = waiting.get(key) || []; waiting.delete(key); all.forEach((f) => f()); }
  function load(key, file, then) {
    if (waiting.has(key)) return waiting.get(key).push(then);
    waiting.set(key, [then]);
    document.head.append(el("script", { src: file }));
  }
  function detail(u, then) {
    const first = u - u % meta.chunk;
    if (!details.has(u)) load(first, `data/${pad(first)}.js`, then);
    return details.get(u);
  }

  // Elements: `text` and `on` are special, everything else is an attribute; null is left out.
  function make(e, props, kids) {
    for (const [k, v] of Object.entries(props || {})) {
      if (k === "text") e.textContent = v;
      else if (k === "on") for (const n in v) e.addEventListener(n, v[n]);
      else if (v !== null && v !== undefined) e.setAttribute(k, v);
    }
    e.append(...(kids || []).filter(Boolean));
    return e;
  }
  function made(create) { // "p.quiet" is a p of class quiet
    return (name, props, kids) => { const [tag, cls] = name.split("."), e = make(create(tag), props, kids); if (cls) e.classList.add(cls); return e; };
  }
  const el = made((tag) => document.createElement(tag)), svg = made((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  const int = (v) => { const s = String(v); return s.length > 4 ? s.replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f") : s; };
  const num = (v) => v === null || v === undefined ? "n/a" : String(+v.toPrecision(4));
  const f4 = (v) => v.toFixed(4);
  const many = (n, one) => `${int(n)} ${one}${n === 1 ? "" : "s"}`;
  const percent = (v) => { const n = Math.round(100 * v); return n === 100 && v < 1 ? "over 99 %" : n === 0 && v > 0 ? "under 1 %" : n + " %"; };
  const clip = (s) => s.length > 17 ? s.slice(0, 16) + "…" : s;
  const pad = (n) => String(n).padStart(5, "0");
  const ratio = (i, a, g) => i && a + g - i ? i / (a + g - i) : 0;
  const nameOf = (s) => s < 0 ? "no label" : C.shown[s];
  const hue = (s) => "h" + (s < 0 ? 6 : meta.hues[C.category[s]]);
  const isField = (node) => /^(INPUT|SELECT|TEXTAREA)$/.test(node.tagName);
  const given = (c, u) => cols[c] && cols[c][u] !== null;
  const passes = (u) => label[u] >= 0 && iou[u] > cut;
  const flagged = (u) => ["dead", "saturated", "not finite"].filter((_, b) => cols.flags[u] >> b & 1).join(", ");

  function start() {
    N = meta.count;
    label = new Int32Array(N); iou = new Float64Array(N); area = new Float64Array(N);
    for (let u = 0; u < N; u++) {
      const s = label[u] = cols.concept[u] < 0 ? -1 : slot.get(cols.concept[u]);
      area[u] = s < 0 ? 0 : C.area[s];
      iou[u] = cols.iou ? cols.iou[u] : s < 0 ? 0 : ratio(cols.intersection[u], cols.area[u], area[u]);
    }
    if (cols.q) firm = (u) => cols.q[u] !== null && cols.q[u] < 0.05;
    else if (cols.low) firm = (u) => cols.low[u] !== null && cols.low[u] > cut;
    byIou = sorted(iou, -1);
    if (cols.stability) KEYS.stability = ["stability", () => sorted(cols.stability, -1), 1];
    if (cols.q) KEYS.q = ["q", () => sorted(cols.q, 1)];
    build();
    read(location.hash);
    addEventListener("hashchange", (e) => read(new URL(e.newURL).hash)); // the address itself may be another by now
  }

  // ---- orders
  function sorted(values, way) { // stable; native sort of the numbers, then every unit goes to its place among them
    const v = Float64Array.from(values, (x) => x === null ? Infinity : way * x), all = v.slice().sort(), used = new Uint32Array(N), order = new Uint32Array(N);
    v.forEach((x, u) => {
      let lo = 0, hi = N;
      while (lo < hi) { const m = (lo + hi) >> 1; if (all[m] < x) lo = m + 1; else hi = m; }
      order[lo + used[lo]++] = u;
    });
    return order;
  }
  function above(c) { // units over a cut, by bisection of the sorted scores
    let lo = 0, hi = N;
    while (lo < hi) { const m = (lo + hi) >> 1; if (iou[byIou[m]] > c) lo = m + 1; else hi = m; }
    return lo;
  }
  function tally() { // labels of the detectors as published: by category, number of units, best score
    const units = new Int32Array(C.number.length), best = new Float64Array(units.length), sure = new Int32Array(units.length), out = [];
    for (let k = 0, n = above(cut); k < n; k++) {
      const u = byIou[k], s = label[u];
      if (s < 0) continue;
      units[s]++;
      best[s] = Math.max(best[s], iou[u]);
      if (firm && firm(u)) sure[s]++;
    }
    units.forEach((n, s) => { if (n) out.push({ s, units: n, best: best[s], sure: sure[s], rank: meta.categories.indexOf(C.category[s]) }); });
    return out.sort((a, b) => a.rank - b.rank || b.units - a.units || b.best - a.best || C.number[a.s] - C.number[b.s]);
  }
  function published() {
    const place = new Int32Array(C.number.length), starts = new Int32Array(bars.length + 2), out = new Uint32Array(N);
    bars.forEach((b, i) => { place[b.s] = i; });
    const group = (u) => passes(u) ? place[label[u]] : bars.length;
    for (let u = 0; u < N; u++) starts[group(u) + 1]++;
    for (let i = 1; i < starts.length; i++) starts[i] += starts[i - 1];
    for (let k = 0; k < N; k++) out[starts[group(byIou[k])]++] = byIou[k];
    return out;
  }
  function byText(of) {
    const place = new Map([...new Set(C.number.map((_, s) => of(s)))].sort((a, b) => a < b ? -1 : 1).map((t, i) => [t, i]));
    return sorted(Array.from(label, (s) => s < 0 ? Infinity : place.get(of(s))), 1);
  }
  const KEYS = { // name of the column, its order, and whether that order descends
    "": ["as published", published], unit: ["unit", () => Uint32Array.from({ length: N }, (_, i) => i)],
    label: ["label", () => byText((s) => C.shown[s])], category: ["category", () => byText((s) => C.category[s])],
    iou: ["IoU", () => byIou, 1], intersection: ["I", () => sorted(cols.intersection, -1), 1],
    area: ["A", () => sorted(cols.area, -1), 1], concept_area: ["G", () => sorted(area, -1), 1],
    threshold: ["T", () => sorted(cols.threshold, -1), 1]
  };
  const orders = new Map();
  function ordered() {
    const key = view.sort.replace("-", "");
    if (!orders.has(key)) orders.set(key, KEYS[key][1]());
    return view.sort[0] === "-" ? Uint32Array.from(orders.get(key)).reverse() : orders.get(key);
  }

  // ---- the view: all that the address keeps
  function read(hash) {
    const p = new URLSearchParams(hash.slice(1)), u = p.get("unit"), c = p.get("cut");
    view = { sort: p.get("sort") || "", concept: p.get("concept") || "", seg: view.seg };
    if (!KEYS[view.sort.replace("-", "")]) view.sort = "";
    if (!slot.has(+view.concept)) view.concept = "";
    FIELDS.forEach((f) => { $(f).value = p.get(f) || ""; view[f] = $(f).value; });
    cut = c === null || !isFinite(c) ? meta.cut : +c;
    $("cut").value = cut;
    apply();
    if (u !== null && /^\d+$/.test(u) && +u < N) show(+u); else if ($("unit").open) $("unit").close();
  }
  function address(unit) {
    const p = new URLSearchParams();
    [...FIELDS, "concept", "sort"].forEach((f) => { if (view[f]) p.set(f, view[f]); });
    if (cut !== meta.cut) p.set("cut", cut);
    if (unit >= 0) p.set("unit", unit);
    return String(p) ? "#" + p : "";
  }
  let timer = 0;
  function write() { // not on every movement of the slider: browsers limit how often
    clearTimeout(timer);
    timer = setTimeout(() => history.replaceState(null, "", address(open) || location.pathname + location.search), 80);
  }
  function apply() {
    const t0 = performance.now(), now = `${cut} ${view.concept}`, fresh = now !== drawn;
    if (fresh) { bars = tally(); orders.delete(""); drawn = now; }
    const order = ordered(), out = new Int32Array(N), q = view.q.trim().toLowerCase(), exact = /^\d+$/.test(q) ? +q : -1;
    const hit = q ? C.shown.map((s, i) => s.toLowerCase().includes(q) || C.name[i].toLowerCase().includes(q)) : null;
    const only = view.concept ? slot.get(+view.concept) : null, cat = view.category, show = view.show;
    const min = view.min === "" ? -1 : +view.min, max = view.max === "" ? 2 : +view.max;
    let n = 0, chosen = 0, solid = 0;
    for (let k = 0; k < N; k++) {
      const u = order[k], s = label[u];
      if (only !== null && s !== only || cat && (s < 0 || C.category[s] !== cat) || iou[u] < min || iou[u] > max) continue;
      if (hit && u !== exact && (s < 0 || !hit[s])) continue;
      if (show && (show === "detectors" ? !passes(u) : show === "rest" ? passes(u) : show === "firm" ? !passes(u) || !firm(u) : show === "odd" ? !cols.flags[u] : cols.flags[u])) continue;
      out[n++] = u;
    }
    rows = out.subarray(0, n);
    bars.forEach((b) => { chosen += b.units; solid += b.sure; });
    const sure = firm ? `, ${int(solid)} of them ${cols.q ? "at q\u00a0<\u00a00.05" : "with the whole 95 % interval above it"}` : "";
    $("cut-value").textContent = num(cut);
    $("sentence").textContent = `${int(chosen)} of ${int(N)} ${chosen === 1 ? "unit is a detector" : "units are detectors"} of ${many(bars.length, "distinct concept")} at IoU > ${num(cut)}${sure}.`;
    $("status").textContent = n === N ? "All " + many(N, "unit") : `${int(n)} of ${many(N, "unit")}`;
    $("concept").hidden = only === null;
    if (only !== null) $("concept").textContent = nameOf(only) + " ×";
    for (const h of $("heads").children) {
      const key = h.dataset.key, mine = view.sort.replace("-", "") === key;
      h.setAttribute("aria-sort", !mine || !key ? "none" : !KEYS[key][2] === (view.sort[0] !== "-") ? "ascending" : "descending");
      h.classList.toggle("on", mine);
    }
    if (fresh) draw();
    at = -1;
    fill(true);
    write();
    window.dissect.took = performance.now() - t0;
  }

  // ---- the figure; the same layout as in charts.py
  function draw() {
    const tall = new Set([...bars].sort((a, b) => b.units - a.units || b.best - a.best).slice(0, BARS));
    const box = $("bars"), width = Math.max(box.clientWidth, 280), some = bars.filter((b) => tall.has(b));
    if ($("twin").open) twin();
    if (!some.length) return box.replaceChildren(el("p.quiet", { text: "No unit is above this cut." }));
    const labels = some.map((b) => clip(nameOf(b.s))), totals = {}, kids = [];
    bars.forEach((b) => { const c = C.category[b.s]; totals[c] = (totals[c] || 0) + 1; });
    const top = Math.max(...some.map((b) => b.units)), foot = 16 + Math.round(4.1 * Math.max(...labels.map((s) => s.length))), high = 126 + foot;
    const pitch = Math.min(Math.max(Math.floor((width - 60 - 30 * Object.keys(totals).length) / some.length), 15), 24);
    let row = -1, x = width, i = 0, last = null;
    while (i < some.length) {
      const cat = C.category[some[i].s], caption = cat === last ? cat : `${cat} ${totals[cat]}`, wide = Math.round(6.3 * caption.length) + 6;
      const rest = some.slice(i).filter((b) => C.category[b.s] === cat).length * pitch;
      if (x + Math.max(wide, rest < width - 80 ? rest : pitch) > width) { row++; x = Math.max(6, ...labels.slice(i, i + 6).map((s, k) => Math.round(4.1 * s.length - (k + 0.5) * pitch) + 4)); }
      const begin = x, y = row * high, h = "h" + meta.hues[cat], links = [];
      for (; i < some.length && C.category[some[i].s] === cat && x + pitch <= width; i++, x += pitch) links.push(bar(some[i], labels[i], x, y, top, pitch, foot));
      x = Math.max(x, begin + wide);
      kids.push(svg("rect", { class: "band " + h, x: begin - 4, y: y + 2, width: x - begin + 4, height: 126 }), svg("text", { class: "caption " + h, x: begin, y: y + 14, text: caption }), ...links);
      x += 14;
      last = cat;
    }
    const held = (document.activeElement.dataset || {}).s, height = (row + 1) * high;
    box.replaceChildren(svg("svg.bars", { viewBox: `0 0 ${width } ${height}`, width, height, role: "group", "aria-label": "Labels of the detectors" }, kids));
    const again = held && box.querySelector(`[data-s="${held}"]`);
    if (again) again.focus();
  }
  function bar(b, text, x, y, top, pitch, foot) {
    const tall = Math.max(b.units / top * 92, 1), sure = firm ? tall * b.sure / b.units : tall, on = +view.concept === C.number[b.s] && view.concept;
    const rect = (cls, from, height) => svg("rect", { class: `bar ${cls}${hue(b.s)}`, x, y: y + 126 - from, width: pitch - 4, height });
    const told = `${nameOf(b.s)}, ${C.category[b.s]}: ${many(b.units, "unit")}${firm ? `, ${b.sure} of them ${cols.q ? "at q < 0.05" : "with the whole interval above the cut"}` : ""}, best IoU ${f4(b.best)}`;
    return svg("a", { href: `${ROOT}concepts/${C.number[b.s]}.html`, "data-s": C.number[b.s], class: on ? "on" : null, "aria-current": on ? "true" : null }, [
      svg("title", { text: told }), svg("rect.hit", { x: x - 2, y: y + 20, width: pitch, height: 104 + foot }),
      sure < tall && rect("pale ", tall, tall), rect("", sure, sure),
      svg("text.label", { transform: `translate(${x + pitch / 2 + 2 } ${y + 138}) rotate(-45)`, text }), " ",
      svg("text.count", { x: x + pitch / 2 - 2, y: y + 123 - tall, text: b.units })]);
  }
  const td = (text, n) => el("td", { class: n ? "n" : null, text });
  function twin() {
    $("twin-rows").replaceChildren(...bars.slice(0, TWIN).map((b) => el("tr", {}, [
      el("th", { scope: "row" }, [el("a", { href: "#concept=" + C.number[b.s], text: nameOf(b.s) })]), td(C.category[b.s]), td(b.units, 1), td(f4(b.best), 1)])));
  }
  function curve() {
    let d = "M0 44";
    for (let k = 0; k <= 200; k++) d += `L${k * 2} ${(44 - 42 * above($("cut").max * k / 200) / N).toFixed(1)}`;
    $("curve").firstElementChild.setAttribute("d", d + "L400 44Z");
  }

  // ---- the list: only rows in sight are in the document
  let height = 130;
  const pool = new Map();
  const measure = () => { height = parseInt(getComputedStyle($("list")).getPropertyValue("--row"), 10); };
  function fill(fresh) {
    const box = $("rows");
    if (fresh) { box.replaceChildren(); pool.clear(); box.style.height = rows.length * height + "px"; $("list").setAttribute("aria-rowcount", rows.length + 1); }
    const top = -box.getBoundingClientRect().top, first = Math.max(Math.floor(top / height) - 4, 0);
    const last = Math.min(Math.ceil((top + innerHeight) / height) + 4, rows.length);
    pool.forEach((node, k) => { if ((k < first || k >= last) && !node.contains(document.activeElement)) { node.remove(); pool.delete(k); } });
    for (let k = first; k < last; k++) if (!pool.has(k)) { const node = card(k); pool.set(k, node); box.append(node); }
  }
  function card(k) {
    const u = rows[k], s = label[u], odd = flagged(u), cell = (cls, ...kids) => el("div", { role: "cell", class: cls }, kids), pics = cell("pics");
    const node = el("div", { role: "row", class: `row ${hue(s)}${passes(u) ? "" : " below"}`, "aria-rowindex": k + 2, "data-k": k }, [
      cell("who", el("a", { href: "#unit=" + u, tabindex: k === Math.max(at, 0) ? 0 : -1, "data-unit": u }, [el("span.u", { text: u }), " ", el("bdi.name", { text: nameOf(s) })])),
      cell("what", s < 0 ? odd || "no concept meets its mask" : C.category[s] + (odd && ", " + odd)),
      cell("score", "IoU " + f4(iou[u]), gauge(u)),
      cell("ints", (s < 0 ? "" : `I ${int(cols.intersection[u])} · A ${int(cols.area[u])} · G ${int(area[u])} · `) + "T " + num(cols.threshold[u])), pics]);
    node.style.transform = `translateY(${k * height}px)`;
    if (detail(u, () => { if (node.isConnected) strip(pics, u); })) strip(pics, u);
    return node;
  }
  const scale = () => Math.max(N ? iou[byIou[0]] : 0, 0.05) * 1.02;
  function gauge(u) {
    const w = 160 / scale(), X = (v) => Math.min(v * w, 160);
    return svg("svg.gauge", { viewBox: "0 0 160 12", width: 160, height: 12, ...HIDDEN }, [
      svg("rect.track", { y: 3, width: 160, height: 6 }), svg("rect", { class: "bar " + hue(label[u]), y: 3, width: X(iou[u]), height: 6 }),
      given("null", u) && svg("rect.null", { y: 4.5, width: X(cols.null[u]), height: 3 }),
      given("low", u) && svg("path.whisker", { d: `M${X(cols.low[u]) } 2V10M${X(cols.low[u])} 6H${X(cols.high[u])}M${X(cols.high[u])} 2V10` }),
      svg("path.at", { d: `M${X(cut) } 0V12` })]);
  }
  function near(u, { b: [, other] }) { // the second concept lies inside the interval of the label
    return other && given("low", u) && ratio(other[1], other[2], C.area[slot.get(other[0])]) >= cols.low[u];
  }
  function picture(u, alt) {
    const first = u - u % meta.rows, last = Math.min(first + meta.rows, N) - 1;
    return el("img", { loading: "lazy", width: meta.thumbs * meta.px, height: meta.rows * meta.px, src: `img/${pad(first)}${meta.rows > 1 ? "-" + pad(last) : ""}.jpg`, alt });
  }
  function strip(box, u) {
    const r = details.get(u), what = box.parentNode.children[1];
    if (near(u, r)) what.textContent = C.category[label[u]] + ", near tie with " + nameOf(slot.get(r.b[1][0]));
    const made = (r.m || []).slice(0, 1).map(([src, alt]) => el("img.made", { loading: "lazy", src, alt, width: meta.px, height: meta.px }));
    if (!r.k) return box.replaceChildren(el("p.absent", { text: r.e.length ? "The images are not at hand." : "No top images." }), ...made);
    const img = picture(u, `Unit ${u}, ${nameOf(label[u])}, IoU ${iou[u].toFixed(2)}: top images`);
    box.replaceChildren(el("div", { class: `strip y${u % meta.rows * 32 / meta.rows}` }, [img, ...cover(r.e.slice(0, meta.thumbs))]), ...made);
  }
  // What lies over pictures: the dimmed outside of the mask, its outline, or the activation map.
  function cover(list) {
    const w = 256 * list.length, d = list.map((e, k) => e[5].replace(/M(\d+)/g, (_, x) => "M" + (+x + 256 * k))).join("");
    if (view.mask === "none") return [];
    if (view.mask === "heat") return list.map((e, k) => { const c = heat(e[6]); if (c) c.style.left = k * meta.px + "px"; return c; }).filter(Boolean);
    return [svg("svg", { viewBox: `0 0 ${w} 256`, width: list.length * meta.px, height: meta.px, preserveAspectRatio: "none", ...HIDDEN }, [
      svg("path", view.mask ? { class: "outline", d } : { class: "veil", d: `M0 0H${w}V256H0Z${d}` })])];
  }
  function heat(map) { // dark violet, orange, pale yellow: lightness grows with the activation
    if (!map) return null;
    const [height, width, text] = map, c = el("canvas", { height, width, class: "heat", ...HIDDEN }), g = c.getContext("2d"), d = g.createImageData(width, height);
    [...atob(text)].forEach((b, i) => {
      const v = b.charCodeAt(0) / 255;
      d.data.set([400 * v, 380 * v - 125, 110 - 90 * v, v && 70 + 150 * v], 4 * i);
    });
    g.putImageData(d, 0, 0);
    return c;
  }

  // ---- one unit
  function show(u) {
    const box = $("unit"), same = open === u && box.open;
    open = u;
    const r = detail(u, () => { if (open === u) show(u); });
    if (!r) return;
    const s = label[u], k = rows.indexOf(u), i = cols.intersection[u], a = cols.area[u], g = area[u];
    const button = (text, word, off, click) => el("button", { type: "button", "aria-label": word, text, disabled: off ? "" : null, on: { click } });
    const parts = [el("header", {}, [el("p.kicker", { text: `${meta.layer }, unit ${u}` }), el("h2", { id: "unit-title", dir: "auto", tabindex: -1, autofocus: "", text: nameOf(s) }),
      el("nav", { "aria-label": "Units" }, [button("←", "Previous unit", k < 1, () => step(-1)), button("→", "Next unit", k < 0 || k > rows.length - 2, () => step(1)), button("Close", null, false, () => box.close())])])];
    if (flagged(u)) parts.push(el("p.note", { text: `This unit is ${flagged(u) }.` }));
    if (s >= 0) {
      parts.push(el("p.lead", {}, [`${C.category[s]}, IoU ${f4(iou[u])}, ${passes(u) ? "above" : "not above"} the cut of ${num(cut)}. `,
        el("a", { href: "#concept=" + C.number[s], text: "All units with this label" }), "."]));
      if (given("low", u)) parts.push(el("p", { text: `95 % interval ${f4(cols.low[u])} to ${f4(cols.high[u])}.${near(u, r) ? " Near tie: the second concept lies inside it." : ""}` }));
      if (given("stability", u)) parts.push(el("p", { text: `With the images drawn anew, this label stays the best in ${percent(cols.stability[u])} of the draws.` }));
      if (given("q", u) && !given("null", u)) parts.push(el("p", { text: `Against the baseline: ${given("p", u) ? `p = ${num(cols.p[u])}, ` : ""}q = ${num(cols.q[u])}.` }));
      if (given("null", u)) parts.push(el("p", { text: `By chance: IoU ${f4(cols.null[u])}${given("q", u) ? "; q = " + num(cols.q[u]) : ""}.` }));
    }
    parts.push(gallery(u, r));
    if (r.m) parts.push(el("section", {}, [el("h3", { text: "Synthesised for this unit" }), el("div.mades", {}, r.m.map(([src, alt, note, width, height]) => el("figure.made", {}, [el("img", { loading: "lazy", src, alt, width, height }), el("figcaption", { text: alt }, [el("span.quiet", { text: note })])])))]));
    if (s >= 0) parts.push(el("section", {}, [el("h3", { text: "Why this label" }),
      el("p.equation", { text: `IoU = I / (A + G − I) = ${int(i) } / (${int(a)} + ${int(g)} − ${int(i)}) = ${f4(iou[u])}` }), overlap(i, a, g, s),
      el("p", { text: `Precision ${percent(shares(u)[0])}, recall ${percent(shares(u)[1])}${given("phi", u) ? ", correlation over pixels " + cols.phi[u].toFixed(3) : ""}${given("ap", u) ? ", average precision over images " + cols.ap[u].toFixed(3) : ""}.` }),
      el("p.quiet", { text: `A counts only images with ${C.category[s]} labels. T = ${num(cols.threshold[u])}; ${many(meta.images, "image")}.` })]));
    parts.push(el("div.two", {}, [table("Best concepts", r.b), table("Best of each category", r.c)]), r.h ? histogram(r.h, cols.threshold[u]) : "",
      el("p.links", {}, [el("a", { href: "#unit=" + u, text: "link to this unit" }), " · ", el("a", { href: `plain-${Math.floor(u / 200)}.html#unit-${u}`, text: "plain page" })]));
    const held = document.activeElement.id, top = same ? box.scrollTop : 0;
    box.replaceChildren(...parts);
    if (!box.open) box.showModal();
    box.scrollTop = top;
    if (held && box.contains($(held))) $(held).focus();
    write();
  }
  function table(title, found) {
    return found.length ? el("div.scroll", { tabindex: 0, role: "region", "aria-label": title }, [el("table", {}, [el("caption", { text: title }),
      el("thead", {}, [el("tr", {}, ["Concept", "Category", "IoU", "I", "A", "G"].map((text, k) => el("th", { scope: "col", class: k > 1 ? "n" : null, text })))]),
      el("tbody", {}, found.map(([n, i, a]) => {
        const s = slot.get(n), g = C.area[s];
        return el("tr", {}, [el("th", { scope: "row", dir: "auto", text: nameOf(s) }), td(C.category[s]), ...[f4(ratio(i, a, g)), int(i), int(a), int(g)].map((t) => td(t, 1))]);
      }))])]) : "";
  }
  function overlap(i, a, g, s) { // mask and concept as two bars that share what they share
    const w = 600 / (a + g - i), x = (a - i) * w;
    return svg("svg.overlap", { viewBox: "0 0 600 54", role: "img", "aria-label": `Mask only ${int(a - i) }, both ${int(i)}, concept only ${int(g - i)} pixels` }, [
      svg("text", { y: 10, text: "mask A" }), svg("rect.mask", { y: 14, width: a * w, height: 12 }),
      svg("rect", { class: "bar " + hue(s), x, y: 28, width: 600 - x, height: 12 }), svg("text.right", { x: 600, y: 52, text: "concept G" }),
      svg("path.at", { d: `M${x } 12V42M${a * w} 12V42` })]);
  }
  function histogram([edges, counts], t) { // the bins are as they were counted, four an octave: an axis of equal ratios
    const n = counts.length, top = Math.max(...counts.map(Math.log1p)) || 1, w = 580 / n, last = edges[n];
    const X = (v) => { const k = Math.max(edges.findIndex((e) => e > v), 1); return v >= last ? 590 : 10 + w * (k - 1 + Math.max((v - edges[k - 1]) / (edges[k] - edges[k - 1]), 0)); };
    const mark = (x, text, cls, y = 108) => svg("text", { x, y, text, class: cls }), step = Math.max(Math.ceil(n / 8), 1), ticks = edges.map((e, k) => k).filter((k) => k % step === 0 && n - k >= step || k === n);
    const range = (k) => `${num(edges[k])} to ${num(edges[k + 1])}`;
    return el("section", {}, [el("h3", { text: "Activations" }), svg("svg.overlap", { class: "hist", viewBox: "0 0 600 112", role: "img", "aria-label": `Histogram of the activations, logarithmic counts, threshold at ${num(t) }; the table below has the numbers` }, [
      ...counts.map((c, k) => svg("rect", { class: "bar " + (t !== null && edges[k] >= t ? "over" : "h6"), x: 10 + w * k, y: 92 - 78 * Math.log1p(c) / top, width: Math.max(w - 1, 0.5), height: 78 * Math.log1p(c) / top }, [svg("title", { text: `${range(k)}: ${int(c)}` })])),
      svg("path.axis", { d: "M10 92.5H590" }), ...ticks.map((k) => mark(10 + w * k, num(edges[k]), "mid")),
      t !== null && svg("path.at", { d: `M${X(t) } 4V92` }), t !== null && mark(X(t) + (X(t) > 520 ? -4 : 4), "T " + num(t), X(t) > 520 ? "right" : null, 12)]),
      el("p.quiet", { text: "Bins are a quarter of an octave wide, heights logarithmic; what is close to zero shares one bin." }),
      el("details", {}, [el("summary", { text: "Table of this figure" }), el("table", {}, [el("thead", {}, [el("tr", {}, [el("th", { scope: "col", text: "Activation" }), el("th.n", { scope: "col", text: "Count" })])]), el("tbody", {}, counts.map((c, k) => el("tr", {}, [el("th", { scope: "row", text: range(k) }), td(int(c), 1)])))])])]);
  }
  function gallery(u, r) {
    if (!r.e.length) return el("p.absent", { text: "No top images." });
    const gone = r.k ? r.e.slice(0, r.k).filter((e) => e[7]).length : 0;
    const items = r.e.map((e, k) => {
      const frame = el("div.frame", {}), item = el("li", {}, [frame, el("p.where", { dir: "auto", text: e[1] }), el("p.quiet", { text: `image ${e[0] }, ${num(e[2])} at row ${e[3]}, column ${e[4]}` })]);
      if (k >= r.k || e[7]) { frame.append(el("p.absent", { text: r.k && e[7] ? "missing" : "no picture" })); return item; }
      const img = picture(u, `Top image ${k + 1} of unit ${u}: ${e[1]}`);
      img.style.width = meta.thumbs * 100 + "%";
      img.style.transform = `translate(${-100 * k / meta.thumbs}%,${-100 * (u % meta.rows) / meta.rows}%)`;
      frame.append(img, ...cover([e]));
      if (view.seg) overlay(frame, e, u);
      return item;
    });
    return el("section", {}, [el("h3", { text: "Top images" }), el("p.tools", {}, [
      el("select", { id: "style", "aria-label": "Mask style", on: { change: (e) => setMask(e.target.value) } }, [...$("mask").options].map((o) => el("option", { value: o.value, text: o.text, selected: o.value === view.mask ? "" : null }))),
      el("button", { id: "seg", type: "button", "aria-pressed": String(!!view.seg), text: "Segmentation", on: { click: toggle } }),
      el("span.quiet", { id: "under", role: "status", text: gone ? many(gone, "picture") + " missing" : view.seg ? "Point at a picture to read its labels" : "" })]), el("ol.gallery", {}, items)]);
  }
  function toggle() { view.seg = !view.seg; show(open); }
  function overlay(frame, e, u) {
    const block = Math.floor(e[0] / 64), S = 56;
    if (!segments.has(block)) return load("s" + block, `${ROOT}segments/${block}.js`, () => { if (frame.isConnected) overlay(frame, e, u); });
    const [scalars, packed] = segments.get(block)[e[0]] || [[], []], names = (list) => [...new Set(list)].map((n) => slot.has(n) ? nameOf(slot.get(n)) : "label " + n).join(", ");
    const planes = packed.map(([h, w, ...runs]) => {
      const flat = new Int32Array(h * w);
      for (let j = 0, k = 0; j < runs.length; k += runs[j + 1], j += 2) flat.fill(runs[j], k, k + runs[j + 1]);
      return (y, x) => flat[Math.min(Math.floor(y * h), h - 1) * w + Math.min(Math.floor(x * w), w - 1)];
    });
    const c = el("canvas", { width: S, height: S, class: "heat", ...HIDDEN }), g = c.getContext("2d"), all = new Set(scalars);
    const paint = (which) => { // the concept asked for strongly, the rest of the scene faintly
      const d = g.createImageData(S, S);
      for (let k = 0; k < S * S; k++) {
        const here = planes.map((p) => p(Math.floor(k / S) / S, k % S / S)).filter(Boolean), on = here.find((v) => which.includes(v));
        const v = on || here.find((n) => !slot.has(n) || C.category[slot.get(n)] !== "color"), turn = v * 0.61803 % 1;
        if (v) all.add(v) && d.data.set([...[0, 2 / 3, 1 / 3].map((t) => 255 * (Math.abs((turn + t) % 1 * 6 - 3) - 1)), on ? 170 : 60], 4 * k);
      }
      g.putImageData(d, 0, 0);
    };
    const mine = label[u] < 0 ? [] : [C.number[label[u]]];
    paint(mine);
    frame.firstChild.after(c);
    frame.parentNode.append(el("p.quiet", { text: "Labels: " + (names([...all]) || "none") }));
    frame.addEventListener("pointermove", (ev) => {
      const b = frame.getBoundingClientRect(), here = planes.map((p) => p((ev.clientY - b.top) / b.height, (ev.clientX - b.left) / b.width)).filter((v) => v > 0);
      $("under").textContent = names([...here, ...scalars]) || "no label here";
      paint(here.length ? here : mine);
    });
  }

  // ---- keys, controls, exports
  function step(by) {
    if (!$("unit").open) return focus(Math.max(0, Math.min(rows.length - 1, (at < 0 && by > 0 ? -1 : at) + by)));
    const k = rows.indexOf(open) + by;
    if (k >= 0 && k < rows.length) { at = k; show(rows[k]); }
  }
  function focus(k) {
    if (!rows.length) return;
    const old = pool.get(at), top = $("rows").getBoundingClientRect().top + k * height;
    at = k;
    if (top < 60) scrollBy(0, top - 60); else if (top + height > innerHeight) scrollBy(0, top + height - innerHeight + 10);
    fill(false);
    if (old) old.querySelector("a").tabIndex = -1;
    const link = pool.get(k).querySelector("a");
    link.tabIndex = 0;
    link.focus({ preventScroll: true });
  }
  function setMask(m) {
    $("mask").value = view.mask = m;
    pool.forEach((node, k) => { if (details.has(rows[k])) strip(node.lastChild, rows[k]); });
    if (open >= 0) show(open); else write();
  }
  const NAMES = "run,run_name,layer,unit,concept,category,iou,intersection,unit_area,concept_area,threshold,rank,dead,saturated,nonfinite,iou_low,iou_high,stability,p_value,q_value,iou_null,precision,recall,f1,phi,iqr,ap".split(",");
  const shares = (u) => { // precision, recall, F1
    const i = cols.intersection[u], a = cols.area[u], g = area[u];
    return [a ? i / a : 0, g ? i / g : 0, a + g ? 2 * i / (a + g) : 0];
  };
  const listed = () => Array.from(rows, (u) => { // as `dissect query units` gives it
    const s = label[u], f = cols.flags[u], name = meta.run === meta.id ? null : meta.run;
    return [meta.id, name, meta.layer, u, s < 0 ? null : C.name[s], s < 0 ? null : C.category[s], iou[u], cols.intersection[u], cols.area[u], area[u], cols.threshold[u], 1, f & 1, f >> 1 & 1, cols.nonfinite ? +(cols.nonfinite[u] > 0) : 0, ...["low", "high", "stability", "p", "q", "null"].map((c) => given(c, u) ? cols[c][u] : null), ...shares(u), ...["phi", "iqr", "ap"].map((c) => given(c, u) ? cols[c][u] : null)];
  });
  function csv() {
    const quote = (v) => v === null ? "" : /[",\r\n]/.test(v) ? `"${String(v).replace(/"/g, '""')}"` : v;
    return [NAMES, ...listed()].map((r) => r.map(quote).join() + "\r\n").join("");
  }
  const objects = () => JSON.stringify(listed().map((r) => Object.fromEntries(r.map((v, k) => [NAMES[k], v]))), null, 1) + "\n";
  function drawing() { // the figure as a file of its own, with the colours that it has here
    const from = $("bars").querySelector("svg"), copy = from.cloneNode(true), style = [...from.querySelectorAll("*")].map((e) => getComputedStyle(e));
    copy.querySelectorAll("*").forEach((e, k) => {
      ["fill", "font-family", "font-size", "text-anchor", "opacity"].forEach((p) => e.setAttribute(p, style[k].getPropertyValue(p)));
      e.removeAttribute("href");
    });
    return new XMLSerializer().serializeToString(copy) + "\n";
  }
  function painted(then) { // the drawing at twice its size, on the paper of the page
    const from = link([drawing()], "image/svg+xml"), image = el("img", { on: { load() {
      const c = el("canvas", { width: 2 * image.width, height: 2 * image.height }), g = c.getContext("2d");
      g.fillStyle = getComputedStyle(document.body).backgroundColor;
      g.fillRect(0, 0, c.width, c.height);
      g.drawImage(image, 0, 0, c.width, c.height);
      c.toBlob(then);
    } }, src: from });
  }
  function link(parts, type) { const url = URL.createObjectURL(new Blob(parts, { type })); setTimeout(() => URL.revokeObjectURL(url), 5000); return url; }
  const FILES = { csv: ["text/csv", csv], json: ["application/json", objects], svg: ["image/svg+xml", drawing], png: ["image/png"] };
  function save(kind) {
    const [type, make] = FILES[kind], put = (content) => el("a", { href: link([content], type), download: `${meta.run}-${meta.layer}.${kind}` }).click();
    if (make) put(make()); else painted(put);
  }
  function build() {
    document.querySelectorAll(".live").forEach((e) => { e.hidden = false; });
    measure();
    $("category").append(...meta.categories.map((c) => el("option", { value: c, text: c })));
    $("heads").append(...Object.entries(KEYS).map(([key, [text]]) => el("div", { role: "columnheader", "data-key": key }, [el("button", { type: "button", text, on: { click: () => {
      view.sort = view.sort === key && key ? "-" + key : key;
      apply();
    } } })])));
    if (firm) $("show").append(el("option", { value: "firm", text: cols.q ? "detectors at q < 0.05" : "detectors, whole interval" }));
    $("cut").max = Math.max(Math.ceil(scale() * 20) / 20, meta.cut * 2);
    curve();
    let frame = 0;
    const soon = (f) => { cancelAnimationFrame(frame); frame = requestAnimationFrame(f); };
    const on = (id, kind, f) => { if ($(id)) $(id).addEventListener(kind, f); };
    on("cut", "input", () => soon(() => { cut = +$("cut").value; apply(); }));
    on("uncut", "click", () => { $("cut").value = cut = meta.cut; apply(); });
    FIELDS.forEach((f) => on(f, "input", () => soon(() => { view[f] = $(f).value; if (f === "mask") setMask(view.mask); else apply(); })));
    on("concept", "click", () => { view.concept = ""; apply(); });
    on("controls", "submit", (e) => e.preventDefault());
    on("controls", "reset", (e) => { e.preventDefault(); FIELDS.forEach((f) => { $(f).value = view[f] = ""; }); view.sort = view.concept = ""; apply(); });
    on("layer", "change", (e) => { location.href = e.target.value + address(-1); });
    on("bars", "click", (e) => {
      const a = e.target.closest("a[data-s]");
      if (!a || e.ctrlKey || e.metaKey || e.shiftKey) return;
      e.preventDefault();
      view.concept = view.concept === a.dataset.s ? "" : a.dataset.s;
      apply();
    });
    on("twin", "toggle", () => { if ($("twin").open) twin(); });
    on("rows", "click", (e) => {
      const a = e.target.closest("a"), node = e.target.closest(".row");
      if (e.ctrlKey || e.metaKey || e.shiftKey || !node || !a && !e.target.closest(".pics")) return;
      e.preventDefault();
      at = +node.dataset.k;
      show(rows[at]);
    });
    on("unit", "close", () => { // told a moment later: a field that was gone to meanwhile keeps the focus
      const node = pool.get(at);
      open = -1;
      write();
      if (node && !isField(document.activeElement)) node.querySelector("a").focus({ preventScroll: true });
    });
    on("help", "click", () => $("keys").showModal());
    Object.keys(FILES).forEach((kind) => on(kind, "click", () => save(kind)));
    addEventListener("scroll", () => soon(() => fill(false)), { passive: true });
    addEventListener("resize", () => soon(() => { measure(); draw(); fill(true); }));
    addEventListener("keydown", (e) => {
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      const t = e.target, unit = $("unit").open, field = isField(t);
      if (field && e.key === "Escape" && !unit) return e.preventDefault(), t.blur();
      if (field || $("keys").open) return;
      const by = { j: 1, k: -1 }[e.key] || !t.closest(".scroll") && { ArrowDown: 1, ArrowUp: -1 }[e.key], end = rows.length - 1;
      if (by) step(by);
      else if (e.key === "Home" || e.key === "End") { const to = e.key === "Home" ? 0 : end; if (unit) step(to - rows.indexOf(open)); else focus(to); }
      else if (e.key === "/") { if (unit) $("unit").close(); $("q").focus(); }
      else if (e.key === "?") $("keys").showModal();
      else if (e.key === "m") setMask(MASKS[(MASKS.indexOf(view.mask) + 1) % 4]);
      else if (e.key === "s" && unit) toggle();
      else return;
      e.preventDefault();
    });
  }
})();
