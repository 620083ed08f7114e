"""`frame.pawprint`: what this package adds to a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class PawprintAccessor:
    """The accessor ``frame.pawprint``, which every DataFrame has once this package has made one.

    Args:
        frame: the DataFrame.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def plot(self, kind: str | None = None, *, ax: Axes | None = None, title: str | None = None) -> Axes:
        """Draw the chart that suits the frame: a series, bars, a funnel, a cohort heat map, or paths.

        Args:
            kind: series, top, catalogue, funnel, retention, paths, sessions or engagement; default:
                ``frame.attrs["kind"]``, else the first kind that the columns fit.
            ax: the axes to draw on; default: those of a new figure, as in pandas.
            title: the title; default: the question that the frame answers.

        Returns:
            The axes; ``.figure.savefig("file.png")`` saves them.

        Raises:
            ConfigurationError: no such kind, or the frame lacks a column that it needs.
            ImportError: matplotlib is not installed; the message names the extra.
        """
        from . import drawing

        is_new = ax is None
        if ax is None:
            drawing.require_matplotlib()
            from matplotlib import pyplot as plt

            _, ax = plt.subplots(figsize=drawing.size_of(self._frame, kind), layout="constrained")
        drawing.draw(self._frame, kind, axes=ax, title=title)
        if is_new:
            drawing.lay_out(ax.figure)
        return ax


_is_registered = False


def register(pd: Any) -> None:
    """Give every pandas DataFrame the accessor, once.

    Args:
        pd: the pandas module, so that it is not imported here.
    """
    global _is_registered
    if not _is_registered:
        _is_registered = True
        pd.api.extensions.register_dataframe_accessor("pawprint")(PawprintAccessor)
