"""Figures of matplotlib in its default style, whatever the user's matplotlibrc and backend are."""

import logging

from segthor import environment, files, outputs


def new_figure(**options):
    """A new `matplotlib.figure.Figure` with these options."""
    environment.prepare()
    # It warns about folders that it cannot write to, and about lines in a matplotlibrc.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()
    return Figure(**options)


def save(figure, path: str, dpi: int = 100) -> None:
    """Writes a figure as PNG, atomically; equal figures give equal bytes."""
    with files.atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": outputs.SOFTWARE})
