// ---- phases of a 4D CT, which share one entry of the list --------------------------------------

/** The slider of a 4D CT's phases. */
function phaseSlider(entry) {
  element("phases").hidden = !entry.phases;
  if (!entry.phases) return;
  element("phaseslider").max = entry.phases.length - 1;
  element("phaseslider").value = state.phase;
  element("phase").textContent = current().phase;
}

/** Shows another phase of the 4D CT; the crosshair stays where it is. */
function showPhase(phase) {
  const { phases: all } = data.patients[state.patient];
  if (!all || phase < 0 || phase >= all.length) return;
  const at = [...state.at], had = volume;
  show(state.patient, null, phase);
  if (had && volume && had.size.join() === volume.size.join()) {
    state.at = at;
    draw();
  }
}

element("phaseslider").addEventListener("input", (event) => showPhase(Number(event.target.value)));
