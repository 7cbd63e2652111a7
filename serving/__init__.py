"""Export, prediction, evaluation and reports."""

import os

# Without this a run opens with a page of tensorflow's start-up notes that bury its own first line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
