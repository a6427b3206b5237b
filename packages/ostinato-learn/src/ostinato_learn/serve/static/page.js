// The page of ostinato serve. One file, no build, nothing from elsewhere.
"use strict";

const $ = (id) => document.getElementById(id);
const KEY = "ostinato-token";
const LABELS = 10; // colours in page.css
let model = null; // the metadata of the model that is shown
let facts = null; // what else the page may do with it

// ---- the server

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem(KEY);
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  if (answer.status === 401) $("token").hidden = false;
  let message = `${answer.status} ${answer.statusText}`;
  try { message = (await answer.json()).error || message; } catch { /* it is no JSON */ }
  throw new Error(message);
}

const askJson = async (path, body) => (await ask(path, body === undefined ? {} : {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
})).json();

const at = (rest = "") => `/v2/models/${encodeURIComponent(model.name)}${rest}`;

function problem(error) {
  if (error && error.name === "AbortError") return;
  $("problem").textContent = error ? String(error.message || error) : "";
  $("problem").hidden = !error;
}

// What is done on a click: errors are shown, and the one before is gone.
const guarded = (f) => async (...given) => {
  problem(null);
  try { await f(...given); } catch (error) { problem(error); }
};
const on = (id, event, f) => $(id).addEventListener(event, guarded(f));

function make(tag, attributes = {}, ...inside) {
  const found = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  found.append(...inside);
  return found;
}

const percent = (p) => `${(100 * p).toFixed(p > 0.9995 || p < 0.0005 ? 0 : 1)} %`;
const best = (p) => p.indexOf(Math.max(...p));
const colour = (i) => `var(--label-${i % LABELS})`;

// ---- which model

async function begin() {
  const index = await askJson("/v2/repository/index", {});
  const names = [...new Set(index.map((each) => each.name))];
  $("models").hidden = names.length < 2;
  $("models").replaceChildren(...names.map((name) => {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", guarded(() => show(name)));
    return button;
  }));
  const asked = decodeURIComponent(location.hash.slice(1));
  await show(names.includes(asked) ? asked : names[0]);
}

async function show(name) {
  stopReading();
  model = await askJson(`/v2/models/${encodeURIComponent(name)}`);
  facts = await askJson(at("/card"));
  history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  for (const button of $("models").children) {
    button.toggleAttribute("aria-current", button.textContent === name);
  }
  document.title = `${name} – ostinato`;
  $("name").textContent = name;
  const kind = model.parameters.kind.replaceAll("_", " ");
  $("about").textContent = `A ${kind}, version ${model.versions[0]}, ` +
    `fingerprint ${model.parameters.fingerprint.slice(0, 12)}.` +
    (model.parameters.sequences ? "" : ` No open sequences: ${model.parameters.why_no_sequences}.`);
  const F = model.inputs[0].shape.at(-1);
  const classifies = model.parameters.kind === "sequence_classifier";
  const image = classifies && model.inputs[0].name === "x" && !facts.table &&
    (facts.image || (F === 28 && !facts.examples ? "rows" : null));
  const language = model.parameters.kind === "language_model";
  facts.image = image;
  $("image").hidden = !image;
  $("text").hidden = !language;
  $("table").hidden = Boolean(image || language);
  if (image) beginPad();
  else if (language) beginText();
  else beginTable();
  $("card").replaceChildren(...markdown(facts.text));
  $("calls").replaceChildren(...calls());
}

on("token", "submit", async (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, $("token-text").value);
  $("token").hidden = true;
  await begin();
});

// ---- belief after each step: one request

// Rows [T][F] → [T][C]: of an open sequence, or of all beginnings of the sequence in one batch.
async function belief(rows) {
  if (model.parameters.sequences) {
    const { id } = await askJson(at("/sessions"), {});
    const found = await askJson(at(`/sessions/${id}/steps`), { n: 1, x: rows, each: true, end: true });
    return found.each.map((step) => step.probabilities);
  }
  const T = rows.length, F = rows[0].length, flat = rows.flat();
  const data = rows.flatMap(() => flat);
  const answer = await askJson(at("/infer"), {
    inputs: [
      { name: "x", shape: [T, T, F], datatype: "FP32", data },
      { name: "lengths", shape: [T], datatype: "INT64", data: rows.map((_, t) => t + 1) },
    ],
    outputs: [{ name: "probabilities" }],
  });
  const { data: p, shape: [, C] } = answer.outputs[0];
  return rows.map((_, t) => p.slice(t * C, (t + 1) * C));
}

// ---- charts

// Round numbers from low to high, three to six of them.
function ticks(low, high) {
  const power = 10 ** Math.floor(Math.log10(high - low || 1));
  const step = [0.2, 0.25, 0.5, 1, 2].map((each) => each * power).find((each) => (high - low) / each <= 5);
  const first = Math.ceil(low / step - 1e-9), n = Math.floor(high / step + 1e-9) - first;
  return Array.from({ length: n + 1 }, (_, i) => (first + i) * step);
}

