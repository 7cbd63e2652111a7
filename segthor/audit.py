"""What is wrong with a patient's CT and contours: findings with a code, and the figures behind them.

`image_findings` and `label_findings` look at one patient in memory. Numpy and scipy only.
"""

from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from segthor import organs

REJECT, WARN = "reject", "warn"
AFFINE_TOLERANCE_MM = 0.1


@dataclass(frozen=True)
class Finding:
    """code: stable, for machines. severity: 'reject' or 'warn'. message: for people, with units."""

    code: str
    severity: str
    message: str

    def to_json(self) -> dict:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class OrganFigures:
    """What one contoured organ measures; extent_z_mm along the scan's slices."""

    volume_cm3: float
    extent_z_mm: float
    mean_hu: float
    components: int
