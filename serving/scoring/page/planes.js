// Drawing the planes: picture, contours, crosshair.

let volume = null; // of the current patient
const geometry = {}; // plane -> where its picture lies on its canvas

async function draw() {
  const patient = current();
  document.body.dataset.patient = patient.name;
  element("failure").hidden = !patient.failed;
  if (patient.failed) {
    for (const name in PLANES) element(name).width = 1; // which empties it
    for (const id of ["caption", "readout"]) element(id).textContent = "";
    element("failure").textContent = patient.failed;
    drawStrip();
    document.body.dataset.drawn = `${patient.name}:failed`;
    return;
  }
  const shown = volume, slice = state.at[2];
  await decode(shown, slice);
  if (shown !== volume || slice !== state.at[2]) return; // overtaken by a newer request
  for (const name in PLANES) drawPlane(name);
  const dice = patient.sliceDice && patient.sliceDice[slice];
  const phase = patient.phase ? `phase ${patient.phase} · ` : "";
  const place = `${phase}slice ${patient.first + slice + 1} of ${patient.depth}`;
  element("caption").textContent = `${patient.name} · ${place}` +
    (dice == null ? "" : ` · Dice of this slice ${dice.toFixed(2)}`);
  element("slider").value = slice;
  drawStrip();
  history.replaceState(null, "", `#${encodeURIComponent(patient.name)}/${patient.first + slice + 1}`);
  Object.assign(document.body.dataset,
    { drawn: `${patient.name}:${slice}`, at: state.at.join(), whole: volume.whole });
}

/** Fills the volume in the background, for the planes that cross the slices. */
async function decodeAll(shown) {
  for (let slice = 0; slice < shown.size[2]; slice++) {
    await decode(shown, slice);
    if (shown !== volume) return; // another patient is shown by now
  }
  shown.whole = true;
  draw();
}

function drawPlane(name) {
  const { across, down } = PLANES[name], { size, mm } = volume;
  const [width, height] = [size[across], size[down]];
  const picture = document.createElement("canvas");
  [picture.width, picture.height] = [width, height];
  picture.getContext("2d").putImageData(windowed(cut(volume, volume.grey, name, state.at), width), 0, 0);
  const canvas = element(name), ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const [wide, high] = [width * mm[across], height * mm[down]];
  const scale = Math.min(canvas.width / wide, canvas.height / high);
  const where = { x: (canvas.width - wide * scale) / 2, y: (canvas.height - high * scale) / 2,
    sx: mm[across] * scale, sy: mm[down] * scale, width, height, ratio,
    edges: edgesOf(volume, down) };
  geometry[name] = where;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  drawRows(context, where, picture, wide * scale, high * scale);
  if (state.predicted) contour(context, where, cut(volume, volume.predicted, name, state.at), colour, 2, []);
  if (state.truth && volume.truth) {
    contour(context, where, cut(volume, volume.truth, name, state.at), pale, 1.5, [5, 4]);
  }
  if (state.crosshair) crosshair(context, name);
}

/** Draws a plane's picture; rows that are not equally high one by one. */
function drawRows(context, where, picture, wide, high) {
  if (!where.edges) {
    context.drawImage(picture, where.x, where.y, wide, high);
    return;
  }
  for (let row = 0; row < where.height; row++) {
    const [top, bottom] = [row, row + 1].map((edge) => Math.round(canvasY(where, edge)));
    context.drawImage(picture, 0, row, where.width, 1, where.x, top, wide, bottom - top);
  }
}

/** Where a place among the rows lies on the canvas. */
const canvasY = (where, row) => where.y + heightOf(where.edges, row) * where.sy;

function windowed(grey, width) {
  const [, level, span] = windowsOf(current())[state.window];
  const table = Uint8ClampedArray.from(huOfLevel, (hu) => ((hu - level) / span + 0.5) * 255);
  const image = new ImageData(width, grey.length / width);
  for (let i = 0, to = 0; i < grey.length; i++) {
    const value = table[grey[i]];
    image.data[to++] = value;
    image.data[to++] = value;
    image.data[to++] = value;
    image.data[to++] = 255;
  }
  return image;
}

function contour(context, where, labels, colours, thickness, dashes) {
  const held = new Set(labels);
  context.lineWidth = thickness * where.ratio;
  context.lineJoin = "round";
  context.setLineDash(dashes.map((length) => length * where.ratio));
  for (const organ of data.organs.filter((o) => held.has(o.label) && state.organs[o.name])) {
    context.strokeStyle = colours[organ.name];
    context.beginPath();
    for (const loop of outlines(labels, where.width, where.height, organ.label)) {
      loop.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](
        where.x + x * where.sx, canvasY(where, y)));
      context.closePath();
    }
    context.stroke();
  }
  context.setLineDash([]);
}

/** Two lines through the current voxel, open about it so that they hide nothing there. */
function crosshair(context, name) {
  const { across, down } = PLANES[name], where = geometry[name], { canvas } = context;
  const x = where.x + (state.at[across] + 0.5) * where.sx;
  const y = canvasY(where, flipped(volume, down, state.at[down]) + 0.5);
  const gap = 12 * where.ratio;
  context.strokeStyle = "#6ea8fe99";
  context.lineWidth = where.ratio;
  context.beginPath();
  for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, canvas.width, y],
    [x, 0, x, y - gap], [x, y + gap, x, canvas.height]]) {
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
  }
  context.stroke();
}

/** The voxel under the mouse in a plane; null beside the picture. */
function voxelAt(name, event) {
  const where = geometry[name];
  if (current().failed || !where) return null;
  const { across, down } = PLANES[name];
  const x = Math.floor((event.offsetX * where.ratio - where.x) / where.sx);
  const y = rowAt(where.edges, (event.offsetY * where.ratio - where.y) / where.sy);
  if (x < 0 || y < 0 || x >= where.width || y >= where.height) return null;
  const at = [...state.at];
  at[across] = x;
  at[down] = flipped(volume, down, y);
  return at;
}

/** Which slices hold which organ, predicted above and true below, each slice's Dice, and
 * at the foot those in question. */
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
  context.fillStyle = "#ff7b72";
  for (const [low, high] of (patient.questions || []).flatMap(({ slices }) => slices)) {
    context.fillRect(low * step, canvas.height - 3 * ratio, (high - low + 1) * step, 3 * ratio);
  }
  context.strokeStyle = "#6ea8fe";
  context.lineWidth = 2 * ratio;
  context.strokeRect(state.at[2] * step, 1, Math.max(step, 3), canvas.height - 2);
}