// Lines over steps. `given`: {lines: [{name, y, colour}], bands, marks, here, low, high, what, from, names}
// With `names` of the steps, such as dates, the names of lines stand beside their ends.
function chart(given) {
  const W = Math.max(280, Math.min(720, document.body.clientWidth - 70)), H = 240, left = 44, top = 10, bottom = 30;
  const right = given.names ? 60 : 12;
  const T = given.steps, x = (t) => left + (W - left - right) * (T > 1 ? t / (T - 1) : 0.5);
  const y = (v) => top + (H - top - bottom) * (1 - (v - given.low) / (given.high - given.low || 1));
  const path = (values, from = 0) => values.map((v, t) => v === null ? "" :
    `${t && values[t - 1] !== null ? "L" : "M"}${x(from + t).toFixed(1)} ${y(v).toFixed(1)}`).join("");
  const svg = make("svg:svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": given.what });
  for (const v of ticks(given.low, given.high)) {
    svg.append(make("svg:line", { class: "axis", x1: left, x2: W - right, y1: y(v), y2: y(v) }));
    svg.append(make("svg:text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, given.tick(v)));
  }
  for (let i = 0; i < 5; i++) {
    const t = Math.round((T - 1) * i / 4);
    if (i && t === Math.round((T - 1) * (i - 1) / 4)) continue;
    const anchor = !given.names || (i && i < 4) ? "middle" : i ? "end" : "start"; // dates are wide
    svg.append(make("svg:text", { x: x(t), y: H - 8, "text-anchor": anchor }, given.names ? given.names[t] : String(t + 1)));
  }
  for (const { low, high, from, opacity } of given.bands || []) {
    const points = [...low.map((v, t) => `${x(from + t)},${y(v)}`), ...high.map((v, t) => `${x(from + t)},${y(v)}`).reverse()];
    svg.append(make("svg:polygon", { points: points.join(" "), fill: colour(0), "fill-opacity": opacity }));
  }
  for (const line of given.lines) {
    svg.append(make("svg:path", { class: "line", d: path(line.y, line.from || 0), stroke: line.colour }));
  }
  for (const t of given.marks || []) {
    svg.append(make("svg:line", { class: "mark", x1: x(t), x2: x(t), y1: top, y2: H - bottom }));
  }
  if (given.here !== undefined) {
    svg.append(make("svg:line", { class: "here", x1: x(given.here), x2: x(given.here), y1: top, y2: H - bottom }));
  }
  for (const line of given.lines) {
    const last = line.y.length - 1;
    if (!line.name || last < 0 || line.y[last] === null) continue;
    const end = x((line.from || 0) + last), place = given.names
      ? { x: end + 6, y: y(line.y[last]) + 4, "text-anchor": "start" } : { x: end - 4, y: y(line.y[last]) - 5, "text-anchor": "end" };
    const text = make("svg:text", place, line.name);
    text.style.fill = line.colour;
    svg.append(text);
  }
  return svg;
}

// The steps after which another class was the likeliest.
const changes = (steps) => steps.flatMap((p, t) => t && best(p) !== best(steps[t - 1]) ? [t] : []);

function beliefChart(steps, names, here) {
  const shown = here === undefined ? steps : steps.slice(0, here + 1);
  const top = names.map((name, c) => [Math.max(...shown.map((p) => p[c])), c]);
  const told = new Set(top.sort((a, b) => b[0] - a[0]).slice(0, LABELS).map(([, c]) => c));
  const last = shown.at(-1);
  const lines = names.map((name, c) => ({
    name: last[c] > 0.15 ? String(name) : "", y: shown.map((p) => p[c]), colour: colour(c),
  })).filter((_, c) => told.has(c));
  return chart({
    lines, steps: steps.length, low: 0, high: 1, tick: (v) => `${Math.round(100 * v)} %`, here,
    marks: changes(shown), what: "Belief in each class after each step",
  });
}

function bars(list, p, names) {
  const first = best(p);
  const order = names.length <= 12 ? names.map((_, c) => c)
    : names.map((_, c) => c).sort((a, b) => p[b] - p[a]).slice(0, 12);
  const items = order.map((c) => {
    const svg = make("svg:svg", { "aria-hidden": "true", preserveAspectRatio: "none", viewBox: "0 0 100 10" });
    svg.append(make("svg:rect", { width: 100 * p[c], height: 10, fill: colour(c) }));
    return make("li", c === first ? { class: "best" } : {}, make("span", { class: "name" }, String(names[c])), svg,
      make("span", { class: "share" }, percent(p[c])));
  });
  list.replaceChildren(...items);
}

// ---- the pad

const SIDE = 28;
const pad = { strokes: [], image: null, steps: null, shown: -1, timer: 0, example: null, cursor: [14, 6] };
const context = $("pad").getContext("2d");

function beginPad() {
  $("example").hidden = !facts.examples;
  clearPad();
}

function clearPad() {
  stopReading();
  Object.assign(pad, { strokes: [], image: null, steps: null, shown: -1, example: null });
  $("belief-said").textContent = "Nothing is drawn yet.";
  $("course-figure").hidden = true;
  bars($("belief"), model.parameters.labels.map(() => 0), model.parameters.labels);
  paint();
}

// Strokes as a picture of the kind that the network learnt from: 20 pixels high or wide, its centre
// of mass in the middle of 28 × 28.
function picture() {
  if (pad.example) return pad.example.image;
  const points = pad.strokes.flat();
  if (!points.length) return null;
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const low = [Math.min(...xs), Math.min(...ys)], high = [Math.max(...xs), Math.max(...ys)];
  const scale = 18 / Math.max(high[0] - low[0], high[1] - low[1], 6);
  const canvas = make("canvas", { width: SIDE, height: SIDE });
  const draw = canvas.getContext("2d", { willReadFrequently: true });
  const render = (dx, dy) => {
    draw.setTransform(1, 0, 0, 1, 0, 0);
    draw.clearRect(0, 0, SIDE, SIDE);
    draw.setTransform(scale, 0, 0, scale, 14 - scale * (low[0] + high[0]) / 2 + dx, 14 - scale * (low[1] + high[1]) / 2 + dy);
    draw.lineWidth = 2.3 / scale;
    draw.lineCap = draw.lineJoin = "round";
    for (const stroke of pad.strokes) {
      draw.beginPath();
      draw.moveTo(...stroke[0]);
      for (const point of stroke.length > 1 ? stroke : [stroke[0], stroke[0]]) draw.lineTo(...point);
      draw.stroke();
    }
    const alpha = draw.getImageData(0, 0, SIDE, SIDE).data;
    return Array.from({ length: SIDE }, (_, i) => Array.from({ length: SIDE }, (_, j) => alpha[4 * (SIDE * i + j) + 3] / 255));
  };
  let image = render(0, 0), sum = 0, cx = 0, cy = 0;
  image.forEach((row, i) => row.forEach((v, j) => { sum += v; cx += v * (j + 0.5); cy += v * (i + 0.5); }));
  if (sum) image = render(14 - cx / sum, 14 - cy / sum);
  return image;
}

// A picture [28][28] as the steps that the network reads.
function sequenceOf(image) {
  if (facts.image === "pixels") return image.flat().map((v) => [v]);
  if (facts.image === "columns") return image[0].map((_, j) => image.map((row) => row[j]));
  return image;
}

function paint() {
  const size = $("pad").width, cell = size / SIDE;
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink"), accent = style.getPropertyValue("--accent");
  context.clearRect(0, 0, size, size);
  context.fillStyle = context.strokeStyle = ink;
  if (pad.image) {
    pad.image.forEach((row, i) => row.forEach((v, j) => {
      context.globalAlpha = v;
      context.fillRect(j * cell, i * cell, cell + 0.3, cell + 0.3);
    }));
    context.globalAlpha = 1;
    if (pad.shown >= 0 && pad.steps) {
      context.fillStyle = style.getPropertyValue("--wrong"); // where it changed its mind
      for (const t of changes(pad.steps.slice(0, pad.shown + 1))) {
        if (facts.image === "columns") context.fillRect(t * cell, 0, cell, 8);
        else if (facts.image === "rows") context.fillRect(0, t * cell, 8, cell);
      }
      const at = facts.image === "pixels" ? Math.floor(pad.shown / SIDE) : pad.shown;
      context.strokeStyle = accent;
      context.lineWidth = 3;
      const edge = Math.min((at + 1) * cell, size - 1.5);
      context.beginPath();
      if (facts.image === "columns") { context.moveTo(edge, 0); context.lineTo(edge, size); }
      else { context.moveTo(0, edge); context.lineTo(size, edge); }
      context.stroke();
    }
  } else {
    context.lineWidth = 20;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of pad.strokes) {
      context.beginPath();
      context.moveTo(stroke[0][0] * cell, stroke[0][1] * cell);
      for (const [x, y] of stroke) context.lineTo(x * cell + 0.01, y * cell);
      context.stroke();
    }
  }
  if (document.activeElement === $("pad") && pad.keys) {
    context.strokeStyle = accent;
    context.lineWidth = 2;
    context.strokeRect(pad.cursor[0] * cell - cell, pad.cursor[1] * cell - cell, 2 * cell, 2 * cell);
  }
  const something = pad.strokes.length > 0 || pad.example;
  $("read").disabled = $("step").disabled = !something;
  $("pad").setAttribute("aria-label", something ? "Drawing pad, with a drawing" : "Drawing pad, empty");
}

