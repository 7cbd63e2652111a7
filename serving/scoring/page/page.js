"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const organNames = data.organs.map((organ) => organ.name);
const colour = Object.fromEntries(data.organs.map((o) => [o.name, `rgb(${o.rgb})`]));
const keyOf = Object.fromEntries(data.organs.map((o) => [o.name, o.key]));
const pale = Object.fromEntries(data.organs.map((o) => [o.name, `rgb(${o.pale})`]));
const state = { patient: 0, slice: 0, window: 0, predicted: true, truth: true,
  organs: Object.fromEntries(organNames.map((name) => [name, true])) };
const current = () => data.patients[state.patient];

// ---- decoding -------------------------------------------------------------------------------

/** Grey level (0..255) -> HU, the inverse of the scale that the pictures were made with. */
const huOfLevel = (() => {
  const hu = new Float32Array(256);
  for (let level = 0; level < 256; level++) {
    let i = 1;
    while (i < data.levels.length - 1 && level > data.levels[i][1]) i++;
    const [[hu0, level0], [hu1, level1]] = [data.levels[i - 1], data.levels[i]];
    hu[level] = hu0 + ((level - level0) * (hu1 - hu0)) / (level1 - level0);
  }
  return hu;
})();

/** Calls visit(label, length) for each run of a packed label map. */
function eachRun(packed, visit) {
  const bytes = atob(packed);
  for (let i = 0; i < bytes.length;) {
    const label = bytes.charCodeAt(i++);
    let length = 0, shift = 0, byte;
    do {
      byte = bytes.charCodeAt(i++);
      length |= (byte & 127) << shift;
      shift += 7;
    } while (byte & 128);
    visit(label, length);
  }
}

function labelMap(packed, size) {
  const labels = new Uint8Array(size);
  let at = 0;
  eachRun(packed, (label, length) => { labels.fill(label, at, at += length); });
  return labels;
}

let pictures = new Map(); // slice -> promise of its grey levels, of the current patient

function levels(patient, slice) {
  if (!pictures.has(slice)) {
    pictures.set(slice, (async () => {
      const image = new Image();
      image.src = "data:image/jpeg;base64," + patient.slices[slice];
      await image.decode();
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [patient.width, patient.height];
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      return context.getImageData(0, 0, patient.width, patient.height).data
        .filter((_, i) => i % 4 === 0);
    })());
  }
  return pictures.get(slice);
}

/** Closed outlines of one label, through the middles of the pixels' outer edges. */
function outlines(labels, width, height, value) {
  const inside = (x, y) =>
    x >= 0 && y >= 0 && x < width && y < height && labels[y * width + x] === value;
  const next = new Map(); // corner -> corners that follow it, the organ on the right hand
  const key = (x, y) => y * (width + 1) + x;
  const add = (x0, y0, x1, y1) => {
    const from = key(x0, y0);
    if (!next.has(from)) next.set(from, []);
    next.get(from).push(key(x1, y1));
  };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (labels[y * width + x] !== value) continue;
      if (!inside(x, y - 1)) add(x, y, x + 1, y);
      if (!inside(x + 1, y)) add(x + 1, y, x + 1, y + 1);
      if (!inside(x, y + 1)) add(x + 1, y + 1, x, y + 1);
      if (!inside(x - 1, y)) add(x, y + 1, x, y);
    }
  }
  const point = (corner) => [corner % (width + 1), Math.floor(corner / (width + 1))];
  const loops = [];
  for (const [start, ends] of next) {
    while (ends.length) {
      const loop = [];
      let at = start;
      do {
        const following = next.get(at).pop();
        const [[x0, y0], [x1, y1]] = [point(at), point(following)];
        loop.push([(x0 + x1) / 2, (y0 + y1) / 2]);
        at = following;
      } while (at !== start);
      loops.push(loop);
    }
  }
  return loops;
}

// ---- drawing --------------------------------------------------------------------------------

let geometry = null; // where the picture lies on the canvas

