"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const floatsOf = (text) => new Float32Array(bytesOf(text).buffer);
for (const prior of data.priors) for (const plane of prior.planes) {
  plane.values = floatsOf(plane.maps);
  plane.headValues = plane.heads === null ? null : floatsOf(plane.heads);
}
const sample = data.sample;
if (sample) {
  for (const k of Object.keys(sample.attention)) sample.attention[k] = floatsOf(sample.attention[k]);
  for (const one of sample.choices) for (const key of Object.keys(one.kept)) one.kept[key] = bytesOf(one.kept[key]);
  sample.index = sample.planes.map((plane) => new Int32Array(plane.rows * plane.cols).fill(-1));
  for (let i = 0; i < sample.n; i++) sample.index[sample.plane[i]][sample.row[i] * sample.planes[sample.plane[i]].cols + sample.col[i]] = i;
}

/* One map of a prior: multiples of uniform, row by row; null where the prior lacks the layer, plane or head. */
const mapOf = (prior, layer, planeName, head) => {
  const at = prior.layers.indexOf(layer), plane = prior.planes.find((one) => one.name === planeName);
  if (at < 0 || !plane) return null;
  const size = plane.rows * plane.cols;
  if (head === "") return { rows: plane.rows, cols: plane.cols, values: plane.values.subarray(at * size, (at + 1) * size) };
  if (!plane.headValues || Number(head) >= plane.n_heads) return null;
  const from = (at * plane.n_heads + Number(head)) * size;
  return { rows: plane.rows, cols: plane.cols, values: plane.headValues.subarray(from, from + size) };
};

/* Bilinear, pixel centres, edges repeated: what biaskit.prior.resample does. */
const resample = (map, rows, cols) => {
  if (map.rows === rows && map.cols === cols) return map;
  const values = new Float32Array(rows * cols);
  const axis = (size, from) => Array.from({ length: size }, (_, i) => {
    const at = Math.min(Math.max((i + 0.5) * from / size - 0.5, 0), from - 1), low = Math.min(Math.floor(at), from - 1);
    return [low, Math.min(low + 1, from - 1), at - low];
  });
  const ys = axis(rows, map.rows), xs = axis(cols, map.cols);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) {
    const [y0, y1, fy] = ys[r], [x0, x1, fx] = xs[c], v = map.values, w = map.cols;
    values[r * cols + c] = (v[y0 * w + x0] * (1 - fx) + v[y0 * w + x1] * fx) * (1 - fy) + (v[y1 * w + x0] * (1 - fx) + v[y1 * w + x1] * fx) * fy;
  }
  return { rows, cols, values };
};
const overMean = (map) => {
  const mean = map.values.reduce((sum, value) => sum + value, 0) / map.values.length;
  return map.values.map((value) => value / mean);
};
const ratioOf = (a, b) => {
  const rows = Math.min(a.rows, b.rows), cols = Math.min(a.cols, b.cols);
  const x = overMean(resample(a, rows, cols)), y = overMean(resample(b, rows, cols));
  return { rows, cols, values: x.map((value, i) => Math.max(value, 1e-9) / Math.max(y[i], 1e-9)) };
};
const logsOf = (values) => Float32Array.from(values, (value) => Math.log2(Math.max(value, 1e-6)));
/* Half-width of the colour scale, the rule of biaskit.figures.colours.colour_limit. */
const limitOf = (maps) => {
  const rule = data.scale;
  const robust = Math.max(...maps.map((logs) => {
    const sorted = Float32Array.from(logs, Math.abs).sort();
    return sorted[Math.floor(rule.robust / 100 * (sorted.length - 1))];
  }));
  return Math.min(Math.max(Math.ceil((robust + rule.headroom) * 4) / 4, Math.log2(rule.faintest)), Math.log2(rule.strongest));
};
const short = (value) => value === 0 ? "0" : value >= 100 ? value.toFixed(0) : value >= 0.01 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
const keyOf = (k, share, tau) => [k, share, tau].map((part) => part === null ? "" : String(part)).join("|");
/* The choices of a method at K and the numbers of the settings; null where it was not asked there. */
const keptOf = (one, k, share, tau) => {
  for (const depth of [k, null]) for (const strength of [tau, null]) {
    const found = one.kept[keyOf(depth, share, strength)];
    if (found) return found;
  }
  return null;
};
const isKept = (bits, token) => (bits[token >> 3] >> (token & 7) & 1) === 1;