function drawn() {
  stopReading();
  Object.assign(pad, { image: null, steps: null, shown: -1, example: null });
  paint();
}

function inkAt(event, fresh) {
  const box = $("pad").getBoundingClientRect();
  const point = [SIDE * (event.clientX - box.left) / box.width, SIDE * (event.clientY - box.top) / box.height];
  if (fresh || !pad.strokes.length) {
    if (pad.example) pad.strokes = [];
    pad.strokes.push([point]);
  } else pad.strokes.at(-1).push(point);
  drawn();
}

$("pad").addEventListener("pointerdown", (event) => {
  $("pad").setPointerCapture(event.pointerId);
  pad.down = true;
  pad.keys = false;
  inkAt(event, true);
});
$("pad").addEventListener("pointermove", (event) => { if (pad.down) inkAt(event, false); });
for (const end of ["pointerup", "pointercancel"]) $("pad").addEventListener(end, () => { pad.down = false; });
$("pad").addEventListener("blur", paint);
$("pad").addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const move = moves[event.key];
  if (!move && ![" ", "Delete", "Backspace"].includes(event.key)) return;
  event.preventDefault();
  pad.keys = true;
  if (move) {
    const next = pad.cursor.map((v, i) => Math.min(SIDE - 1, Math.max(1, v + move[i])));
    if (event.shiftKey && pad.strokes.length) pad.strokes.at(-1).push(next); // Shift draws a line
    pad.cursor = next;
    if (event.shiftKey) return drawn(), tellCursor();
  } else if (event.key === " ") {
    pad.strokes.push([[...pad.cursor]]);
    return drawn(), tellCursor();
  } else clearPad();
  tellCursor();
  paint();
});
const tellCursor = () => {
  $("cursor").textContent = `Column ${pad.cursor[0]}, row ${pad.cursor[1]} of 28. With Shift, arrow keys draw on.`;
};

