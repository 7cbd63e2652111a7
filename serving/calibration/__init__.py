"""How well a prediction's evidence tells its scores: worsened scans, rows of both, fits."""
