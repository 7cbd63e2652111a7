// What stands about the planes, and moving about.

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

/** [name, numbers] of the scored organs. */
const worstFirst = (patient) => Object.entries(patient.organs)
  .filter(([, organ]) => organ.dice != null).sort((a, b) => a[1].dice - b[1].dice);

function list() {
  element("patients").replaceChildren(...data.patients.map((entry, index) => {
    const patient = entry.phases ? entry.phases[entry.worst] : entry;
    const scored = patient.failed ? [] : worstFirst(patient);
    const flags = patient.failed ? 0 : patient.findings.filter((f) => f.severity === "reject").length;
    const line = make("small");
    if (patient.failed) line.append(make("span", { className: "bad" }, "no label map"));
    else if (patient.questions?.length) {
      const [{ organ, short }] = patient.questions;
      line.append(dot(organ), `${organ}: ${short}`);
    } else if (scored.length) {
      line.append(dot(scored[0][0]), `${scored[0][0]} ${number(scored[0][1].dice)}`);
    } else line.append(`${patient.depth} slices`);
    if (flags) line.append(make("span", { className: "flag", title: "implausible" }, `⚑ ${flags}`));
    line.append(reviewMark(patient));
    if (entry.phases) line.prepend(`${entry.phases.length} phases`);
    const button = make("button", { type: "button", onclick: () => show(index) }, entry.name, line);
    button.dataset.patient = entry.name;
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
  layers.push(toggle("Crosshair", state.crosshair, () => { state.crosshair = !state.crosshair; }));
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
  for (const id of ["questions", "numbers", "findings"]) element(id).replaceChildren();
  if (patient.failed) return;
  notes("In question", (patient.questions || []).map(question), "questions");
  const rows = Object.entries(patient.organs);
  const scored = rows.some(([, organ]) => organ.dice != null);
  if (scored) {
    element("numbers").append(tableOf(["", "Dice", "HD95 mm", "avg. HD mm", "sDice 2 mm"],
      rows.map(([name, organ]) => [name, number(organ.dice, 3), number(organ.hd95Mm, 1),
        number(organ.averageHdMm), number(organ.surfaceDice2)])));
  }
  if (scored) {
    element("numbers").append(make("h3", {}, "To mend by hand"),
      tableOf(["", "tolerance mm", "path to redraw, cm", "slices"], rows.map(([name, organ]) =>
        [name, organ.toleranceMm ?? "–", number(organ.addedPathMm && organ.addedPathMm / 10, 1),
          organ.slicesToTouch ?? "–"])));
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

function notes(title, items, place = "findings") {
  if (items.length) element(place).append(make("h3", {}, title), make("ul", {}, ...items));
}

/** What a person is asked to look at, with a button for each run of its slices. */
function question({ organ, reason, slices }) {
  const { first } = current();
  return make("li", {}, dot(organ), ` ${organ}: ${reason} `, ...slices.map(([low, high]) =>
    make("button", { type: "button", onclick: () => look(organ, low, high) },
      low === high ? `${first + low + 1}` : `${first + low + 1}–${first + high + 1}`)));
}

function look(organ, low, high) {
  state.at = centre(Math.floor((low + high) / 2), organ);
  draw();
}

function means() {
  element("source").textContent = data.source;
  const cells = organNames.map((name) => {
    const dice = everyCase.filter((p) => !p.failed && p.organs[name]?.dice != null)
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

/** Shows a patient; of a 4D CT this phase, by default the worst one. */
function show(index, slice = null, phase = null) {
  const entry = data.patients[index];
  [state.patient, state.phase] = [index, phase ?? entry.worst ?? 0];
  const patient = current();
  volume = patient.failed ? null : volumeOf(patient);
  if (state.window >= windowsOf(patient).length) state.window = 0;
  element("slider").max = patient.failed ? 0 : patient.slices.length - 1;
  state.at = patient.failed ? [0, 0, 0] : slice != null ? centre(slice) : start(patient);
  for (const button of element("patients").children) {
    button.setAttribute("aria-current", button.dataset.patient === entry.name);
    if (button.dataset.patient === entry.name) button.scrollIntoView({ block: "nearest" });
  }
  phaseSlider(entry);
  numbers();
  refresh();
  if (volume) decodeAll(volume);
}

/** The voxel in the middle of an organ of a slice, the worst unless told otherwise; of all organs,
 * or of the picture, where there is none such. */
function centre(slice, organ = null) {
  const { patient, size: [width, height] } = volume, area = width * height;
  const maps = [volume.predicted, volume.truth].filter(Boolean)
    .map((labels) => labels.subarray(slice * area, (slice + 1) * area));
  const wanted = [organ, ...worstFirst(patient).map(([name]) => name)].filter(Boolean)
    .map((name) => data.organs.find((o) => o.name === name).label)
    .find((label) => maps.some((labels) => labels.includes(label)));
  let [x, y, count] = [0, 0, 0];
  for (const labels of maps) {
    labels.forEach((label, i) => {
      if (!label || label !== (wanted ?? label)) return;
      x += i % width;
      y += Math.floor(i / width);
      count++;
    });
  }
  return [...(count ? [x / count, y / count] : [width / 2, height / 2]).map(Math.floor), slice];
}

/** What is in question first, else the worst slice where there are contours, else the middle. */
function start(patient) {
  const asked = patient.questions?.find(({ slices }) => slices.length);
  if (!asked) return centre(worst(patient) ?? Math.floor(patient.slices.length / 2));
  const [low, high] = asked.slices.reduce((a, b) => (b[1] - b[0] > a[1] - a[0] ? b : a));
  return centre(Math.floor((low + high) / 2), asked.organ);
}

function worst(patient) {
  const known = (patient.sliceDice || []).map((dice, k) => [dice, k]).filter(([dice]) => dice != null);
  return known.length ? known.reduce((a, b) => (b[0] < a[0] ? b : a))[1] : null;
}

/** Moves the crosshair by some voxels along an axis: by slices, unless told otherwise. */
function move(steps, axis = 2) {
  if (!volume) return;
  state.at[axis] = Math.min(Math.max(state.at[axis] + steps, 0), volume.size[axis] - 1);
  draw();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const organ = data.organs.find((o) => o.key === event.key.toLowerCase())?.name;
  const steps = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
  if (event.key in steps) move(steps[event.key]);
  else if (event.key === "ArrowRight") show(Math.min(state.patient + 1, data.patients.length - 1));
  else if (event.key === "ArrowLeft") show(Math.max(state.patient - 1, 0));
  else if (event.key === ".") showPhase(state.phase + 1);
  else if (event.key === ",") showPhase(state.phase - 1);
  else if (organ in state.organs) { state.organs[organ] = !state.organs[organ]; refresh(); }
  else if (event.key.toLowerCase() === "p") { state.predicted = !state.predicted; refresh(); }
  else if (event.key.toLowerCase() === "t") { state.truth = !state.truth; refresh(); }
  else if (event.key.toLowerCase() === "w" && !current().failed) {
    move((worst(current()) ?? state.at[2]) - state.at[2]);
  } else if (event.key > "0" && event.key <= String(windowsOf(current()).length)) {
    state.window = Number(event.key) - 1;
    refresh();
  } else return;
  event.preventDefault();
});

for (const name in PLANES) {
  const canvas = element(name);
  const mark = (event) => {
    const at = event.buttons === 1 && voxelAt(name, event);
    if (!at) return;
    state.at = at;
    draw();
  };
  canvas.addEventListener("mousedown", mark);
  canvas.addEventListener("mousemove", (event) => { mark(event); read(name, event); });
  canvas.addEventListener("mouseleave", () => { element("readout").textContent = ""; });
  canvas.addEventListener("dblclick", () => { element("stage").dataset.large = name; draw(); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    move(event.deltaY < 0 ? 1 : -1, PLANES[name].through);
  }, { passive: false });
  for (const [edge, letter] of Object.entries(PLANES[name].edges)) {
    canvas.after(make("span", { className: `edge ${edge}` }, letter));
  }
}

/** Writes what lies under the mouse. */
function read(name, event) {
  const at = voxelAt(name, event), parts = [];
  if (at) {
    const voxel = (at[2] * volume.size[1] + at[1]) * volume.size[0] + at[0];
    const named = (labels) => data.organs.find((organ) => organ.label === labels?.[voxel])?.name;
    parts.push(`about ${Math.round(huOfLevel[volume.grey[voxel]])} HU`);
    if (named(volume.predicted)) parts.push(`predicted ${named(volume.predicted)}`);
    if (named(volume.truth)) parts.push(`true ${named(volume.truth)}`);
  }
  element("readout").textContent = parts.join(" · ");
}

element("slider").addEventListener("input", (event) => move(event.target.value - state.at[2]));
for (const kind of ["mousedown", "mousemove"]) {
  element("strip").addEventListener(kind, (event) => {
    if (event.buttons !== 1 || current().failed) return;
    const share = event.offsetX / element("strip").clientWidth;
    move(Math.floor(share * current().slices.length) - state.at[2]);
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
const wanted = data.patients.findIndex(({ name, phases: all }) =>
  [name, ...(all ?? []).map((one) => one.name)].includes(wantedName));
const wantedPhase = data.patients[wanted]?.phases?.findIndex(({ name }) => name === wantedName);
const wantedCase = data.patients[wanted]?.phases?.[wantedPhase] ?? data.patients[wanted];
const wantedIndex = wantedCase ? Number(wantedSlice) - 1 - wantedCase.first : null;
show(Math.max(wanted, 0),
  wantedIndex >= 0 && wantedIndex < wantedCase?.slices?.length ? wantedIndex : null,
  wantedPhase >= 0 ? wantedPhase : null);