async function prepare() {
  if (pad.steps) return;
  pad.image = picture();
  pad.steps = await belief(sequenceOf(pad.image));
  pad.shown = -1;
}

function showStep(t) {
  pad.shown = t;
  const p = pad.steps[t], names = model.parameters.labels, last = t === pad.steps.length - 1;
  bars($("belief"), p, names);
  paint();
  const marks = changes(pad.steps.slice(0, t + 1));
  $("course-figure").hidden = false;
  $("course").replaceChildren(beliefChart(pad.steps, names, t));
  const noun = { rows: "row", columns: "column", pixels: "pixel" }[facts.image];
  $("course-said").textContent = marks.length
    ? `Belief after each ${noun}. It changed its mind at ${noun} ${marks.map((m) => m + 1).join(", ")}.`
    : `Belief after each ${noun}. It has not changed its mind.`;
  if (last || !pad.timer) {
    const label = pad.example && pad.example.label !== null ? ` The label is ${pad.example.label}.` : "";
    $("belief-said").textContent = `After ${noun} ${t + 1} of ${pad.steps.length}: ${names[best(p)]}, ${percent(Math.max(...p))}.` + (last ? label : "");
  }
}

function stopReading() {
  clearTimeout(pad.timer);
  pad.timer = 0;
  $("read").textContent = "Read";
}

on("read", "click", async () => {
  if (pad.timer) return stopReading();
  await prepare();
  if (pad.shown >= pad.steps.length - 1) pad.shown = -1;
  $("read").textContent = "Pause";
  const go = () => {
    const many = Math.max(1, Math.round(pad.steps.length / SIDE / 4)); // pixels go faster
    const t = Math.min(pad.shown + many, pad.steps.length - 1);
    showStep(t);
    if (t < pad.steps.length - 1) pad.timer = setTimeout(go, 1000 / $("speed").value);
    else stopReading();
  };
  pad.timer = -1;
  go();
});
on("step", "click", async () => {
  stopReading();
  await prepare();
  showStep((pad.shown + 1) % pad.steps.length);
});
on("clear", "click", clearPad);
on("example", "click", async () => {
  const every = await askJson(at("/examples"));
  clearPad();
  const { x, label } = every[pad.next = ((pad.next ?? -1) + 1) % every.length];
  let image = x;
  if (facts.image === "pixels") image = Array.from({ length: SIDE }, (_, i) => x.slice(SIDE * i, SIDE * (i + 1)).map((v) => v[0]));
  if (facts.image === "columns") image = x[0].map((_, j) => x.map((row) => row[j]));
  Object.assign(pad, { example: { image, label }, image });
  $("belief-said").textContent = "An example of the test part.";
  paint();
});
on("speed", "input", () => $("speed").setAttribute("aria-valuetext", `${$("speed").value} rows a second`));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (facts && facts.image) paint(); });

// ---- text

let typing = 0, writing = null;

function beginText() {
  $("typed").value = "";
  $("written").replaceChildren();
  $("written-said").textContent = "";
  typed();
}

const visible = (text) => text.trim() ? text : text.replaceAll("\n", "↵").replaceAll(" ", "␣");

async function typed() {
  const mine = ++typing, text = $("typed").value;
  const found = await askJson(at("/suggest"), { text, n: 5 });
  if (mine !== typing) return; // a later key was faster
  $("suggestions").replaceChildren(...found.suggestions.map((each) => {
    const button = make("button", { type: "button", class: "suggestion" }, visible(each.text), make("small", {}, percent(each.probability)));
    button.addEventListener("click", guarded(() => take(each.text)));
    return button;
  }));
  $("bits").replaceChildren(...found.bits.map(([token, bits]) => {
    const span = make("span", { title: `${visible(token)} ${bits.toFixed(1)} bits` }, token);
    span.style.backgroundColor = `rgba(var(--warm), ${Math.min(bits / 12, 1) * 0.75})`;
    return span;
  }));
  const total = found.bits.reduce((sum, [, bits]) => sum + bits, 0);
  const characters = [...text].length;
  const worst = found.bits.reduce((a, b) => (b[1] > a[1] ? b : a), ["", 0]);
  $("bits-said").textContent = characters
    ? `${(total / characters).toFixed(2)} bits a character over ${characters}; most surprising: ` +
      `“${visible(worst[0])}”, ${worst[1].toFixed(1)} bits.`
    : "The buttons are what may begin a text.";
}

