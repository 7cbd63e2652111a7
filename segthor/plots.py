"""Figures of matplotlib in its own style: a user's matplotlibrc and backend do not matter."""

import logging

from segthor import environment, files, outputs


def new_figure(**options):
    """A `matplotlib.figure.Figure` with these options; `save` writes it."""
    environment.prepare()
    # It warns of folders that it cannot write to and of lines in a matplotlibrc.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()
    return Figure(**options)


def save(figure, path: str, dpi: int = 100) -> None:
    """Writes a figure as PNG, atomically; the same figure gives the same bytes."""
    with files.atomic_write(path) as stream:
        figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": outputs.SOFTWARE})