async function draw() {
  const patient = current();
  document.body.dataset.patient = patient.name;
  element("failure").hidden = !patient.failed;
  if (patient.failed) {
    const canvas = element("view");
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    for (const id of ["caption", "readout"]) element(id).textContent = "";
    element("failure").textContent = patient.failed;
    drawStrip();
    document.body.dataset.drawn = `${patient.name}:failed`;
    return;
  }
  const { patient: index, slice } = state;
  const grey = await levels(patient, slice);
  if (index !== state.patient || slice !== state.slice) return; // overtaken by a newer request
  const picture = document.createElement("canvas");
  [picture.width, picture.height] = [patient.width, patient.height];
  picture.getContext("2d").putImageData(windowed(grey, patient), 0, 0);
  const canvas = element("view"), ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const [wide, high] = [patient.width * patient.pixelMm[0], patient.height * patient.pixelMm[1]];
  const scale = Math.min(canvas.width / wide, canvas.height / high);
  geometry = { x: (canvas.width - wide * scale) / 2, y: (canvas.height - high * scale) / 2,
    sx: patient.pixelMm[0] * scale, sy: patient.pixelMm[1] * scale, ratio, grey };
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, geometry.x, geometry.y, wide * scale, high * scale);
  if (state.predicted) contour(context, patient.predicted[slice], colour, 2 * ratio, []);
  if (state.truth && patient.truth) {
    contour(context, patient.truth[slice], pale, 1.5 * ratio, [5 * ratio, 4 * ratio]);
  }
  const dice = patient.sliceDice && patient.sliceDice[slice];
  const place = `slice ${patient.first + slice + 1} of ${patient.depth}`;
  element("caption").textContent = `${patient.name} · ${place}` +
    (dice == null ? "" : ` · Dice of this slice ${dice.toFixed(2)}`);
  element("slider").value = slice;
  drawStrip();
  history.replaceState(null, "", `#${encodeURIComponent(patient.name)}/${patient.first + slice + 1}`);
  document.body.dataset.drawn = `${patient.name}:${slice}`;
}

function windowed(grey, patient) {
  const [, level, width] = windowsOf(patient)[state.window];
  const table = huOfLevel.map((hu) => ((hu - level) / width + 0.5) * 255);
  const image = new ImageData(patient.width, patient.height);
  for (let i = 0; i < grey.length; i++) {
    const value = table[grey[i]];
    image.data.set([value, value, value, 255], 4 * i);
  }
  return image;
}

function contour(context, packed, colours, thickness, dashes) {
  const { width, height } = current();
  const labels = labelMap(packed, width * height);
  context.lineWidth = thickness;
  context.lineJoin = "round";
  context.setLineDash(dashes);
  for (const organ of data.organs.filter((o) => state.organs[o.name])) {
    context.strokeStyle = colours[organ.name];
    context.beginPath();
    for (const loop of outlines(labels, width, height, organ.label)) {
      loop.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](
        geometry.x + x * geometry.sx, geometry.y + y * geometry.sy));
      context.closePath();
    }
    context.stroke();
  }
  context.setLineDash([]);
}

/** Which slices hold which organ, predicted above and true below, and each slice's Dice. */
function drawStrip() {
  const canvas = element("strip"), ratio = window.devicePixelRatio || 1, patient = current();
  canvas.style.height = `${Math.max(58, 5.5 * organNames.length)}px`; // two lines for each organ
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  if (patient.failed) return;
  const context = canvas.getContext("2d");
  const count = patient.slices.length, step = canvas.width / count;
  const row = canvas.height / (2.2 * organNames.length);
  patient.held ??= [patient.predicted, patient.truth].map((maps) => (maps || []).map((packed) => {
    const held = new Set();
    eachRun(packed, (label) => held.add(label));
    return held;
  }));
  data.organs.forEach((organ, i) => patient.held.forEach((slices, side) => {
    context.fillStyle = side ? pale[organ.name] : colour[organ.name];
    slices.forEach((held, k) => {
      if (held.has(organ.label)) {
        context.fillRect(k * step, (2.2 * i + side) * row, Math.ceil(step), row * 0.9);
      }
    });
  }));
  if (patient.sliceDice) {
    context.strokeStyle = "#fff";
    context.lineWidth = 1.5 * ratio;
    context.beginPath();
    let drawing = false;
    patient.sliceDice.forEach((dice, k) => {
      const y = (1 - dice) * (canvas.height - 4) + 2;
      if (dice != null) context[drawing ? "lineTo" : "moveTo"]((k + 0.5) * step, y);
      drawing = dice != null;
    });
    context.stroke();
  }
  context.strokeStyle = "#6ea8fe";
  context.lineWidth = 2 * ratio;
  context.strokeRect(state.slice * step, 1, Math.max(step, 3), canvas.height - 2);
}

// ---- panels ---------------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const dot = (name) => make("span", { className: "dot", style: `background:${colour[name]}` });
const signed = (value) => `${value < -0.05 ? "−" : value > 0.05 ? "+" : ""}${Math.abs(value).toFixed(1)}`;
const number = (value, digits = 2) => (value == null ? "–" : value.toFixed(digits));

function windowsOf(patient) {
  const { levelHu, widthHu } = patient;
  const known = levelHu != null && widthHu != null;
  return known ? [...data.windows, ["Network's", levelHu, widthHu]] : data.windows;
}