function take(text) {
  const area = $("typed"), before = area.value;
  const word = [...text].length > 1 ? before.match(/[^\s]*$/)[0] : "";
  const rest = text.startsWith(word) ? text.slice(word.length) : (/\s$/.test(before) || !before ? text : ` ${text}`);
  area.value = before + rest;
  area.focus();
  return typed();
}

on("typed", "input", typed);
on("write", "click", async () => {
  writing = new AbortController();
  $("write").disabled = true;
  $("stop").disabled = false;
  const prompt = $("typed").value, out = make("span");
  $("written").replaceChildren(make("b", {}, prompt), out);
  $("written-said").textContent = "";
  let count = 0, how = "It is done";
  try {
    const body = { prompt, n: $("n").valueAsNumber, temperature: $("temperature").valueAsNumber, seed: $("seed").valueAsNumber };
    const answer = await ask(at("/write"), {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal: writing.signal,
    });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      out.append(value);
      count += [...value].length;
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    how = "It was stopped";
  } finally {
    $("write").disabled = false;
    $("stop").disabled = true;
    $("written-said").textContent = `${how}, after ${count} characters.`;
  }
});
on("stop", "click", () => writing && writing.abort());

// ---- tables

let asked = null; // {header, rows, answers, belief} of the last answer

function beginTable() {
  asked = null;
  for (const id of ["answers", "chart-figure", "download"]) $(id).hidden = true;
  $("rows").value = $("rows-said").textContent = "";
  const roles = facts.roles, F = model.inputs[0].shape.at(-1);
  $("table-title").textContent = facts.table ? "Ask it about a table" : "Ask it about sequences";
  const names = facts.table ? [roles.id, roles.time, ...(roles.features || []), model.parameters.kind === "sequence_forecaster" ? roles.target : null] : [];
  const words = model.inputs[0].name === "words";
  $("table-hint").textContent = facts.table
    ? `Paste rows with a first line of names, or drop a file here. It reads the columns ${[...new Set(names.filter(Boolean))].join(", ")}.`
    : words ? "One sequence a line, its words with blanks between them."
      : `A row of ${F} number${F === 1 ? "" : "s"} is a step; an empty line begins the next sequence. You may drop a file.`;
  $("rows-example").hidden = !facts.examples;
}

const separatorOf = (line) => [",", ";", "\t"].map((s) => [line.split(s).length, s]).sort((a, b) => b[0] - a[0])[0][1];

function parseCsv(text) {
  const separator = separatorOf(text.split("\n", 1)[0]);
  const rows = [[]];
  let cell = "", quoted = false;
  const endCell = () => { rows.at(-1).push(cell); cell = ""; };
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      if (c === '"' && text[i + 1] === '"') { cell += c; i++; } else if (c === '"') quoted = false; else cell += c;
    } else if (c === '"') quoted = true;
    else if (c === separator) endCell();
    else if (c === "\n") { endCell(); rows.push([]); } else if (c !== "\r") cell += c;
  }
  if (cell || rows.at(-1).length) endCell();
  const whole = rows.filter((row) => row.length > 1 || row[0]);
  return { header: whole[0] || [], rows: whole.slice(1) };
}

async function answer() {
  const text = $("rows").value;
  if (!text.trim()) throw new Error("there are no rows; paste some, or open a file");
  $("rows-said").textContent = "Asking…";
  try {
    if (facts.table) {
      const found = await (await ask(at("/table"), { method: "POST", headers: { "content-type": "text/csv" }, body: text })).json();
      asked = { ...parseCsv(found.csv), csv: found.csv, belief: found.belief, given: parseCsv(text) };
    } else asked = await sequencesAnswered(text);
  } catch (error) {
    $("rows-said").textContent = "";
    throw error;
  }
  showAnswers();
}

// Sequences of numbers or words that were written by hand.
async function sequencesAnswered(text) {
  const words = model.inputs[0].name === "words", name = model.inputs[0].name;
  const parts = words ? text.trim().split("\n").map((line) => line.trim().split(/\s+/))
    : text.trim().split(/\n\s*\n/).map((part) => part.split("\n").filter((line) => line.trim())
      .map((line) => line.trim().split(/[\s,;]+/).map((cell) => cell === "" || /^nan$/i.test(cell) ? null : Number(cell))));
  const T = Math.max(...parts.map((part) => part.length)), F = model.inputs[0].shape.at(-1);
  const wrong = words ? null : parts.flat().find((row) => row.length !== F || row.some(Number.isNaN));
  if (wrong) throw new Error(`a row is ${wrong.join(", ")}; wanted ${F} numbers`);
  const fill = words ? "" : Array(F).fill(0);
  const data = parts.flatMap((part) => [...part, ...Array(T - part.length).fill(fill)]).flat();
  const lengths = parts.map((part) => part.length);
  const series = name === "series";
  const found = await askJson(at("/infer"), { inputs: [
    { name, shape: words ? [parts.length, T] : [parts.length, T, F], datatype: words ? "BYTES" : series ? "FP64" : "FP32", data },
    { name: "lengths", shape: [parts.length], datatype: "INT64", data: lengths },
  ] });
  return asSequences(found, parts, words);
}

