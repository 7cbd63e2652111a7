"""Dice that others reached on the SegTHOR challenge's own patients. Data only.

They belong beside a table for orientation: other patients, so never a comparison.
"""

# System, set of patients, Dice of esophagus, heart, trachea, aorta; their mean as published.
DICE = (
    ("the original system, 22 March 2019", "test", (0.8513, 0.9457, 0.9083, 0.9175), 0.906),
    ("the original system, 17 March 2019", "test", (0.8452, 0.9328, 0.9039, 0.9115), 0.898),
    ("challenge winner, VB-Nets (3D)", "test", (0.86, 0.95, 0.92, 0.94), 0.918),
    ("Lachinov (3D)", "test", (0.8646, 0.9423, 0.9172, 0.9369), 0.915),
    ("Lachinov (3D), 5-fold", "train", (0.825, 0.948, 0.901, 0.931), 0.901),
    ("course baseline, 2D ENet", "8 of train", (0.524, 0.906, 0.737, 0.796), 0.741),
)