function list() {
  element("patients").replaceChildren(...data.patients.map((patient, index) => {
    const scored = patient.failed ? [] : Object.entries(patient.organs)
      .filter(([, organ]) => organ.dice != null).sort((a, b) => a[1].dice - b[1].dice);
    const flags = patient.failed ? 0 : patient.findings.filter((f) => f.severity === "reject").length;
    const line = make("small");
    if (patient.failed) line.append(make("span", { className: "bad" }, "no label map"));
    else if (scored.length) {
      line.append(dot(scored[0][0]), `${scored[0][0]} ${number(scored[0][1].dice)}`);
    } else line.append(`${patient.depth} slices`);
    if (flags) line.append(make("span", { className: "flag", title: "implausible" }, `⚑ ${flags}`));
    line.append(reviewMark(patient));
    const button = make("button", { type: "button", onclick: () => show(index) }, patient.name, line);
    button.dataset.patient = patient.name;
    return button;
  }));
}

function bar() {
  const patient = current();
  element("windows").replaceChildren(...windowsOf(patient).map(([name, level, width], index) =>
    toggle(name, state.window === index, () => { state.window = index; },
      `level ${Math.round(level)} HU, width ${width} HU`)));
  const layers = [toggle("Predicted", state.predicted, () => { state.predicted = !state.predicted; })];
  if (patient.truth) {
    layers.push(toggle("True (dashed)", state.truth, () => { state.truth = !state.truth; }));
  }
  for (const name of organNames) {
    const button = toggle(name, state.organs[name], () => { state.organs[name] = !state.organs[name]; },
      keyOf[name] && `key ${keyOf[name].toUpperCase()}`);
    button.prepend(dot(name));
    layers.push(button);
  }
  element("layers").replaceChildren(...layers);
}

function toggle(name, pressed, change, title = "") {
  const button = make("button", { type: "button", title, onclick: () => { change(); refresh(); } }, name);
  button.setAttribute("aria-pressed", pressed);
  button.dataset.name = name;
  return button;
}

function numbers() {
  const patient = current();
  element("name").textContent = patient.name;
  element("numbers").replaceChildren();
  element("findings").replaceChildren();
  if (patient.failed) return;
  const rows = Object.entries(patient.organs);
  const scored = rows.some(([, organ]) => organ.dice != null);
  if (scored) {
    element("numbers").append(tableOf(["", "Dice", "HD95 mm", "avg. HD mm", "sDice 2 mm"],
      rows.map(([name, organ]) => [name, number(organ.dice, 3), number(organ.hd95Mm, 1),
        number(organ.averageHdMm), number(organ.surfaceDice2)])));
  }
  element("numbers").append(make("h3", {}, "Volume, cm³"),
    tableOf(["", "predicted", ...(scored ? ["true", "difference"] : []), "plausible"],
      rows.map(([name, organ]) => [name,
        make("span", { className: organ.plausible ? "" : "bad" },
          (organ.plausible ? "" : "⚑ ") + number(organ.volumeCm3, 1)),
        ...(scored ? [number(organ.truthCm3, 1), organ.truthCm3 == null ? "–" :
          signed(organ.volumeCm3 - organ.truthCm3)] : []),
        organ.plausibleCm3 ? organ.plausibleCm3.join("–") : "–"])));
  reviewNotes(patient);
  notes("What the audit says", patient.findings.map((f) =>
    make("li", { className: f.severity === "reject" ? "bad" : "" }, f.message)));
  notes("What post-processing did", Object.entries(patient.postprocess).map(([name, did]) =>
    make("li", {}, `${name}: ${did.removed_cm3} cm³ removed, ${did.filled_cm3} cm³ filled`)));
}

function tableOf(header, rows) {
  const body = rows.map(([name, ...cells]) => make("tr", {},
    make("td", {}, dot(name), name), ...cells.map((cell) => make("td", {}, cell))));
  return make("table", {}, make("tr", {}, ...header.map((text) => make("th", {}, text))), ...body);
}

function notes(title, items) {
  if (items.length) element("findings").append(make("h3", {}, title), make("ul", {}, ...items));
}

function means() {
  element("source").textContent = data.source;
  const cells = organNames.map((name) => {
    const dice = data.patients.filter((p) => !p.failed && p.organs[name]?.dice != null)
      .map((p) => p.organs[name].dice);
    const mean = dice.reduce((sum, value) => sum + value, 0) / dice.length;
    return dice.length ? make("span", {}, dot(name), ` ${name} ${mean.toFixed(3)}`) : "";
  });
  if (cells.some((cell) => cell !== "")) cells.unshift("mean Dice");
  cells.push(...reviewOverview());
  element("means").replaceChildren(...cells);
}

