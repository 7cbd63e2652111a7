// ---- review: what the prediction job expects, and where to look --------------------------------

/** What stands in the list under a patient's name. */
function reviewMark(patient) {
  const { review } = patient;
  if (!review || !review.review) return "";
  return make("span", { className: "flag review", title: review.reason },
    review.unlike_training ? "unlike training" : "review");
}

/** Expected scores and reasons of the patient that is shown, with buttons to the slices. */
function reviewNotes(patient) {
  const { review } = patient;
  if (!review) return;
  const rows = Object.entries(review.organs).filter(([name]) => name in patient.organs);
  const known = rows.filter(([, organ]) => organ.expected_dice != null);
  if (known.length) {
    element("numbers").append(make("h3", {}, "Expected"),
      tableOf(["", "Dice", "at least", ...(patient.truth ? ["true"] : [])],
        known.map(([name, organ]) => [name,
          make("span", { className: organ.review ? "bad" : "" }, number(organ.expected_dice)),
          number(organ.lower_dice),
          ...(patient.truth ? [number(patient.organs[name].dice)] : [])])));
  }
  const items = rows.filter(([, organ]) => organ.review || organ.slices.length)
    .map(([name, organ]) => make("li", { className: organ.review ? "bad" : "" },
      `${name}: ${organ.reason || "look at"} `, ...organ.slices.map((z) => sliceButton(patient, z))));
  if (review.unlike_training) items.unshift(make("li", { className: "bad" }, review.reason.split("; ")[0]));
  if (items.length) notes(review.review ? "Review" : "Not marked for review", items);
}

function sliceButton(patient, z) {
  const index = Math.min(Math.max(z - 1 - patient.first, 0), patient.slices.length - 1);
  const button = make("button", { type: "button", className: "slice", title: `slice ${z}`,
    onclick: () => show(state.patient, index) }, String(z));
  button.dataset.slice = z;
  return button;
}

/** Of the whole batch: how many are marked, and whether scores are expected at all. */
function reviewOverview() {
  const judged = everyCase.filter((patient) => patient.review);
  if (!judged.length) return [];
  const marked = judged.filter((patient) => patient.review.review).length;
  const unlike = judged.filter((patient) => patient.review.unlike_training).length;
  const words = `${marked} of ${judged.length} to review` +
    (unlike ? `, ${unlike} unlike the training data` : "") +
    (judged.some((patient) => patient.review.calibrated) ? "" : " (model not calibrated)");
  return [make("span", { id: "overview" }, words)];
}
