"""The DICOM node: receives series, predicts them and sends the results (docs/node.md)."""
