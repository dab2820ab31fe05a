// The layer page: filter, sort, threshold slider, virtual list, unit view, exports. A classic script, so that it runs
// from disk; data files call the functions of `dissect`. Text enters the page only as text nodes.
"use strict";
(function () {
  var ROOT = "../../", OVERSCAN = 4, BARS = 240, TWIN = 100;
  var concepts = null, meta = null, cols = {}, have = 0;
  var slot = new Map();          // label number -> place in `concepts`
  var N = 0, label, iou, areaOf; // label: place in `concepts` or -1; typed arrays over units
  var byIou, firm = null;
  var view = {}, rows = new Int32Array(0), list = [], bars = [], at = -1, open = -1, cut = 0;
  var details = new Map(), wanted = new Map(), segments = new Map();
  var $ = function (id) { return document.getElementById(id); };

  window.dissect = {
    concepts: function (c) { concepts = c; c.number.forEach(function (n, i) { slot.set(n, i); }); },
    layer: function (m) { meta = m; if (!m.count) start(); },
    columns: function (first, c) {
      Object.keys(c).forEach(function (k) {
        (cols[k] = cols[k] || new Array(meta.count))
          .splice.apply(cols[k], [0, 0]); // keeps the array packed enough for the copy below
        for (var i = 0; i < c[k].length; i++) cols[k][first + i] = c[k][i];
      });
      have += c.concept.length;
      if (have === meta.count) start();
    },
    units: function (first, found) {
      found.forEach(function (r, i) { details.set(first + i, r); });
      (wanted.get(first) || []).forEach(function (f) { f(); });
      wanted.delete(first);
    },
    segments: function (block, found) {
      segments.set(block, found);
      (wanted.get("s" + block) || []).forEach(function (f) { f(); });
      wanted.delete("s" + block);
    }
  };

  // ---- small helpers
  function el(tag, props, kids) {
    var svg = /^(svg|path|rect|text|a:svg|title|line|circle)$/.test(tag) && (props || {}).svg !== 0;
    var e = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag.split(":")[0]) : document.createElement(tag);
    Object.keys(props || {}).forEach(function (k) {
      if (k === "svg") return;
      if (k === "text") e.textContent = props[k];
      else if (k === "on") Object.keys(props.on).forEach(function (n) { e.addEventListener(n, props.on[n]); });
      else if (props[k] !== null && props[k] !== undefined) e.setAttribute(k, props[k]);
    });
    (kids || []).forEach(function (k) { if (k) e.append(k); });
    return e;
  }
  function int(v) {
    var s = String(v);
    return s.length > 4 ? s.replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f") : s;
  }
  function num(v) { return v === null || v === undefined ? "n/a" : String(+v.toPrecision(4)); }
  function f4(v) { return v.toFixed(4); }
  function many(n, one, more) { return int(n) + " " + (n === 1 ? one : more || one + "s"); }
  function clip(s) { return s.length > 17 ? s.slice(0, 16) + "…" : s; }
  function pad(n) { return String(n).padStart(5, "0"); }
  function ratio(i, a, g) { var u = a + g - i; return i && u ? i / u : 0; }
  function nameOf(s) { return s < 0 ? "no label" : concepts.shown[s]; }
  function hue(s) { return "h" + (s < 0 ? 6 : meta.hues[concepts.category[s]]); }
  function load(key, file, then) {
    if (wanted.has(key)) { wanted.get(key).push(then); return; }
    wanted.set(key, [then]);
    document.head.append(el("script", { src: file, on: { error: function (e) { e.target.remove(); } } }));
  }
  function detail(u, then) {
    if (details.has(u)) return details.get(u);
    var first = u - u % meta.chunk;
    load(first, "data/" + pad(first) + ".js", then);
    return null;
  }
  function isDetector(u) { return label[u] >= 0 && iou[u] > cut; }

  // ---- columns
  function start() {
    N = meta.count;
    label = new Int32Array(N); iou = new Float64Array(N); areaOf = new Float64Array(N);
    for (var u = 0; u < N; u++) {
      var s = cols.concept[u] < 0 ? -1 : slot.get(cols.concept[u]);
      label[u] = s;
      areaOf[u] = s < 0 ? 0 : concepts.area[s];
      iou[u] = cols.iou ? cols.iou[u] : s < 0 ? 0 : ratio(cols.intersection[u], cols.area[u], areaOf[u]);
    }
    if (cols.q) firm = function (u) { return cols.q[u] !== null && cols.q[u] <= 0.05; };
    else if (cols.low) firm = function (u) { return cols.low[u] !== null && cols.low[u] > cut; };
    byIou = sorted(iou, -1);
    if (!$("list")) return;
    build();
    read();
    window.addEventListener("hashchange", read);
  }
  function sorted(values, way) {
    var order = new Uint32Array(values.length);
    for (var i = 0; i < order.length; i++) order[i] = i;
    return order.sort(way < 0 ? function (a, b) { return values[b] - values[a] || a - b; }
                              : function (a, b) { return values[a] - values[b] || a - b; });
  }
  // Detectors at any cut: a binary search in the sorted scores.
  function above(c) {
    var lo = 0, hi = N;
    while (lo < hi) { var m = (lo + hi) >> 1; if (iou[byIou[m]] > c) lo = m + 1; else hi = m; }
    return lo;
  }
  // Labels of the detectors in the published order: category, then number of units, then best score.
  function tally() {
    var C = concepts.number.length, units = new Int32Array(C), best = new Float64Array(C), sure = new Int32Array(C);
    var n = above(cut);
    for (var k = 0; k < n; k++) {
      var u = byIou[k], s = label[u];
      if (s < 0) continue;
      units[s]++;
      if (iou[u] > best[s]) best[s] = iou[u];
      if (firm && firm(u)) sure[s]++;
    }
    var rank = new Map(meta.categories.map(function (c, i) { return [c, i]; }));
    var out = [];
    for (s = 0; s < C; s++) if (units[s]) out.push({ s: s, units: units[s], best: best[s], sure: sure[s], rank: rank.get(concepts.category[s]) });
    out.sort(function (a, b) {
      return a.rank - b.rank || b.units - a.units || b.best - a.best || concepts.number[a.s] - concepts.number[b.s];
    });
    return out;
  }
  function published() {
    var C = concepts.number.length, place = new Int32Array(C).fill(-1), starts = new Int32Array(bars.length + 2);
    bars.forEach(function (b, i) { place[b.s] = i; });
    var group = function (u) { return isDetector(u) ? place[label[u]] : bars.length; };
    for (var u = 0; u < N; u++) starts[group(u) + 1]++;
    for (var i = 1; i < starts.length; i++) starts[i] += starts[i - 1];
    var out = new Uint32Array(N);
    for (var k = 0; k < N; k++) out[starts[group(byIou[k])]++] = byIou[k];
    return out;
  }
  var KEYS = {
    "": ["as published", published],
    unit: ["unit", function () { return sorted({ length: N }, 1); }],
    label: ["label", function () { return text(function (s) { return concepts.shown[s]; }); }],
    category: ["category", function () { return text(function (s) { return concepts.category[s]; }); }],
    iou: ["IoU", function () { return byIou; }, -1],
    intersection: ["I", function () { return sorted(cols.intersection, -1); }, -1],
    area: ["A", function () { return sorted(cols.area, -1); }, -1],
    threshold: ["T", function () { return sorted(cols.threshold.map(function (v) { return v === null ? -1e308 : v; }), -1); }, -1]
  };
  function text(of) {
    var order = Array.from(concepts.number.keys()).sort(function (a, b) { return of(a) < of(b) ? -1 : of(a) > of(b) ? 1 : a - b; });
    var place = new Float64Array(concepts.number.length), last = null, k = 0;
    order.forEach(function (s) { if (last !== null && of(s) !== of(last)) k++; place[s] = k; last = s; });
    return sorted(Float64Array.from(label, function (s) { return s < 0 ? 1e9 : place[s]; }), 1);
  }
  var orders = new Map();
  function ordered(key) {
    var name = key.replace(/^[-+]/, "");
    if (!KEYS[name]) name = "";
    if (name === "unit" && !orders.has("unit")) orders.set("unit", Uint32Array.from({ length: N }, function (_, i) { return i; }));
    var memo = name ? name : "published " + cut;
    if (!name && !orders.has(memo)) orders.forEach(function (_, k) { if (k.indexOf("published") === 0) orders.delete(k); });
    if (!orders.has(memo)) orders.set(memo, KEYS[name][1]());
    var out = orders.get(memo);
    return key[0] === "-" ? Uint32Array.from(out).reverse() : out;
  }

  // ---- the view: everything that the address keeps
  var FIELDS = ["q", "category", "concept", "min", "max", "show", "mask"];
  function read() {
    var p = new URLSearchParams(location.hash.slice(1));
    view = { sort: p.get("sort") || "", cut: p.get("cut") };
    FIELDS.forEach(function (f) { view[f] = p.get(f) || ""; $(f).value = view[f]; });
    if ($("concept").value !== view.concept) view.concept = "";
    cut = view.cut === null || isNaN(+view.cut) ? meta.cut : +view.cut;
    $("cut").value = cut;
    apply(true);
    var u = p.get("unit");
    if (u !== null && /^\d+$/.test(u) && +u < N) show(+u);
    else if ($("unit").open) { open = -1; $("unit").close(); }
  }
  var timer = 0;
  function write(unit) {
    var p = new URLSearchParams();
    FIELDS.forEach(function (f) { if (view[f]) p.set(f, view[f]); });
    if (view.sort) p.set("sort", view.sort);
    if (cut !== meta.cut) p.set("cut", String(cut));
    if (unit >= 0) p.set("unit", unit);
    var hash = p.toString();
    clearTimeout(timer);
    timer = setTimeout(function () { history.replaceState(null, "", hash ? "#" + hash : location.pathname + location.search); }, unit === undefined ? 120 : 0);
    if ($("layer")) Array.prototype.forEach.call($("layer").options, function (o) {
      var q = new URLSearchParams(p); q.delete("unit");
      o.dataset.link = o.value.split("#")[0] + (String(q) ? "#" + q : "");
    });
  }
  function apply(keep) {
    var t0 = performance.now();
    bars = tally();
    var order = ordered(view.sort), out = new Int32Array(N), n = 0;
    var q = view.q.trim().toLowerCase(), exact = /^\d+$/.test(q) ? +q : -1, hit = null;
    if (q) hit = Uint8Array.from(concepts.shown, function (s, i) { return s.toLowerCase().indexOf(q) >= 0 || concepts.name[i].toLowerCase().indexOf(q) >= 0 ? 1 : 0; });
    var c = view.concept === "" ? null : slot.get(+view.concept), cat = view.category;
    var min = view.min === "" ? -1 : +view.min, max = view.max === "" ? 2 : +view.max;
    for (var k = 0; k < N; k++) {
      var u = order[k], s = label[u];
      if (c !== null && s !== c) continue;
      if (cat && (s < 0 || concepts.category[s] !== cat)) continue;
      if (iou[u] < min || iou[u] > max) continue;
      if (hit && u !== exact && (s < 0 || !hit[s])) continue;
      if (view.show) {
        var flag = cols.flags[u];
        if (view.show === "detectors" ? !isDetector(u) : view.show === "rest" ? isDetector(u) : view.show === "odd" ? !flag : flag) continue;
      }
      out[n++] = u;
    }
    rows = out.subarray(0, n);
    $("cut-value").textContent = num(cut);
    $("cut").setAttribute("aria-valuetext", "IoU above " + num(cut));
    var total = above(cut), all = 0;
    for (k = 0; k < total; k++) if (label[byIou[k]] >= 0) all++;
    $("sentence").textContent = int(all) + " of " + int(N) + (all === 1 ? " unit is a detector" : " units are detectors") + " of " + many(bars.length, "distinct concept") + " at IoU > " + num(cut) + ".";
    $("status").textContent = n === N ? "All " + many(N, "unit") : many(n, "unit") + " of " + int(N);
    Array.prototype.forEach.call($("heads").children, function (h) {
      var key = h.dataset.key, mine = view.sort.replace(/^-/, "") === key && (key || !view.sort);
      var down = (KEYS[key][2] === -1) !== (view.sort[0] === "-");
      if (mine && key) h.setAttribute("aria-sort", down ? "descending" : "ascending");
      else h.setAttribute("aria-sort", "none");
      h.classList.toggle("on", mine);
    });
    draw();
    at = -1;
    fill(true);
    if (keep) write(open); else { write(); }
    window.dissect.took = performance.now() - t0;
  }

  // ---- the figure
  function draw() {
    var box = $("bars"), width = Math.max(Math.min(box.clientWidth || 1040, 1400), 560);
    var PITCH = 15, RISE = 92, FOOT = 92, HEAD = 34, LEFT = 58, GAP = 14;
    var some = bars.slice(0, BARS), top = 1, counts = {};
    bars.forEach(function (b) { top = Math.max(top, b.units); var c = concepts.category[b.s]; counts[c] = (counts[c] || 0) + 1; });
    var row = 0, x = LEFT, i = 0, kids = [], seen = {};
    while (i < some.length) {
      var cat = concepts.category[some[i].s];
      if (x + PITCH > width) { row++; x = LEFT; }
      var begin = x, y = row * (HEAD + RISE + FOOT), links = [];
      while (i < some.length && concepts.category[some[i].s] === cat && x + PITCH <= width) { links.push(bar(some[i], x, y, top, RISE)); i++; x += PITCH; }
      var caption = seen[cat] ? cat : cat + " " + counts[cat], h = "h" + meta.hues[cat];
      seen[cat] = 1;
      kids.push(el("rect", { class: "band " + h, x: begin - 5, y: y + 3, width: x - begin + 6, height: 124 }),
        el("text", { class: "caption " + h, x: begin - 3, y: y + 14, text: caption }));
      kids.push.apply(kids, links);
      x = Math.max(x, begin + 7 * caption.length + 4) + GAP;
    }
    var height = some.length ? (row + 1) * (HEAD + RISE + FOOT) : 0;
    var focus = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.s : undefined;
    if (some.length) {
      var svg = el("svg", { class: "bars", viewBox: "0 0 " + width + " " + height, width: width, height: height, role: "group", "aria-label": "Labels of the detectors" }, kids);
      box.replaceChildren(svg);
      var again = focus === undefined ? null : svg.querySelector('[data-s="' + focus + '"]');
      if (again) again.focus();
    } else box.replaceChildren(el("p", { class: "quiet", text: "No unit is above this cut." }));
    if ($("twin").open) twin();
  }
  function bar(b, x, y, top, RISE) {
    var height = Math.max(b.units / top * RISE, 1), n = concepts.number[b.s], on = view.concept === String(n);
    var h = hue(b.s), sure = firm ? b.sure / b.units * height : height;
    return el("a:svg", {
      href: ROOT + "concepts/" + n + ".html", "data-s": n, class: on ? "on" : null, "aria-current": on ? "true" : null,
      "aria-label": nameOf(b.s) + ", " + concepts.category[b.s] + ": " + many(b.units, "unit") + (firm ? ", " + b.sure + " hold against the baseline" : "") + ", best IoU " + f4(b.best)
    }, [
      el("title", { text: nameOf(b.s) + ": " + many(b.units, "unit") + ", best IoU " + f4(b.best) }),
      el("rect", { class: "hit", x: x - 2, y: y + 20, width: 15, height: 192 }),
      firm && sure < height ? el("rect", { class: "bar pale " + h, x: x, y: y + 126 - height, width: 11, height: height }) : null,
      el("rect", { class: "bar " + h, x: x, y: y + 126 - sure, width: 11, height: sure }),
      el("text", { class: "count", x: x + 5.5, y: y + 123 - height, text: b.units }),
      el("text", { class: "label", transform: "translate(" + (x + 9) + " " + (y + 138) + ") rotate(-45)", text: clip(nameOf(b.s)) })
    ]);
  }
  function twin() {
    $("twin-rows").replaceChildren.apply($("twin-rows"), bars.slice(0, TWIN).map(function (b) {
      return el("tr", {}, [
        el("th", { scope: "row" }, [el("a", { svg: 0, href: "#concept=" + concepts.number[b.s], text: nameOf(b.s) })]),
        el("td", { text: concepts.category[b.s] }), el("td", { class: "n", text: b.units }), el("td", { class: "n", text: f4(b.best) })]);
    }));
  }
  function curve() {
    var max = +$("cut").max, d = "M0 44", top = above(-1) || 1;
    for (var k = 0; k <= 200; k++) d += "L" + k * 2 + " " + (44 - 42 * above(max * k / 200) / top).toFixed(1);
    $("curve").firstElementChild.setAttribute("d", d + "L400 44Z");
  }

  // ---- the list: only the rows in sight are in the document
  var height = 130, pool = new Map();
  function measure() { height = parseInt(getComputedStyle($("list")).getPropertyValue("--row"), 10) || 130; }
  function fill(fresh) {
    var box = $("rows");
    if (fresh) { box.replaceChildren(); pool.clear(); box.style.height = rows.length * height + "px"; $("list").setAttribute("aria-rowcount", rows.length + 1); }
    var top = -box.getBoundingClientRect().top, first = Math.max(Math.floor(top / height) - OVERSCAN, 0);
    var last = Math.min(Math.ceil((top + window.innerHeight) / height) + OVERSCAN, rows.length);
    pool.forEach(function (node, k) { if ((k < first || k >= last) && !node.contains(document.activeElement)) { node.remove(); pool.delete(k); } });
    for (var k = first; k < last; k++) if (!pool.has(k)) { var node = card(k); pool.set(k, node); box.append(node); }
  }
  function card(k) {
    var u = rows[k], s = label[u], node = el("div", { role: "row", class: "row " + hue(s) + (isDetector(u) ? "" : " below"), "aria-rowindex": k + 2, "data-k": k });
    node.style.transform = "translateY(" + k * height + "px)";
    var link = el("a", { svg: 0, href: "#unit=" + u, tabindex: k === (at < 0 ? 0 : at) ? 0 : -1, "data-unit": u }, [
      el("span", { class: "u", text: u }), " ", el("span", { class: "name", dir: "auto", text: nameOf(s) })]);
    var cell = function (cls, kids) { return el("div", { role: "cell", class: cls }, kids); };
    node.append(
      cell("who", [link]),
      cell("what", [el("span", { text: s < 0 ? flagged(u) || "no concept meets its mask" : concepts.category[s] + (flagged(u) ? ", " + flagged(u) : "") })]),
      cell("score", [el("span", { text: "IoU " + f4(iou[u]) }), gauge(u)]),
      cell("ints", [el("span", { text: s < 0 ? "T " + num(cols.threshold[u]) : "I " + int(cols.intersection[u]) + "  A " + int(cols.area[u]) + "  G " + int(areaOf[u]) + "  T " + num(cols.threshold[u]) })]),
      cell("pics", []));
    var put = function () { if (node.isConnected || !details.size) strip(node.lastChild, u); };
    if (detail(u, put)) strip(node.lastChild, u);
    return node;
  }
  function flagged(u) {
    var f = cols.flags[u];
    return [f & 1 && "dead", f & 2 && "saturated", f & 4 && "not finite"].filter(Boolean).join(", ");
  }
  function scale() { return Math.max(N ? iou[byIou[0]] : 0, 0.05) * 1.02; }
  function gauge(u) {
    var w = 160 / scale(), kids = [el("rect", { class: "track", x: 0, y: 3, width: 160, height: 6 }), el("rect", { class: "bar " + hue(label[u]), x: 0, y: 3, width: Math.min(iou[u] * w, 160), height: 6 })];
    if (cols.null && cols.null[u] !== null) kids.push(el("rect", { class: "null", x: 0, y: 4.5, width: Math.min(cols.null[u] * w, 160), height: 3 }));
    if (cols.low && cols.low[u] !== null) kids.push(el("path", { class: "whisker", d: "M" + cols.low[u] * w + " 2V10M" + cols.low[u] * w + " 6H" + cols.high[u] * w + "M" + cols.high[u] * w + " 2V10" }));
    kids.push(el("path", { class: "at", d: "M" + Math.min(cut * w, 160) + " 0V12" }));
    return el("svg", { class: "gauge", viewBox: "0 0 160 12", width: 160, height: 12, "aria-hidden": "true" }, kids);
  }
  function sheet(u) {
    var first = u - u % meta.rows, last = Math.min(first + meta.rows, N) - 1;
    return "img/" + pad(first) + (meta.rows === 1 ? "" : "-" + pad(last)) + ".webp";
  }
  function shifted(paths) {
    return paths.map(function (p, k) { return p.replace(/M(\d+)/g, function (_, x) { return "M" + (+x + 256 * k); }); }).join("");
  }
  function told(u) { return "Unit " + u + ", " + nameOf(label[u]) + ", IoU " + iou[u].toFixed(2); }
  function strip(box, u) {
    var r = details.get(u);
    if (!r.k) { box.replaceChildren(el("p", { class: "absent", text: r.e.length ? "The images are not at hand." : "No top images." })); return; }
    var img = el("img", { loading: "lazy", width: meta.thumbs * meta.px, height: meta.rows * meta.px, src: sheet(u), alt: told(u) + ": top images" });
    var y = u % meta.rows * (32 / meta.rows);
    box.replaceChildren(el("div", { class: "strip y" + y }, [img].concat(cover(r.e.slice(0, meta.thumbs)))));
  }
  // What lies over thumbnails: the dimmed outside, an outline, or the activation map.
  function cover(list) {
    var w = 256 * list.length, style = view.mask, paths = shifted(list.map(function (e) { return e[5]; }));
    if (style === "none") return [];
    if (style === "heat") return list.map(function (e, k) {
      var c = heat(e[6]);
      if (c) { c.style.left = k * meta.px + "px"; c.classList.add("one"); }
      return c;
    }).filter(Boolean);
    return [el("svg", { viewBox: "0 0 " + w + " 256", preserveAspectRatio: "none", "aria-hidden": "true", class: "w" + list.length }, [
      style === "outline" ? el("path", { class: "outline", d: paths }) : el("path", { class: "veil", d: "M0 0H" + w + "V256H0Z" + paths })])];
  }
  function heat(map) {
    if (!map) return null;
    var h = map[0], w = map[1], bytes = atob(map[2]), c = el("canvas", { width: w, height: h, class: "heat", "aria-hidden": "true" });
    var g = c.getContext("2d"), d = g.createImageData(w, h);
    for (var i = 0; i < h * w; i++) {
      var v = bytes.charCodeAt(i) / 255; // black, violet, orange, pale yellow: lightness grows with activation
      d.data[4 * i] = 255 * Math.min(1, 1.6 * v);
      d.data[4 * i + 1] = 255 * Math.max(0, 1.5 * v - 0.5);
      d.data[4 * i + 2] = 255 * (v < 0.5 ? 0.9 * v : Math.max(0.45 - 1.3 * (v - 0.5), 3 * v - 2.3));
      d.data[4 * i + 3] = 60 + 160 * v;
    }
    g.putImageData(d, 0, 0);
    return c;
  }

  // ---- one unit
  function show(u) {
    var box = $("unit");
    open = u;
    var r = detail(u, function () { if (open === u) show(u); });
    if (!r) return;
    var s = label[u], k = rows.indexOf(u), parts = [];
    var go = function (to, text, word) { return el("button", { type: "button", "aria-label": word, text: text, disabled: to < 0 || to >= rows.length ? "" : null, on: { click: function () { step(to - k); } } }); };
    parts.push(el("header", {}, [
      el("p", { class: "kicker", text: meta.layer + ", unit " + u }),
      el("h2", { id: "unit-title", dir: "auto", text: nameOf(s) }),
      el("nav", { "aria-label": "Units" }, [go(k < 0 ? -1 : k - 1, "←", "Previous unit"), go(k < 0 ? -1 : k + 1, "→", "Next unit"), el("button", { type: "button", text: "Close", on: { click: function () { box.close(); } } })])]));
    if (flagged(u)) parts.push(el("p", { class: "note", text: "This unit is " + flagged(u) + "." }));
    if (s >= 0) {
      var i = cols.intersection[u], a = cols.area[u], g = areaOf[u];
      parts.push(el("p", { class: "lead" }, [
        concepts.category[s] + ", IoU " + f4(iou[u]) + (isDetector(u) ? ", above" : ", not above") + " the cut of " + num(cut) + ". ",
        el("a", { svg: 0, href: "#concept=" + concepts.number[s], text: "All units with this label", on: { click: function () { box.close(); } } }), "."]));
      if (cols.low && cols.low[u] !== null) {
        var near = r.b[1] && ratio(r.b[1][1], r.b[1][2], concepts.area[slot.get(r.b[1][0])]) >= cols.low[u];
        parts.push(el("p", { text: "95 % interval " + f4(cols.low[u]) + " to " + f4(cols.high[u]) + "." + (near ? " Near tie: the second concept is inside it." : "") }));
      }
      if (cols.null && cols.null[u] !== null) parts.push(el("p", { text: "By chance: IoU " + f4(cols.null[u]) + (cols.q && cols.q[u] !== null ? "; q = " + num(cols.q[u]) : "") + "." }));
    }
    parts.push(pictures(u, r));
    if (s >= 0) parts.push(el("section", {}, [el("h3", { text: "Why this label" }),
      el("p", { class: "equation", text: "IoU = I / (A + G − I) = " + int(i) + " / (" + int(a) + " + " + int(g) + " − " + int(i) + ") = " + f4(iou[u]) }), venn(i, a, g, s),
      el("p", { class: "quiet", text: "I: pixels where mask and concept meet. A: mask pixels over the images that carry a " + concepts.category[s] + ". G: pixels of the concept. The mask is where the activation is above T = " + num(cols.threshold[u]) + ", over " + many(meta.images, "image") + "." })]));
    parts.push(el("div", { class: "two" }, [table("Best concepts", r.b), table("Best of each category", r.c)]));
    if (r.h) parts.push(histogram(r.h, cols.threshold[u]));
    var link = el("input", { readonly: "", value: location.href.split("#")[0] + "#unit=" + u, "aria-label": "Link to this unit", on: { focus: function (e) { e.target.select(); } } });
    parts.push(el("p", { class: "links" }, [link, " ", el("a", { svg: 0, href: "plain-" + Math.floor(u / 200) + ".html#unit-" + u, text: "plain page" })]));
    box.replaceChildren.apply(box, parts);
    if (!box.open) box.showModal();
    box.scrollTop = 0;
    write(u);
  }
  function table(title, found) {
    if (!found.length) return null;
    var head = ["Concept", "Category", "IoU", "I", "A", "G"];
    return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, [el("table", {}, [el("caption", { text: title }),
      el("thead", {}, [el("tr", {}, head.map(function (h, k) { return el("th", { scope: "col", class: k > 1 ? "n" : null, text: h }); }))]),
      el("tbody", {}, found.map(function (f) {
        var s = slot.get(f[0]), g = concepts.area[s];
        return el("tr", {}, [el("th", { scope: "row", dir: "auto", text: nameOf(s) }), el("td", { text: concepts.category[s] })].concat(
          [f4(ratio(f[1], f[2], g)), int(f[1]), int(f[2]), int(g)].map(function (t) { return el("td", { class: "n", text: t }); })));
      }))])]);
  }
  function venn(i, a, g, s) {
    var w = 600 / (a + g - i), x1 = (a - i) * w, x2 = a * w, h = hue(s);
    return el("svg", { class: "venn", viewBox: "0 0 600 40", role: "img", "aria-label": "Mask only " + int(a - i) + ", both " + int(i) + ", concept only " + int(g - i) + " pixels" }, [
      el("rect", { class: "mask", x: 0, y: 0, width: x2, height: 17 }), el("rect", { class: "bar " + h, x: x1, y: 20, width: 600 - x1, height: 17 }),
      el("text", { x: 4, y: 13, text: "mask A" }), el("text", { x: 596, y: 33, class: "right", text: "concept G" }), el("path", { class: "at", d: "M" + x1 + " 0V40M" + x2 + " 0V40" })]);
  }
  function histogram(h, t) {
    var lo = h[0][0], span = h[0][h[0].length - 1] - lo || 1, top = Math.max.apply(null, h[1].map(function (c) { return Math.log1p(c); })) || 1;
    var X = function (v) { return 10 + 580 * (v - lo) / span; };
    var kids = h[1].map(function (c, k) { var y = 80 * Math.log1p(c) / top; return el("rect", { class: "bar h6", x: X(h[0][k]), y: 90 - y, width: Math.max(X(h[0][k + 1]) - X(h[0][k]) - 0.5, 0.5), height: y }); });
    kids.push(el("path", { class: "at", d: "M" + X(t) + " 4V92" }), el("text", { x: X(t) + 4, y: 14, text: "T " + num(t) }), el("text", { x: 10, y: 106, text: num(lo) }), el("text", { x: 590, y: 106, class: "right", text: num(lo + span) }));
    return el("section", {}, [el("h3", { text: "Activations" }), el("svg", { class: "histogram", viewBox: "0 0 600 110", role: "img", "aria-label": "Histogram of the activations on a logarithmic scale, threshold at " + num(t) }, kids),
      el("details", {}, [el("summary", { text: "Table of this figure" }), el("table", {}, [el("tbody", {}, h[1].map(function (c, k) { return el("tr", {}, [el("th", { scope: "row", text: num(h[0][k]) + " to " + num(h[0][k + 1]) }), el("td", { class: "n", text: int(c) })]); }))])])]);
  }
  function pictures(u, r) {
    if (!r.e.length) return el("p", { class: "absent", text: "No top images." });
    var gone = r.e.slice(0, r.k || r.e.length).filter(function (e) { return e[7]; }).length;
    var items = r.e.map(function (e, k) {
      var frame = el("div", { class: "frame" });
      if (k < r.k && !e[7]) {
        var y = u % meta.rows;
        var img = el("img", { width: meta.thumbs * meta.px, height: meta.rows * meta.px, src: sheet(u), alt: "Top image " + (k + 1) + " of unit " + u + ": " + e[1] });
        img.style.width = meta.thumbs * 100 + "%";
        img.style.transform = "translate(" + -100 * k / meta.thumbs + "%," + -100 * y / meta.rows + "%)";
        frame.append(img);
        cover([e]).forEach(function (c) { c.style.left = 0; c.classList.add("whole"); frame.append(c); });
        if (view.seg) overlay(frame, e, u);
      } else frame.append(el("p", { class: "absent", text: e[7] && r.k ? "missing" : "no picture" }));
      return el("li", {}, [frame, el("p", { class: "where", dir: "auto", text: e[1] }), el("p", { class: "quiet", text: "image " + e[0] + ", " + num(e[2]) + " at row " + e[3] + ", column " + e[4] })]);
    });
    var seg = el("button", { type: "button", "aria-pressed": view.seg ? "true" : "false", text: "Segmentation", on: { click: function () { view.seg = !view.seg; show(u); } } });
    var styles = el("select", { "aria-label": "Mask style", on: { change: function (e) { setMask(e.target.value); } } }, [["", "dim outside"], ["outline", "outline"], ["heat", "heat map"], ["none", "none"]].map(function (o) { return el("option", { value: o[0], text: o[1], selected: o[0] === view.mask ? "" : null }); }));
    return el("section", {}, [el("h3", { text: "Top images" }), el("p", { class: "tools" }, [styles, seg, el("span", { class: "quiet", id: "under", role: "status", text: gone ? gone + " of these images are missing" : view.seg ? "Point at a picture to read its labels" : "" })]), el("ol", { class: "gallery" }, items)]);
  }
  function overlay(frame, e, u) {
    var block = Math.floor(e[0] / 64);
    if (!segments.has(block)) { load("s" + block, ROOT + "segments/" + block + ".js", function () { if (frame.isConnected) overlay(frame, e, u); }); return; }
    var found = segments.get(block)[e[0]];
    if (!found) return;
    var planes = found[1].map(function (p) {
      var flat = new Int32Array(p[0] * p[1]), k = 0;
      for (var j = 2; j < p.length; j += 2) { flat.fill(p[j], k, k + p[j + 1]); k += p[j + 1]; }
      return { h: p[0], w: p[1], flat: flat };
    });
    var names = function (numbers) {
      return numbers.map(function (n) { return slot.has(n) ? concepts.shown[slot.get(n)] : "label " + n; }).join(", ");
    };
    var c = el("canvas", { width: 56, height: 56, class: "seg whole", "aria-hidden": "true" }), g = c.getContext("2d");
    var paint = function (which) {
      var d = g.createImageData(56, 56);
      for (var k = 0; k < 56 * 56; k++) {
        var y = Math.floor(k / 56), x = k % 56, on = 0, any = 0;
        planes.forEach(function (p) {
          var v = p.flat[Math.floor(y * p.h / 56) * p.w + Math.floor(x * p.w / 56)];
          if (which.indexOf(v) >= 0) on = v;
          if (v && !(slot.has(v) && concepts.category[slot.get(v)] === "color")) any = any || v;
        });
        var n = on || any, turn = n * 0.61803 % 1;
        if (!n) continue;
        [0, 1, 2].forEach(function (q) { d.data[4 * k + q] = 255 * Math.max(0, Math.min(1, Math.abs((turn + [0, 2 / 3, 1 / 3][q]) % 1 * 6 - 3) - 1)); });
        d.data[4 * k + 3] = on ? 190 : 80;
      }
      g.putImageData(d, 0, 0);
    };
    var mine = label[u] < 0 ? [] : [concepts.number[label[u]]];
    paint(mine);
    frame.append(c);
    var all = [];
    planes.forEach(function (p) { p.flat.forEach(function (v) { if (v && all.indexOf(v) < 0) all.push(v); }); });
    frame.parentNode.append(el("p", { class: "quiet", text: "Labels: " + (names(found[0].concat(all)) || "none") }));
    frame.addEventListener("pointermove", function (ev) {
      var b = frame.getBoundingClientRect(), fx = (ev.clientX - b.left) / b.width, fy = (ev.clientY - b.top) / b.height;
      var here = planes.map(function (p) { return p.flat[Math.min(Math.floor(fy * p.h), p.h - 1) * p.w + Math.min(Math.floor(fx * p.w), p.w - 1)]; }).filter(function (v) { return v > 0; });
      $("under").textContent = names(here.filter(function (v, k) { return here.indexOf(v) === k; })) || (found[0].length ? "whole image: " + names(found[0]) : "no label here");
      paint(here.length ? here : mine);
    });
  }

  // ---- keys and controls
  function step(by) {
    if (open >= 0 && $("unit").open) {
      var k = rows.indexOf(open) + by;
      if (k >= 0 && k < rows.length) { at = k; show(rows[k]); }
      return;
    }
    focus(Math.max(0, Math.min(rows.length - 1, (at < 0 && by > 0 ? -1 : at) + by)));
  }
  function focus(k) {
    if (!rows.length) return;
    var old = pool.get(at);
    at = k;
    var box = $("rows"), top = box.getBoundingClientRect().top + window.scrollY + k * height;
    if (top < window.scrollY + 60) window.scrollTo(0, top - 60);
    else if (top + height > window.scrollY + window.innerHeight) window.scrollTo(0, top + height - window.innerHeight + 10);
    fill(false);
    var node = pool.get(k);
    if (old && old !== node) old.querySelector("a").tabIndex = -1;
    if (node) { node.querySelector("a").tabIndex = 0; node.querySelector("a").focus({ preventScroll: true }); }
  }
  function setMask(m) {
    view.mask = m; $("mask").value = m;
    pool.forEach(function (node, k) { if (details.has(rows[k])) strip(node.lastChild, rows[k]); });
    if (open >= 0) show(open); else write();
  }
  function save(name, type, content) {
    var a = el("a", { svg: 0, href: URL.createObjectURL(new Blob([content], { type: type })), download: name });
    a.click();
    setTimeout(function () { URL.revokeObjectURL(a.href); }, 1000);
  }
  function table_() {
    return Array.from(rows, function (u) {
      var s = label[u];
      return { run: meta.id, layer: meta.layer, unit: u, concept: s < 0 ? null : concepts.name[s], category: s < 0 ? null : concepts.category[s], iou: iou[u], intersection: cols.intersection[u], unit_area: cols.area[u], concept_area: s < 0 ? 0 : areaOf[u], threshold: cols.threshold[u], rank: 1 };
    });
  }
  function csv() {
    var names = ["run", "layer", "unit", "concept", "category", "iou", "intersection", "unit_area", "concept_area", "threshold", "rank"];
    var quote = function (v) { v = v === null ? "" : String(v); return /[",\r\n]/.test(v) ? '"' + v.replace(/"/g, '""') + '"' : v; };
    return [names.join(",")].concat(table_().map(function (r) { return names.map(function (n) { return quote(r[n]); }).join(","); })).join("\r\n") + "\r\n";
  }
  function build() {
    Array.prototype.forEach.call(document.querySelectorAll(".live"), function (e) { e.hidden = false; });
    measure();
    var labels = new Set();
    label.forEach(function (s) { if (s >= 0) labels.add(s); });
    meta.categories.forEach(function (c) { $("category").append(el("option", { value: c, text: c })); });
    Array.from(labels).sort(function (a, b) { return concepts.shown[a] < concepts.shown[b] ? -1 : concepts.shown[a] > concepts.shown[b] ? 1 : a - b; })
      .forEach(function (s) { $("concept").append(el("option", { value: concepts.number[s], text: concepts.shown[s] + " (" + concepts.category[s] + ")" })); });
    Object.keys(KEYS).forEach(function (key) {
      $("heads").append(el("div", { role: "columnheader", "data-key": key, "aria-sort": "none" }, [el("button", { type: "button", text: KEYS[key][0], on: { click: function () {
        view.sort = view.sort === key && key ? "-" + key : key;
        apply();
      } } })]));
    });
    $("cut").max = Math.max(Math.ceil(scale() * 20) / 20, meta.cut * 2);
    curve();
    var frame = 0, soon = function (f) { if (!frame) frame = requestAnimationFrame(function () { frame = 0; f(); }); };
    $("cut").addEventListener("input", function () { soon(function () { cut = +$("cut").value; apply(); }); });
    $("uncut").addEventListener("click", function () { cut = meta.cut; $("cut").value = cut; apply(); });
    FIELDS.forEach(function (f) {
      $(f).addEventListener("input", function () { soon(function () { FIELDS.forEach(function (g) { view[g] = $(g).value; }); if (f === "mask") setMask(view.mask); else apply(); }); });
    });
    $("controls").addEventListener("submit", function (e) { e.preventDefault(); });
    $("controls").addEventListener("reset", function (e) { e.preventDefault(); FIELDS.forEach(function (f) { $(f).value = ""; view[f] = ""; }); view.sort = ""; apply(); });
    if ($("layer")) $("layer").addEventListener("change", function (e) { var o = e.target.selectedOptions[0]; location.href = o.dataset.link || o.value; });
    $("bars").addEventListener("click", function (e) {
      var a = e.target.closest("a[data-s]");
      if (!a || e.ctrlKey || e.metaKey || e.shiftKey) return;
      e.preventDefault();
      view.concept = view.concept === a.dataset.s ? "" : a.dataset.s;
      $("concept").value = view.concept;
      apply();
    });
    $("twin").addEventListener("toggle", function () { if ($("twin").open) twin(); });
    $("rows").addEventListener("click", function (e) {
      var a = e.target.closest("a[data-unit]"), node = e.target.closest(".row");
      if (e.ctrlKey || e.metaKey || !node) return;
      if (a) e.preventDefault();
      at = +node.dataset.k;
      if (a || e.target.closest(".pics")) show(rows[at]);
    });
    $("unit").addEventListener("close", function () { open = -1; write(-1); var node = pool.get(at); if (node) node.querySelector("a").focus({ preventScroll: true }); });
    $("help").addEventListener("click", function () { $("keys").showModal(); });
    $("csv").addEventListener("click", function () { save(meta.run + "-" + meta.layer + ".csv", "text/csv", csv()); });
    $("json").addEventListener("click", function () { save(meta.run + "-" + meta.layer + ".json", "application/json", JSON.stringify(table_(), null, 1) + "\n"); });
    $("svg").addEventListener("click", function () { var s = $("bars").querySelector("svg"); if (s) save(meta.run + "-" + meta.layer + ".svg", "image/svg+xml", picture(s)); });
    window.addEventListener("scroll", function () { soon(function () { fill(false); }); }, { passive: true });
    var wide = 0;
    window.addEventListener("resize", function () { soon(function () { measure(); if (wide !== window.innerWidth) { wide = window.innerWidth; draw(); } fill(true); }); });
    document.addEventListener("keydown", function (e) {
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      var field = /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName);
      if (field && e.key === "Escape" && !$("unit").open) { e.target.blur(); return; }
      if (field || $("keys").open) return;
      var scrolls = e.target.closest && e.target.closest(".scroll");
      var act = { j: 1, k: -1 }[e.key] || (scrolls ? 0 : { ArrowDown: 1, ArrowUp: -1 }[e.key]);
      if (act) step(act);
      else if (e.key === "Home" || e.key === "End") { var to = e.key === "Home" ? 0 : rows.length - 1; if ($("unit").open) step(to - rows.indexOf(open)); else focus(to); }
      else if (e.key === "/") { if ($("unit").open) $("unit").close(); $("q").focus(); }
      else if (e.key === "?") $("keys").showModal();
      else if (e.key === "m") { var m = ["", "outline", "heat", "none"]; setMask(m[(m.indexOf(view.mask) + 1) % 4]); }
      else if (e.key === "s" && $("unit").open) { view.seg = !view.seg; show(open); }
      else return;
      e.preventDefault();
    });
  }
  // The figure as a file of its own, with the colours that it has on the page.
  function picture(svg) {
    var copy = svg.cloneNode(true), from = svg.querySelectorAll("*"), to = copy.querySelectorAll("*");
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    Array.prototype.forEach.call(to, function (e, k) {
      var s = getComputedStyle(from[k]);
      ["fill", "stroke", "font-family", "font-size", "text-anchor", "opacity"].forEach(function (p) { e.setAttribute(p, s.getPropertyValue(p)); });
      e.removeAttribute("href");
    });
    return new XMLSerializer().serializeToString(copy) + "\n";
  }
  window.dissect.csv = csv;
})();
