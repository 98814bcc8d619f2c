"use strict";
// The newest frame of each source. The server sends pictures and detections; this page draws them,
// so a slider acts at once, and on paused pictures too.
const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token");
const url = (path, query = {}) =>
  `${path}?${new URLSearchParams(token ? { ...query, token } : query)}`;

let about = null; // sources, classes, draw_conf, areas
let number = 0; // of the newest frame that is here
let paused = false;
let lost = false; // the connection, since the last answer
const tiles = []; // by source: {canvas, frame, bitmap, received, ...}
const rows = new Map(); // by class: {on, score, slider, ...}

function color(id) { // as the annotated copies have it: hues a golden angle apart
  const hue = (0.07 + id * 0.618034) % 1;
  const value = id % 2 ? 0.8 : 1;
  const part = (n) => {
    const k = (n + hue * 6) % 6;
    return Math.round(255 * (value - value * 0.85 * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [part(5), part(3), part(1)];
}
const css = ([r, g, b]) => `rgb(${r}, ${g}, ${b})`;
const ink = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#000" : "#fff");

function wanted(frame) {
  return frame.detections.filter(([, , , , score, label]) => {
    const row = rows.get(label);
    return !row || (row.on.checked && score >= Number(row.slider.value));
  });
}

function draw(tile) {
  const { canvas, bitmap, frame } = tile;
  if (!bitmap) return;
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const scale = bitmap.width / frame.size[0];
  const dots = bitmap.width / Math.max(1, canvas.clientWidth); // canvas pixels in a CSS pixel
  const shown = wanted(frame);
  context.lineWidth = Math.max(1.5, 2 * dots);
  context.font = `${Math.max(11, Math.round(12 * dots))}px system-ui, "DejaVu Sans", sans-serif`;
  context.textBaseline = "top";
  drawAreas(context, tile, dots);
  const taken = [];
  const labels = [];
  const height = Math.max(11, Math.round(12 * dots)) * 1.35;
  for (const [x1, y1, x2, y2, score, label, track] of shown) {
    const tint = color(track >= 0 ? track : label);
    context.strokeStyle = css(tint);
    context.strokeRect(x1 * scale, y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale);
    const text = `${track >= 0 ? `#${track} ` : ""}${about.classes[label]} ${score.toFixed(2)}`;
    const width = context.measureText(text).width + 6 * dots;
    const left = Math.max(0, Math.min(x1 * scale, canvas.width - width));
    const places = [y1 * scale - height, y1 * scale, y2 * scale, y2 * scale - height]
      .filter((top) => top >= 0 && top + height <= canvas.height);
    const free = places.find((top) => !taken.some((other) =>
      left < other[0] + other[2] && other[0] < left + width
      && top < other[1] + height && other[1] < top + height));
    if (free === undefined) continue; // the box stays; a label would hide a better one
    taken.push([left, free, width]);
    labels.push([left, free, width, text, tint]);
  }
  for (const [left, top, width, text, tint] of labels) {
    context.fillStyle = css(tint);
    context.fillRect(left, top, width, height);
    context.fillStyle = ink(tint);
    context.fillText(text, left + 3 * dots, top + height * 0.14);
  }
  canvas.dataset.shown = shown.length;
  canvas.dataset.frame = frame.frame;
}

function drawAreas(context, tile, dots) {
  const areas = about.areas;
  if (!areas) return;
  const x = context.canvas.width / areas.size[0];
  const y = context.canvas.height / areas.size[1];
  const path = (points, closed) => {
    context.beginPath();
    points.forEach(([px, py], i) => context[i ? "lineTo" : "moveTo"](px * x, py * y));
    if (closed) context.closePath();
    context.stroke();
  };
  const name = (text, [px, py]) => {
    const width = context.measureText(text).width;
    const left = Math.max(0, Math.min(px * x + 4 * dots, context.canvas.width - width));
    const top = Math.min(py * y + 3 * dots, context.canvas.height - 17 * dots);
    context.strokeText(text, left, top);
    context.fillText(text, left, top);
  };
  for (const [stroke, width] of [["#000", 4 * dots], ["#fff", 2 * dots]]) {
    context.strokeStyle = stroke;
    context.lineWidth = width;
    for (const { points } of [...areas.regions, ...areas.zones]) path(points, true);
    for (const { start, end } of areas.lines) path([start, end], false);
  }
  context.strokeStyle = "#000";
  context.fillStyle = "#fff";
  context.lineWidth = 3 * dots;
  for (const { name: text, points } of [...areas.regions, ...areas.zones]) name(text, points[0]);
  for (const { name: text, start } of areas.lines) name(text, start);
  context.lineWidth = Math.max(1.5, 2 * dots);
}

function addClass(label) { // a row for each class that was seen
  const tint = document.createElement("span");
  tint.className = "swatch";
  tint.style.setProperty("background", css(color(label)));
  const on = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
  on.setAttribute("aria-label", `show ${about.classes[label]}`);
  const name = document.createElement("span");
  name.append(tint, about.classes[label]);
  name.title = about.classes[label];
  const slider = Object.assign(document.createElement("input"),
    { type: "range", min: 0, max: 1, step: 0.01, value: $("score").value });
  const output = document.createElement("output");
  const line = document.createElement("label");
  line.className = "slider";
  line.append(name, slider, output);
  const row = document.createElement("div");
  row.className = "class";
  row.append(on, line);
  const entry = { on, slider, output, row };
  rows.set(label, entry);
  on.addEventListener("change", () => tiles.forEach(draw));
  slider.addEventListener("input", () => { show(entry); tiles.forEach(draw); });
  show(entry);
  const next = [...rows.keys()].filter((other) => other > label).sort((a, b) => a - b)[0];
  $("classes").insertBefore(row, next === undefined ? null : rows.get(next).row);
}
const show = ({ slider, output }) => { output.value = Number(slider.value).toFixed(2); };

function addTile(name, index) {
  const figure = $("tile").content.firstElementChild.cloneNode(true);
  const part = (query) => figure.querySelector(query);
  const tile = { canvas: part("canvas"), figures: part(".figures"), waiting: part(".waiting"),
    counts: part(".counts"), bitmap: null, frame: null, received: 0, rate: 0, dropped: 0 };
  part(".name").textContent = name;
  part(".name").title = name;
  const enlarge = () => {
    const large = figure.classList.toggle("large");
    $("grid").classList.toggle("enlarged", large);
    tile.canvas.setAttribute("aria-label", large ? "Show all sources" : "Enlarge");
    $("all").hidden = !large || tiles.length < 2;
    requestAnimationFrame(() => tiles.forEach(draw));
  };
  tile.canvas.addEventListener("click", enlarge);
  tile.canvas.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); enlarge(); }
  });
  part(".snapshot").addEventListener("click", () => tile.frame && tile.canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `source-${index}-frame-${tile.frame.frame}.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  }));
  tiles.push(tile);
  $("grid").append(figure);
}

function tell(head) {
  tiles.forEach((tile, i) => {
    if (head) [tile.rate, tile.dropped] = [head.rates[i], head.dropped[i]];
    if (!tile.frame) return;
    const age = tile.frame.age_ms + (paused ? 0 : performance.now() - tile.received);
    const old = age >= 1000 ? `${(age / 1000).toFixed(1)} s` : `${age.toFixed(0)} ms`;
    tile.figures.textContent = `${tile.rate.toFixed(1)} frames/s, ${old} old, `
      + `${tile.dropped} dropped, frame ${tile.frame.frame}`;
    if (head && head.counts[i]) tile.counts.textContent = head.counts[i].join("; ");
  });
  if (!head) return;
  $("stages").replaceChildren(...Object.entries(head.stages).map(([name, ms]) => {
    const row = document.createElement("tr");
    const [left, right] = [row.insertCell(), row.insertCell()];
    const part = name.startsWith("infer: ");
    left.textContent = part ? name.slice(7) : name;
    left.className = part ? "part" : "";
    right.textContent = `${ms.toFixed(1)} ms`;
    return row;
  }));
}

function state(text, kind = "") {
  if ($("state").textContent !== text) $("state").textContent = text;
  $("state").className = kind;
}

async function get(path, query) {
  const answer = await fetch(url(path, query), { cache: "no-store" });
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

async function next() { // one message of the server
  const data = await (await get("news", { after: number })).arrayBuffer();
  const length = new DataView(data).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  if (paused) return head;
  let offset = 4 + length;
  for (const frame of head.frames) {
    const jpeg = new Blob([new Uint8Array(data, offset, frame.bytes)], { type: "image/jpeg" });
    offset += frame.bytes;
    const tile = tiles[frame.source];
    const bitmap = await createImageBitmap(jpeg);
    if (tile.bitmap) tile.bitmap.close();
    Object.assign(tile, { bitmap, frame, received: performance.now() });
    tile.waiting.hidden = true;
    for (const [, , , , , label] of frame.detections) if (!rows.has(label)) addClass(label);
    draw(tile);
  }
  number = head.number;
  tell(head);
  return head;
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function run() {
  for (;;) {
    try {
      if (!about) {
        about = await (await get("about")).json();
        $("score").value = about.draw_conf;
        $("score-value").value = about.draw_conf.toFixed(2);
        about.sources.forEach(addTile);
        setInterval(() => tell(null), 250);
      }
      if (lost) { // it may be another job by now
        const now = await (await get("about")).json();
        if (JSON.stringify(now) !== JSON.stringify(about)) location.reload();
        [lost, number] = [false, 0];
      }
      if (paused || document.hidden) {
        state(paused ? "paused" : "hidden");
        await sleep(100);
        continue;
      }
      const head = await next();
      if (head.ended) { state("the job has ended"); return; }
      if (!paused) state("live", "live");
    } catch (error) {
      lost = about !== null;
      state(error instanceof TypeError ? "no connection; trying again" : error.message, "lost");
      await sleep(1000);
    }
  }
}

$("controls").open = innerWidth > 760;
$("score").addEventListener("input", () => {
  $("score-value").value = Number($("score").value).toFixed(2);
  for (const row of rows.values()) { row.slider.value = $("score").value; show(row); }
  tiles.forEach(draw);
});
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").textContent = paused ? "Go on" : "Pause";
  $("pause").setAttribute("aria-pressed", String(paused));
});
const shrink = () => document.querySelector(".large canvas")?.click();
$("all").addEventListener("click", shrink);
addEventListener("keydown", (event) => { if (event.key === "Escape") shrink(); });
addEventListener("resize", () => tiles.forEach(draw));
run();