async function asSequences(found, parts, words) {
  const outputs = Object.fromEntries(found.outputs.map((each) => [each.name, each]));
  const labels = model.parameters.labels, rows = [], kept = {};
  let header;
  if (outputs.value) {
    const K = outputs.value.shape[1], Q = outputs.quantiles ? labels.length : 0;
    const of = K === 1 ? ["prediction"] : Array.from({ length: K }, (_, k) => `prediction_${k}`);
    header = ["id", ...of, ...labels.slice(0, Q)];
    parts.forEach((_, i) => rows.push([i, ...outputs.value.data.slice(K * i, K * (i + 1)),
      ...(Q ? outputs.quantiles.data.slice(Q * i, Q * (i + 1)) : [])].map(String)));
  } else if (outputs.quantiles) {
    const [N, h, Q] = outputs.quantiles.shape;
    header = ["id", "step", "prediction", ...labels.map((q) => `q${q}`)];
    for (let i = 0; i < N; i++) for (let s = 0; s < h; s++) {
      const values = outputs.quantiles.data.slice((i * h + s) * Q, (i * h + s + 1) * Q);
      rows.push([i, s + 1, outputs.median.data[i * h + s], ...values].map(String));
    }
    kept.history = Object.fromEntries(parts.map((part, i) => [i, part.map((row) => row[0])]));
  } else if (outputs.label.shape.length === 2 && outputs.probabilities.shape.length === 3) {
    const [, T, C] = outputs.probabilities.shape;
    header = ["id", "step", ...(words ? ["word"] : []), "prediction", ...labels.map((name) => `probability_${name}`)];
    parts.forEach((part, i) => part.forEach((word, t) => {
      const p = outputs.probabilities.data.slice((i * T + t) * C, (i * T + t + 1) * C);
      rows.push([i, t + 1, ...(words ? [word] : []), outputs.label.data[i * T + t], ...p].map(String));
    }));
  } else {
    const C = labels.length;
    const several = outputs.label.shape.length === 2;
    header = ["id", "prediction", ...labels.map((name) => `probability_${name}`)];
    for (let i = 0; i < parts.length; i++) {
      const p = outputs.probabilities.data.slice(i * C, (i + 1) * C);
      const label = several ? labels.filter((_, c) => p[c] > 0.5).join(";") : outputs.label.data[i];
      rows.push([i, label, ...p].map(String));
    }
    kept.belief = {};
    if (!words) for (const [i, part] of parts.slice(0, 20).entries()) {
      if (part.length <= 2000) kept.belief[i] = await belief(part);
    }
  }
  const quote = (cell) => /[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
  const csv = [header, ...rows].map((row) => row.map(quote).join(",")).join("\n") + "\n";
  return { header, rows, csv, ...kept };
}

const SHOWN = 500; // rows of a table

// Answers to each row of what was given stand beside it, if they are in its order.
function beside({ header, rows, given }) {
  if (!given || given.rows.length !== rows.length) return { header, rows };
  const shared = header.flatMap((name, i) => {
    const j = given.header.indexOf({ id: facts.roles.id, time: facts.roles.time }[name] || "");
    return j < 0 ? [] : [[i, j]];
  });
  const same = rows.every((row, k) => shared.every(([i, j]) => row[i] === given.rows[k][j]));
  if (!shared.length || !same) return { header, rows };
  const own = header.map((_, i) => i).filter((i) => !shared.some(([each]) => each === i));
  const of = (row, k) => [...given.rows[k], ...own.map((i) => row[i])];
  return { header: [...given.header, ...own.map((i) => header[i])], rows: rows.map(of) };
}

function showAnswers() {
  const { header, rows } = beside(asked), at = header.indexOf("prediction");
  const number = (cell) => /^-?\d+\.\d{4,}(e-?\d+)?$/i.test(cell) ? String(Number(Number(cell).toPrecision(5))) : cell;
  const head = make("tr", {}, ...header.map((name) => make("th", { scope: "col" }, name)));
  const body = rows.slice(0, SHOWN).map((row) => make("tr", {},
    ...row.map((cell, i) => make("td", i === at ? { class: "answer" } : {}, number(cell)))));
  $("answers").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
  $("answers").hidden = false;
  const more = rows.length > SHOWN ? `; the first ${SHOWN} are shown` : "";
  $("rows-said").textContent = `${rows.length} answer${rows.length === 1 ? "" : "s"}${more}.`;
  if ($("download").href) URL.revokeObjectURL($("download").href);
  $("download").href = URL.createObjectURL(new Blob([asked.csv], { type: "text/csv" }));
  $("download").hidden = false;
  const names = charted();
  $("which").replaceChildren(...names.map((name) => make("option", {}, name)));
  $("which-row").hidden = names.length < 2;
  $("chart-figure").hidden = !names.length;
  if (names.length) showChart();
}

const idColumn = () => Math.max(asked.header.indexOf("id"), asked.header.indexOf("index"), 0);
const isForecast = () => model.parameters.kind === "sequence_forecaster" && asked.header.some((name) => /^q0\.\d+$/.test(name));
const isTags = () => asked.header.some((name) => name.startsWith("probability_")) && !asked.belief;

function charted() {
  if (asked.belief && Object.keys(asked.belief).length) return Object.keys(asked.belief);
  const timed = asked.header.includes("time") || asked.header.includes("step");
  if ((!isForecast() && !timed) || model.parameters.kind === "sequence_regressor") return [];
  return [...new Set(asked.rows.map((row) => row[idColumn()]))].slice(0, 200);
}

function showChart() {
  const name = $("which").value || charted()[0], labels = model.parameters.labels;
  const own = asked.rows.filter((row) => row[idColumn()] === name);
  if (isForecast()) return showFan(name, own);
  const columns = asked.header.flatMap((each, i) => each.startsWith("probability_") ? [i] : []);
  const steps = asked.belief && asked.belief[name] || own.map((row) => columns.map((i) => Number(row[i])));
  const names = asked.belief && asked.belief[name] ? labels : columns.map((i) => asked.header[i].slice(12));
  const marks = changes(steps);
  $("chart").replaceChildren(beliefChart(steps, names));
  const kind = model.parameters.kind === "sequence_tagger" ? "The label changes" : "It changed its mind";
  $("chart-said").textContent = `Belief after each step of ${name}. ` +
    (marks.length ? `${kind} at step ${marks.slice(0, 12).map((m) => m + 1).join(", ")}${marks.length > 12 ? ", …" : ""}.` : `${kind} nowhere.`);
}

// The last n values of a series with their times, without the empty rows of its future.
function ending(values, times, n) {
  const numbers = values.map((v) => v === "" || v === null || Number.isNaN(Number(v)) ? null : Number(v));
  let end = numbers.length;
  while (end && numbers[end - 1] === null) end--;
  const first = Math.max(0, end - n);
  return { values: numbers.slice(first, end), times: times.slice(first, end) };
}

// Names of steps on an axis: their times, of whole days the dates alone; else their numbers.
function stepNames(times, n) {
  if (times.length !== n || times.some((time) => !time)) return Array.from({ length: n }, (_, t) => String(t + 1));
  const midnight = /[T ]00:00(:00(\.0+)?)?$/;
  const days = times.filter((time) => midnight.test(time)).length === times.filter((time) => /\d:\d\d/.test(time)).length;
  return times.map((time) => days ? time.replace(midnight, "") : time.replace("T", " ").replace(/(:\d\d):00(\.0+)?$/, "$1"));
}

// The end of a series, and what may follow it.
function showFan(name, own) {
  const levels = asked.header.flatMap((each, i) => /^q\d/.test(each) ? [[Number(each.slice(1)), i]] : []);
  const column = (i) => own.map((row) => Number(row[i]));
  let values = asked.history ? asked.history[name] : null, before = [];
  if (!values && asked.given) {
    const { header, rows } = asked.given, id = header.indexOf(facts.roles.id), target = header.indexOf(facts.roles.target);
    const series = rows.filter((row) => id < 0 || row[id] === name), time = header.indexOf(facts.roles.time);
    values = series.map((row) => row[target]);
    before = time < 0 ? [] : series.map((row) => row[time]);
  }
  const { values: past, times } = ending(values || [], before, 60), when = asked.header.indexOf("time");
  const half = Math.floor(levels.length / 2), now = past.length ? past.at(-1) : null;
  const joined = (values) => now === null ? values : [now, ...values]; // to the last value
  const from = now === null ? past.length : past.length - 1;
  const bands = Array.from({ length: half }, (_, k) => ({
    low: joined(column(levels[k][1])), high: joined(column(levels[levels.length - 1 - k][1])), from, opacity: 0.6 / half,
  }));
  const median = joined(column(asked.header.indexOf("prediction")));
  const every = [...past.filter((v) => v !== null), ...bands.flatMap((band) => [...band.low, ...band.high]), ...median];
  const low = Math.min(...every), high = Math.max(...every);
  $("chart").replaceChildren(chart({
    lines: [{ y: past, colour: "var(--ink)" }, { y: median, from, colour: colour(0), name: "median" }],
    bands, steps: from + median.length, low, high, tick: (v) => String(Number(v.toPrecision(6))),
    names: stepNames(when < 0 ? [] : [...times, ...own.map((row) => row[when])], from + median.length),
    what: `The series ${name} and its forecast`,
  }));
  const [first, last] = [levels[0], levels.at(-1)];
  $("chart-said").textContent = `The last ${past.length} values of ${name}, and the next ${own.length}: the median, and ` +
    `the band between the quantiles ${first[0]} and ${last[0]}. The last one: ${median.at(-1).toPrecision(4)}, ` +
    `${column(first[1]).at(-1).toPrecision(4)} to ${column(last[1]).at(-1).toPrecision(4)}.`;
}

on("answer", "click", answer);
on("which", "change", showChart);
on("rows-example", "click", async () => {
  const every = await askJson(at("/examples"));
  const { x, label } = every[pad.next = ((pad.next ?? -1) + 1) % every.length];
  $("rows").value = x.map((row) => [].concat(row).join(", ")).join("\n");
  await answer();
  if (label !== null && !Array.isArray(label)) $("rows-said").textContent += ` The label is ${label}.`;
});

async function open(file) {
  if (!file) return;
  const bytes = await file.arrayBuffer();
  try {
    $("rows").value = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    $("rows").value = new TextDecoder("windows-1252").decode(bytes);
  }
  await answer();
}
on("file", "change", () => open($("file").files[0]));
for (const event of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(event, guarded(async (given) => {
    if ($("table").hidden) return;
    given.preventDefault();
    $("rows").classList.toggle("over", event === "dragover");
    if (event === "drop") await open(given.dataTransfer.files[0]);
  }));
}

// ---- the card

// The Markdown of a model card: headings, tables, lists, code, paragraphs.
function markdown(text) {
  const found = [], lines = text.replace(/^---\n[^]*?\n---\n/, "").split("\n");
  const inline = (words) => words.replaceAll("\\|", "|").replaceAll(" %", "\u00a0%").split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) =>
    part.startsWith("`") ? make("code", {}, part.slice(1, -1)) : part.startsWith("**") ? make("b", {}, part.slice(2, -2)) : part);
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim());
  while (lines.length) {
    const line = lines.shift();
    if (/^#+ /.test(line)) {
      if (/^# /.test(line)) continue; // the page has a title
      found.push(make("h3", {}, ...inline(line.replace(/^#+ /, ""))));
    } else if (line.startsWith("```")) {
      const code = [];
      while (lines.length && !lines[0].startsWith("```")) code.push(lines.shift());
      lines.shift();
      found.push(make("pre", { tabindex: 0 }, code.join("\n")));
    } else if (line.startsWith("|")) {
      const table = [line];
      while (lines.length && lines[0].startsWith("|")) table.push(lines.shift());
      const head = cells(table[0]), rows = table.slice(2).map(cells);
      const named = head.some(Boolean);
      found.push(make("table", {}, ...(named ? [make("thead", {}, make("tr", {}, ...head.map((h) => make("th", { scope: "col" }, ...inline(h)))))] : []),
        make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell, i) => make(i ? "td" : "th", i ? {} : { scope: "row" }, ...inline(cell))))))));
    } else if (line.trim()) {
      const paragraph = [line];
      while (lines.length && lines[0].trim() && !/^[#|`]/.test(lines[0])) paragraph.push(lines.shift());
      found.push(make("p", {}, ...inline(paragraph.join(" "))));
    }
  }
  return found.length ? found : [make("p", {}, "This model has no card.")];
}

// ---- how to call it

function calls() {
  const input = model.inputs[0], [F] = input.shape.slice(-1), url = location.origin, m = model.name;
  const token = sessionStorage.getItem(KEY) ? " -H \"Authorization: Bearer $TOKEN\"" : "";
  const shape = input.name === "text" ? [1] : input.name === "words" ? [1, 2] : [1, 8, F];
  const sample = input.name === "text" ? ["To be"] : input.name === "words" ? ["a", "word"]
    : Array.from({ length: 8 * F }, (_, i) => input.datatype === "BYTES" ? "0" : i % 5);
  const body = { inputs: [{ name: input.name, shape, datatype: input.datatype, data: sample }] };
  const short = sample.length > 40 ? { inputs: [{ ...body.inputs[0], shape: [1, 1, F], data: sample.slice(0, F) }] } : body;
  const dtype = { FP32: "np.float32", FP64: "np.float64" }[input.datatype];
  const array = dtype ? `np.zeros(${JSON.stringify(shape).replace("[", "(").replace("]", ")")}, ${dtype})`
    : `np.array(${JSON.stringify(sample)}, object).reshape(${shape.join(", ")})`;
  const found = [
    ["curl", `curl ${url}/v2/models/${m}/infer${token} -d '${JSON.stringify(short)}'`],
    ["Python", `import json, urllib.request\n\nbody = ${JSON.stringify(short)}\nrequest = urllib.request.Request("${url}/v2/models/${m}/infer", json.dumps(body).encode())\n${token ? "request.add_header(\"Authorization\", \"Bearer …\")\n" : ""}print(json.load(urllib.request.urlopen(request)))`],
    ["tritonclient", `import numpy as np, tritonclient.http as triton\n\nclient = triton.InferenceServerClient("${location.host}")\nx = ${array}\ninput = triton.InferInput("${input.name}", x.shape, "${input.datatype}")\ninput.set_data_from_numpy(x)\nprint(client.infer("${m}", [input]).as_numpy("${model.outputs[0].name}"))`],
  ];
  if (model.parameters.sequences) {
    const x = input.name === "text" ? "\"To be\"" : input.name === "words" ? "[\"a\", \"word\"]" : JSON.stringify(sample.slice(0, F));
    found.push(["Step by step", `curl ${url}/v2/models/${m}/sessions${token} -d '{"id": "a"}'\ncurl ${url}/v2/models/${m}/sessions/a/steps${token} -d '{"n": 1, "x": ${x}}'\ncurl -N ${url}/v2/models/${m}/sessions/a/events${token}`]);
  }
  return found.map(([name, code]) => {
    const pre = make("pre", { tabindex: 0 }, code);
    const copy = make("button", { type: "button", "aria-label": `Copy ${name}` }, "Copy");
    copy.addEventListener("click", guarded(async () => {
      await navigator.clipboard.writeText(code);
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    }));
    return make("div", {}, make("div", { class: "call" }, make("h3", {}, name), copy), pre);
  });
}

guarded(begin)();
