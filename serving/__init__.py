"""Export, prediction, evaluation and reports."""
