"use strict";
// The page's data, and what its reader has chosen.

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const organNames = data.organs.map((organ) => organ.name);
const colour = Object.fromEntries(data.organs.map((o) => [o.name, `rgb(${o.rgb})`]));
const keyOf = Object.fromEntries(data.organs.map((o) => [o.name, o.key]));
const pale = Object.fromEntries(data.organs.map((o) => [o.name, `rgb(${o.pale})`]));
// at: the voxel that the crosshair marks, [x, y, z] of the picture; z is the slice.
const state = { patient: 0, phase: 0, at: [0, 0, 0], window: 0, predicted: true, truth: true, crosshair: true,
  organs: Object.fromEntries(organNames.map((name) => [name, true])) };
/** The patient that is shown; of a 4D CT the phase. */
const current = () => {
  const patient = data.patients[state.patient];
  return patient.phases ? patient.phases[state.phase] : patient;
};
/** Every patient, and every phase of a 4D CT. */
const everyCase = data.patients.flatMap((patient) => patient.phases ?? [patient]);
