const $ = (id) => document.getElementById(id);
const make = (tag, words = "", attributes = {}) => {
  const made = document.createElement(tag);
  made.textContent = words;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const state = { layer: null, row: 0, col: 0, places: [] };
const first = () => data.priors[Number($("first").value)];
const second = () => $("second").value === "" ? null : data.priors[Number($("second").value)];
const setting = () => {
  const share = Number($("retention").value), tau = Number($("strength").value);
  return { share, tau, retention: sample.retentions[share], strength: sample.strengths[tau] };
};

/* The plane of the picture's tokens that has a name, and its number. */
const samplePlane = (name) => {
  const number = sample ? sample.planes.findIndex((plane) => plane.name === name) : -1;
  return number < 0 ? null : { number, ...sample.planes[number] };
};
/* Where a plane lies on the picture; null: draw it alone. */
const boxOf = (name) => {
  if (!data.picture || ($("ground") && $("ground").value === "alone")) return null;
  if (!sample) return name === "newline" ? null : WHOLE;
  const plane = samplePlane(name);
  return plane && plane.box;
};

const fill = (select, options, wanted) => {
  select.replaceChildren(...options.map(([value, words]) => make("option", words, { value })));
  if (options.some(([value]) => value === wanted)) select.value = wanted;
};
const refill = () => {
  const prior = first(), slider = $("layer");
  const middle = Math.floor((prior.layers.length - 1) / 2), known = prior.layers.indexOf(state.layer), at = known < 0 ? middle : known;
  slider.max = String(prior.layers.length - 1); slider.value = String(at); slider.disabled = prior.layers.length < 2;
  state.layer = prior.layers[at];
  fill($("plane"), prior.planes.map((plane) => [plane.name, `${plane.name}, ${plane.rows} × ${plane.cols}`]), $("plane").value);
  const heads = prior.planes[0].n_heads;
  fill($("head"), [["", heads ? "mean of all" : "mean of all (no others stored)"], ...Array.from({ length: heads }, (_, i) => [String(i), `head ${i}`])], $("head").value);
  $("head").disabled = heads === 0;
};

const panel = (parent, title, note, label) => {
  const figure = make("figure", "", { class: "panel" }), caption = make("figcaption"), canvas = make("canvas", "", {
    tabindex: "0", role: "application", "aria-roledescription": "token map", "aria-label": label, "aria-describedby": "help",
  });
  const heading = make("h3", title);
  caption.append(heading, make("span", note, { class: "faint" }));
  figure.append(caption, canvas);
  parent.append(figure);
  return { figure, canvas, heading };
};
const bar = (figure, shades, limit, unit) => {
  const ends = [2 ** -limit, 2 ** limit], shown = make("div", "", { class: "bar" });
  shown.append(make("span", `${short(ends[0])} ×`), make("span", "", { class: "shades", style: `background:linear-gradient(90deg,${shades.steps.filter((_, i) => i % 16 === 0 || i === shades.steps.length - 1).join()})` }),
    make("span", `${short(ends[1])} ×`), make("span", `${unit}; beyond the ends darker still`, { class: "unit" }));
  figure.append(shown);
};

/* What is drawn now: each view has a title, its numbers, and how to draw it. */
const mapViews = () => {
  const plane = $("plane").value, head = $("head").value, box = boxOf(plane), views = [];
  const a = mapOf(first(), state.layer, plane, head), b = second() && mapOf(second(), state.layer, plane, head);
  const named = (prior, map, other) => {
    const verdict = prior.verdicts[prior.layers.indexOf(state.layer)];
    const logs = $("scale").value === "shared" && other ? [logsOf(map.values), logsOf(other.values)] : [logsOf(map.values)];
    const words = [`layer ${state.layer} (K = ${state.layer + 1})`, head === "" ? verdict : `head ${head}`].filter(Boolean).join(" · ");
    views.push({ title: prior.name, words, note: `${words} — ${prior.note}`, map, shades: data.colours.relative, limit: limitOf(logs), unit: "attention relative to uniform", box });
  };
  if (a) named(first(), a, b);
  if (second() && !b) views.push({ title: second().name, note: `has no layer ${state.layer}, plane ${plane} or such a head` });
  if (b) named(second(), b, a);
  if (a && b) {
    const map = ratioOf(a, b);
    views.push({ title: "Ratio", words: "ratio", note: `${first().name} over ${second().name}, each over its own mean`, map, shades: data.colours.ratio, limit: limitOf([logsOf(map.values)]), unit: "first over second", box });
  }
  return views;
};
const keptViews = () => {
  if (!sample) return [];
  const { share, tau } = setting(), k = state.layer + 1;
  const plane = samplePlane($("plane").value) || { number: 0, ...sample.planes[0] };
  return sample.choices.map((one) => {
    const bits = keptOf(one, k, share, tau);
    if (!bits) return { title: one.title, note: `was not asked at K = ${k}`, colour: one.colour };
    let count = 0;
    for (let i = 0; i < sample.n; i++) count += isKept(bits, i);
    return { title: one.title, words: "", note: `${count} of ${sample.n} visual tokens`, colour: one.colour, bits, plane, box: boxOf(plane.name) };
  });
};

const draw = () => {
  const panels = $("panels"), methods = $("methods"), kept = document.activeElement && document.activeElement.dataset.view;
  state.places = [];
  panels.replaceChildren(); if (methods) methods.replaceChildren();
  const opacity = $("opacity") ? Number($("opacity").value) : 1;
  const show = (parent, view) => {
    const { figure, canvas, heading } = panel(parent, view.title, view.note, `${view.title}: ${view.note}`);
    if (view.colour) heading.prepend(make("span", "", { class: "chip", style: `background:${view.colour}`, "aria-hidden": "true" }));
    if (!view.map && !view.bits) { canvas.remove(); return; }
    const paint = () => view.map ? drawMap(canvas, view.map, view.shades, view.limit, view.box, opacity)
      : drawKept(canvas, view.plane, sample.index[view.plane.number], view.bits, view.box);
    if (view.map) bar(figure, view.shades, view.limit, view.unit);
    canvas.dataset.view = String(state.places.length);
    const entry = { view, canvas, paint, place: paint() };
    drawCursor(entry.place, state.row, state.col);
    state.places.push(entry);
    canvas.addEventListener("pointermove", (event) => point(entry, event));
    canvas.addEventListener("pointerdown", (event) => point(entry, event));
    canvas.addEventListener("keydown", (event) => step(entry, event));
  };
  mapViews().forEach((view) => show(panels, view));
  keptViews().forEach((view) => show(methods, view));
  if (kept !== undefined && state.places[Number(kept)]) state.places[Number(kept)].canvas.focus();
  told();
  tabulate();
  const spot = $("layer-text"); spot.textContent = `${state.layer} (K = ${state.layer + 1})`;
  $("layer").setAttribute("aria-valuetext", spot.textContent);
  if ($("opacity")) $("opacity-text").textContent = `${Math.round(100 * opacity)} %`;
  if (!sample) return;
  const { retention, strength } = setting();
  $("retention-text").textContent = `${Number((100 * retention).toPrecision(3))} %`; $("strength-text").textContent = String(strength);
  for (const id of ["retention", "strength"]) $(id).setAttribute("aria-valuetext", $(`${id}-text`).textContent);
  $("kept-note").textContent = `Before decoder layer K = ${state.layer + 1}; methods that act before the language model, and those written with @k=, keep the same at every layer. τ counts for methods with a prior.`;
};

/* Numbers of the cell: [what, value] pairs. */
const numbers = () => {
  const found = [["row", state.row], ["col", state.col]];
  for (const { view } of state.places) {
    if (!view.map || state.row >= view.map.rows || state.col >= view.map.cols) continue;
    found.push([view.title, `${short(view.map.values[state.row * view.map.cols + state.col])} ×`]);
  }
  const plane = sample && samplePlane($("plane").value);
  if (!plane || state.row >= plane.rows || state.col >= plane.cols) return found;
  const token = sample.index[plane.number][state.row * plane.cols + state.col];
  found.splice(0, 0, ["token", `${token} of ${sample.n}`]);
  const attention = sample.attention[String(state.layer + 1)];
  if (attention) {
    const mean = attention.reduce((sum, value) => sum + value, 0) / sample.n, mine = attention[token];
    found.push(["attention to this picture", `${mine.toExponential(2)} (${short(mine / mean)} ×)`]);
    const map = mapOf(first(), state.layer, plane.name, "");
    if (map) {
      const bias = resample(map, plane.rows, plane.cols).values[state.row * plane.cols + state.col];
      found.push([`over ${first().name}, τ = ${setting().strength}`, `${short(mine / mean / bias ** setting().strength)} ×`]);
    }
  }
  const keepers = state.places.filter(({ view }) => view.bits && isKept(view.bits, token)).map(({ view }) => view.title);
  found.push(["kept by", keepers.join(", ") || "none"]);
  return found;
};
const told = () => {
  $("numbers").replaceChildren(...numbers().map(([what, value]) => {
    const pair = make("div");
    pair.append(make("dt", what), make("dd", String(value)));
    return pair;
  }));
};
const move = (entry, row, col, aloud) => {
  const rows = entry.place.rows, cols = entry.place.cols;
  const now = [Math.min(Math.max(row, 0), rows - 1), Math.min(Math.max(col, 0), cols - 1)];
  if (now[0] === state.row && now[1] === state.col && !aloud) return;
  [state.row, state.col] = now;
  for (const one of state.places) { one.place = one.paint(); drawCursor(one.place, state.row, state.col); }
  told();
  if (aloud) $("spoken").textContent = numbers().map(([what, value]) => `${what} ${value}`).join(", ");
};
const point = (entry, event) => {
  const { place, canvas } = entry, scale = canvas.width / canvas.clientWidth;
  const row = Math.floor((event.offsetY * scale - place.top) / place.high), col = Math.floor((event.offsetX * scale - place.left) / place.wide);
  if (row >= 0 && col >= 0 && row < place.rows && col < place.cols) move(entry, row, col, false);
};
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-8, 0], PageDown: [8, 0] };
const step = (entry, event) => {
  const by = STEPS[event.key];
  if (by) move(entry, state.row + by[0], state.col + by[1], true);
  else if (event.key === "Home") move(entry, event.ctrlKey ? 0 : state.row, 0, true);
  else if (event.key === "End") move(entry, event.ctrlKey ? entry.place.rows : state.row, entry.place.cols, true);
  else return;
  event.preventDefault();
};
const tabulate = () => {
  const details = $("table"), room = details.querySelector("div");
  room.replaceChildren();
  const view = state.places.length && state.places[0].view;
  if (!details.open || !view || !view.map) return;
  const table = make("table"), head = table.createTHead().insertRow();
  table.prepend(make("caption", `${view.title}, ${view.words}: multiples of uniform attention`));
  head.append(make("th", "row", { scope: "col" }), ...Array.from({ length: view.map.cols }, (_, c) => make("th", String(c), { scope: "col" })));
  const body = table.createTBody();
  for (let r = 0; r < view.map.rows; r++) {
    const line = body.insertRow();
    line.append(make("th", String(r), { scope: "row" }));
    for (let c = 0; c < view.map.cols; c++) line.append(make("td", short(view.map.values[r * view.map.cols + c])));
  }
  room.append(table);
};

const begin = () => {
  if (sample) {
    $("retention").max = String(sample.retentions.length - 1); $("strength").max = String(sample.strengths.length - 1);
    const tenth = sample.retentions.findIndex((share) => Math.abs(share - 0.1) < 0.02);
    $("retention").value = String(Math.max(0, tenth)); $("strength").value = String(sample.strengths.length - 1);
  }
  if (data.priors.length > 1) $("second").value = "1";
  refill(); draw();
  $("first").addEventListener("change", () => { refill(); draw(); });
  $("layer").addEventListener("input", () => { state.layer = first().layers[Number($("layer").value)]; draw(); });
  for (const id of ["second", "head", "plane", "scale", "ground"]) if ($(id)) $(id).addEventListener("change", draw);
  for (const id of ["opacity", "retention", "strength"]) if ($(id)) $(id).addEventListener("input", draw);
  $("table").addEventListener("toggle", tabulate);
  document.documentElement.dataset.ready = "yes";
};
if (data.picture) { photo.addEventListener("load", begin); photo.src = data.picture.src; } else begin();