// ---- moving about ---------------------------------------------------------------------------

function refresh() {
  bar();
  draw();
}

function show(index, slice = null) {
  state.patient = index;
  pictures = new Map();
  const patient = current();
  if (state.window >= windowsOf(patient).length) state.window = 0;
  element("slider").max = patient.failed ? 0 : patient.slices.length - 1;
  state.slice = patient.failed ? 0 : slice ?? start(patient);
  for (const button of element("patients").children) {
    button.setAttribute("aria-current", button.dataset.patient === patient.name);
    if (button.dataset.patient === patient.name) button.scrollIntoView({ block: "nearest" });
  }
  numbers();
  refresh();
}

/** The worst slice where there are contours, the middle one elsewhere. */
const start = (patient) => worst(patient) ?? Math.floor(patient.slices.length / 2);

function worst(patient) {
  const known = (patient.sliceDice || []).map((dice, k) => [dice, k]).filter(([dice]) => dice != null);
  return known.length ? known.reduce((a, b) => (b[0] < a[0] ? b : a))[1] : null;
}

function move(slices) {
  if (current().failed) return;
  state.slice = Math.min(Math.max(state.slice + slices, 0), current().slices.length - 1);
  draw();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const organ = data.organs.find((o) => o.key === event.key.toLowerCase())?.name;
  const steps = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
  if (event.key in steps) move(steps[event.key]);
  else if (event.key === "ArrowRight") show(Math.min(state.patient + 1, data.patients.length - 1));
  else if (event.key === "ArrowLeft") show(Math.max(state.patient - 1, 0));
  else if (organ in state.organs) { state.organs[organ] = !state.organs[organ]; refresh(); }
  else if (event.key.toLowerCase() === "p") { state.predicted = !state.predicted; refresh(); }
  else if (event.key.toLowerCase() === "t") { state.truth = !state.truth; refresh(); }
  else if (event.key.toLowerCase() === "w" && !current().failed) {
    move((worst(current()) ?? state.slice) - state.slice);
  } else if (event.key > "0" && event.key <= String(windowsOf(current()).length)) {
    state.window = Number(event.key) - 1;
    refresh();
  } else return;
  event.preventDefault();
});

element("view").addEventListener("wheel", (event) => {
  event.preventDefault();
  move(event.deltaY < 0 ? 1 : -1);
}, { passive: false });

element("view").addEventListener("mousemove", (event) => {
  const patient = current();
  if (patient.failed || !geometry) return;
  const x = Math.floor((event.offsetX * geometry.ratio - geometry.x) / geometry.sx);
  const y = Math.floor((event.offsetY * geometry.ratio - geometry.y) / geometry.sy);
  const within = x >= 0 && y >= 0 && x < patient.width && y < patient.height;
  const at = y * patient.width + x;
  const named = (maps) => data.organs.find((organ) =>
    organ.label === labelMap(maps[state.slice], patient.width * patient.height)[at])?.name;
  const parts = within ? [`about ${Math.round(huOfLevel[geometry.grey[at]])} HU`] : [];
  if (within && named(patient.predicted)) parts.push(`predicted ${named(patient.predicted)}`);
  if (within && patient.truth && named(patient.truth)) parts.push(`true ${named(patient.truth)}`);
  element("readout").textContent = parts.join(" · ");
});

element("slider").addEventListener("input", (event) => move(event.target.value - state.slice));
for (const kind of ["mousedown", "mousemove"]) {
  element("strip").addEventListener(kind, (event) => {
    if (event.buttons !== 1 || current().failed) return;
    const share = event.offsetX / element("strip").clientWidth;
    move(Math.floor(share * current().slices.length) - state.slice);
  });
}
window.addEventListener("resize", draw);

/** [patient, slice] of the page's address, which anyone may have typed. */
function address() {
  try {
    return location.hash.slice(1).split("/").map(decodeURIComponent);
  } catch {
    return [];
  }
}

element("organkeys").append(...data.organs.filter((o) => o.key)
  .map((o) => make("kbd", { title: o.name }, o.key.toUpperCase())));
means();
list();
const [wantedName, wantedSlice] = address();
const wanted = data.patients.findIndex((patient) => patient.name === wantedName);
const wantedIndex = wanted < 0 || data.patients[wanted].failed ? null :
  Number(wantedSlice) - 1 - data.patients[wanted].first;
show(Math.max(wanted, 0),
  wantedIndex >= 0 && wantedIndex < data.patients[wanted]?.slices?.length ? wantedIndex : null);
