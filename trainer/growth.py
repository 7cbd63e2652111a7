"""Scores over numbers of training patients: intervals, the fitted power law, and their plot."""

import numpy as np

from segthor import plots
from segthor.organs import Organs
from trainer import power_law

MEAN = "mean"


def summarise(sizes, scores: dict[str, np.ndarray]) -> list[dict]:
    """Makes a row per organ and size, and one with the prediction for twice the largest size.

    low and high are the 95 % interval of a bootstrap over draws and validation patients.

    sizes: Numbers of training patients, ascending.
    scores: Organ to Dice, float [sizes, draws, patients], NaN where not contoured.
    """
    rows = []
    for organ, dice in scores.items():
        laws = power_law.bootstrap(sizes, dice)
        law = power_law.fit(sizes, np.nanmean(dice, (1, 2)))
        for size, values in zip(sizes, dice, strict=True):
            means = _resample_means(values)
            rows.append(_make_row(organ, size, "measured", np.nanmean(values), means))
        twice = 2 * sizes[-1]
        # Beside the uncertainty of the law, a measurement there would vary like the largest size.
        noise = _resample_means(dice[-1]) - np.nanmean(dice[-1])
        predicted = [other.dice(twice) for other in laws] + noise[: len(laws)]
        rows.append(_make_row(organ, twice, "predicted", law.dice(twice), predicted))
    return rows


def _resample_means(values: np.ndarray) -> np.ndarray:
    """Bootstrap means of values [draws, patients] of one size."""
    rng = np.random.default_rng(0)
    picks = [[rng.integers(n, size=n) for n in values.shape] for _ in range(power_law.RESAMPLES)]
    return np.array([np.nanmean(values[draws][:, patients]) for draws, patients in picks])


def _make_row(organ, patients, kind, dice, values) -> dict:
    low, high = power_law.interval(np.clip(values, 0, 1))
    figures = {"dice": float(dice), "low": low, "high": high}
    return {"organ": organ, "patients": patients, "kind": kind} | figures


def plot(rows: list[dict], sizes, scores, organs: Organs):
    """Plots Dice over the number of training patients, with intervals and law; returns a figure.

    rows: What `summarise` returned for these sizes and scores.
    """
    figure = plots.new_figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    reach = np.geomspace(sizes[0], 2 * sizes[-1], 50)
    for organ, dice in scores.items():
        colour = np.array(organs[organ].rgb) / 255 if organ != MEAN else "black"
        measured = [r for r in rows if r["organ"] == organ and r["kind"] == "measured"]
        (predicted,) = [r for r in rows if r["organ"] == organ and r["kind"] == "predicted"]
        for points, marker in ((measured, "o"), ([predicted], "D")):
            y = np.array([row["dice"] for row in points])
            low, high = (np.array([row[key] for row in points]) for key in ("low", "high"))
            spread = np.clip([y - low, high - y], 0, None)
            x = [row["patients"] for row in points]
            label = organ if marker == "o" else None
            axes.errorbar(x, y, spread, fmt=marker, color=colour, capsize=3, label=label)
        law = power_law.fit(sizes, np.nanmean(dice, (1, 2)))
        axes.plot(reach, law.dice(reach), color=colour, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks([*sizes, 2 * sizes[-1]], labels=[*map(str, sizes), str(2 * sizes[-1])])
    axes.minorticks_off()
    axes.set(xlabel="training patients", ylabel="volume Dice (mean, 95 % interval)")
    axes.set_title("diamonds: predicted by the fitted power law", fontsize=10)
    figure.legend(loc="outside center right", fontsize=9)
    axes.grid(alpha=0.3)
    return figure
