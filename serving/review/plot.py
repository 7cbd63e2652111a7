"""The reliability plot: true over expected Dice."""

from segthor import plots
from serving.review.cases import AS_IT_IS


def write(path: str, crossed: dict[str, dict]) -> None:
    """Writes a plot per organ; crossed: As returned by `fit.calibrate`."""
    columns = min(4, len(crossed))
    rows = -(-len(crossed) // columns)
    figure = plots.new_figure(figsize=(3.2 * columns, 3.3 * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(crossed) :]:
        axis.set_visible(False)
    for axis, (name, one) in zip(axes.flat, crossed.items(), strict=False):
        own = one["kind"] == AS_IT_IS
        order = one["expected"].argsort()
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        axis.step(one["expected"][order], one["lower"][order], color="0.4", linewidth=1)
        for chosen, label, colour in ((~own, "worsened", "tab:red"), (own, AS_IT_IS, "tab:blue")):
            points = one["expected"][chosen], one["true"][chosen]
            axis.scatter(*points, s=6, alpha=0.6, color=colour, label=label, linewidths=0)
        axis.set(title=name, xlabel="expected Dice", xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    axes[0, 0].set_ylabel("true Dice")
    axes[0, 0].legend(loc="upper left", fontsize=7)
    figure.tight_layout()
    plots.save(figure, path, dpi=110)
