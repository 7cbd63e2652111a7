// The current patient's slices as a volume of voxels, and planes cut from it.
// Voxels run along x from the patient's right to the left, y from front to back, z from foot to head.

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

/** Packed label maps of slices -> labels of all voxels, x fastest, then y, then z. */
function unpacked(slices, voxels) {
  const labels = new Uint8Array(voxels);
  let at = 0;
  for (const packed of slices) {
    eachRun(packed, (label, length) => { labels.fill(label, at, at += length); });
  }
  return labels;
}

/** A patient's volume. Its grey levels are 0 until `decode` has been there. */
function volumeOf(patient) {
  const size = [patient.width, patient.height, patient.slices.length];
  const voxels = size[0] * size[1] * size[2];
  return { patient, size, mm: [...patient.pixelMm, patient.sliceMm],
    grey: new Uint8Array(voxels), decoded: new Map(), whole: false,
    predicted: unpacked(patient.predicted, voxels),
    truth: patient.truth && unpacked(patient.truth, voxels) };
}

/** Resolves once the volume holds the grey levels of a slice. */
function decode(volume, slice) {
  if (!volume.decoded.has(slice)) {
    volume.decoded.set(slice, (async () => {
      const { width, height, slices } = volume.patient;
      const image = new Image();
      image.src = "data:image/jpeg;base64," + slices[slice];
      await image.decode();
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [width, height];
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      const rgba = context.getImageData(0, 0, width, height).data;
      const first = slice * width * height;
      for (let i = 0; i < width * height; i++) volume.grey[first + i] = rgba[4 * i];
    })());
  }
  return volume.decoded.get(slice);
}

// Which axes of the volume run across, down and through each plane, and what lies at its edges:
// right, left, anterior, posterior, head, foot. Where z runs down the head is up.
const PLANES = {
  axial: { across: 0, down: 1, through: 2, edges: { left: "R", right: "L", top: "A", bottom: "P" } },
  coronal: { across: 0, down: 2, through: 1, edges: { left: "R", right: "L", top: "H", bottom: "F" } },
  sagittal: { across: 1, down: 2, through: 0, edges: { left: "A", right: "P", top: "H", bottom: "F" } },
};

/** Row of a plane's picture <-> place along the axis that runs down it: its own inverse. */
const flipped = (volume, down, place) => (down === 2 ? volume.size[2] - 1 - place : place);

/** Edges of a plane's rows, in rows of the mean height, where slices are not equally thick; else
 * null. */
function edgesOf(volume, down) {
  const { thicknessMm } = volume.patient;
  if (down !== 2 || !thicknessMm) return null;
  const edges = [0];
  for (const mm of [...thicknessMm].reverse()) edges.push(edges.at(-1) + mm / volume.mm[2]);
  return edges;
}

/** A place among a plane's rows -> its distance from the top, in rows of the mean height. */
function heightOf(edges, row) {
  if (!edges) return row;
  const i = Math.min(Math.floor(row), edges.length - 2);
  return edges[i] + (row - i) * (edges[i + 1] - edges[i]);
}

/** The row at a distance from the top; below 0 beyond the rows of unequal height. */
const rowAt = (edges, height) =>
  (edges ? edges.findIndex((edge) => edge > height) - 1 : Math.floor(height));

/** The values of a plane through a voxel, row by row. */
function cut(volume, values, name, at) {
  const { across, down, through } = PLANES[name], { size } = volume;
  const steps = [1, size[0], size[0] * size[1]];
  const plane = new Uint8Array(size[across] * size[down]);
  for (let row = 0, to = 0; row < size[down]; row++) {
    let from = at[through] * steps[through] + flipped(volume, down, row) * steps[down];
    for (let i = 0; i < size[across]; i++, from += steps[across]) plane[to++] = values[from];
  }
  return plane;
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
