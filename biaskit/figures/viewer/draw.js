const photo = new Image();
const WHOLE = [0, 0, 1, 1];
/* What a view shows: the picture and the padding that tokens cover, in fractions of the picture, and its size in pixels. */
const frameOf = (box, rows, cols) => {
  const [left, top, right, bottom] = box, half = [(right - left) / cols / 2, (bottom - top) / rows / 2];
  const x0 = left < -half[0] ? left : 0, y0 = top < -half[1] ? top : 0, x1 = right > 1 + half[0] ? right : 1, y1 = bottom > 1 + half[1] ? bottom : 1;
  return { x0, y0, wide: (x1 - x0) * data.picture.width, high: (y1 - y0) * data.picture.height };
};
/* Fit a canvas to a shape; returns its context, cleared, and how cells lie in it. */
const stage = (canvas, rows, cols, box) => {
  const frame = box && frameOf(box, rows, cols);
  const shape = frame ? [frame.wide, frame.high] : [Math.max(cols, rows / 8), Math.max(rows, cols / 8)];
  const factor = 720 / Math.max(...shape);
  canvas.width = Math.round(shape[0] * factor); canvas.height = Math.round(shape[1] * factor);
  const pen = canvas.getContext("2d");
  if (!frame) return { pen, left: 0, top: 0, wide: canvas.width / cols, high: canvas.height / rows, rows, cols };
  const scale = [canvas.width * data.picture.width / frame.wide, canvas.height * data.picture.height / frame.high];
  const at = (x, y) => [(x - frame.x0) * scale[0], (y - frame.y0) * scale[1]];
  pen.fillStyle = `rgb(${Array(3).fill(Math.round(255 * data.veil[2])).join()})`;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(photo, ...at(0, 0), ...scale);
  const [left, top] = at(box[0], box[1]), [right, bottom] = at(box[2], box[3]);
  return { pen, left, top, wide: (right - left) / cols, high: (bottom - top) / rows, rows, cols, picture: [...at(0, 0), ...scale] };
};
/* Stripe what no token covers. */
const hatch = (place, canvas) => {
  if (!place.picture) return;
  const { pen } = place, [x, y, wide, high] = place.picture;
  const inside = [place.left, place.top, place.wide * place.cols, place.high * place.rows];
  pen.save();
  pen.beginPath(); pen.rect(x, y, wide, high); pen.rect(inside[0] + inside[2], inside[1], -inside[2], inside[3]); pen.clip("evenodd");
  pen.beginPath(); pen.rect(x, y, wide, high); pen.clip();
  pen.beginPath(); pen.rect(0, 0, canvas.width, canvas.height); pen.rect(...inside); pen.clip("evenodd");
  pen.fillStyle = "#ededed"; pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.strokeStyle = "#737373"; pen.lineWidth = 1.5; pen.beginPath();
  for (let s = -canvas.height; s < canvas.width; s += 12) { pen.moveTo(s, canvas.height); pen.lineTo(s + canvas.height, 0); }
  pen.stroke(); pen.restore();
};
const shade = (shades, log, limit) => log < -limit ? shades.under : log > limit ? shades.over
  : shades.steps[Math.min(shades.steps.length - 1, Math.floor((log + limit) / (2 * limit) * shades.steps.length))];
const drawMap = (canvas, map, shades, limit, box, opacity) => {
  const place = stage(canvas, map.rows, map.cols, box), { pen } = place, logs = logsOf(map.values);
  pen.globalAlpha = box ? opacity : 1;
  for (let r = 0; r < map.rows; r++) for (let c = 0; c < map.cols; c++) {
    const x = Math.round(place.left + c * place.wide), y = Math.round(place.top + r * place.high);
    pen.fillStyle = shade(shades, logs[r * map.cols + c], limit);
    pen.fillRect(x, y, Math.round(place.left + (c + 1) * place.wide) - x, Math.round(place.top + (r + 1) * place.high) - y);
  }
  pen.globalAlpha = 1;
  hatch(place, canvas);
  return place;
};
const drawKept = (canvas, plane, index, bits, box) => {
  const place = stage(canvas, plane.rows, plane.cols, box), { pen } = place, kept = (r, c) => r >= 0 && c >= 0 && r < plane.rows && c < plane.cols
    && isKept(bits, index[r * plane.cols + c]);
  const grey = Math.round(255 * data.veil[0]);
  const corner = (r, c) => [place.left + c * place.wide, place.top + r * place.high];
  for (let r = 0; r < plane.rows; r++) for (let c = 0; c < plane.cols; c++) {
    if (kept(r, c)) { if (!box) { pen.fillStyle = "#ffffff"; pen.fillRect(...corner(r, c), place.wide, place.high); } continue; }
    pen.fillStyle = `rgba(${grey},${grey},${grey},${box ? data.veil[1] : 1})`;
    pen.fillRect(...corner(r, c), place.wide + 0.4, place.high + 0.4);
    pen.fillStyle = "#1f1f1f"; pen.beginPath();
    pen.arc(place.left + (c + 0.5) * place.wide, place.top + (r + 0.5) * place.high, Math.max(0.7, 0.08 * Math.min(place.wide, place.high)), 0, 7);
    pen.fill();
  }
  hatch(place, canvas);
  for (const [width, colour] of [[3.5, "#262626"], [1.8, data.colours.edge]]) {
    pen.lineWidth = width * Math.min(1, Math.min(place.wide, place.high) / 16 + 0.3); pen.strokeStyle = colour; pen.lineCap = "square"; pen.beginPath();
    for (let r = 0; r <= plane.rows; r++) for (let c = 0; c <= plane.cols; c++) {
      if (c < plane.cols && kept(r, c) !== kept(r - 1, c)) { pen.moveTo(...corner(r, c)); pen.lineTo(...corner(r, c + 1)); }
      if (r < plane.rows && kept(r, c) !== kept(r, c - 1)) { pen.moveTo(...corner(r, c)); pen.lineTo(...corner(r + 1, c)); }
    }
    pen.stroke();
  }
  return place;
};
/* Outline one cell, in black and white, so that it shows on every colour. */
const drawCursor = (place, row, col) => {
  if (row >= place.rows || col >= place.cols) return;
  const { pen } = place, cell = [place.left + col * place.wide, place.top + row * place.high, place.wide, place.high];
  pen.lineWidth = 4; pen.strokeStyle = "#000"; pen.strokeRect(...cell);
  pen.lineWidth = 2; pen.strokeStyle = "#fff"; pen.strokeRect(...cell);
};
