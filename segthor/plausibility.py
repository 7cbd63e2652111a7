"""What the audit cannot believe about a scan and the organs predicted on it."""

import numpy as np

from segthor import audit, figures, nifti
from segthor.figures import OrganFigures
from segthor.findings import Finding
from segthor.organs import SEGTHOR, Organs


def measure(
    scan: nifti.Scan, labels: np.ndarray, names, organs: Organs = SEGTHOR
) -> tuple[dict[str, OrganFigures], list[Finding]]:
    """Figures of the organs that are there, and findings about scan and organs.

    labels: uint8 [X, Y, Z], predicted on the scan's grid. names: the organs that were to be found.
    """
    measured = figures.of_organs(scan.array, labels, scan.grid.affine, organs=organs)
    findings = (
        audit.grid_findings(scan.grid)
        + audit.image_findings(figures.of_image(scan.array))
        + audit.organ_findings(measured, names, organs)
    )
    if not measured:  # the audit takes contours for missing altogether, and says nothing of organs
        findings.append(Finding.of("organ_missing", f"no voxel of {', '.join(names)}"))
    return measured, findings
