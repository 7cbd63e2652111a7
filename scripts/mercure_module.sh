#!/usr/bin/env bash
# A processing module of mercure: DICOM in from one folder, DICOM out to another.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python -m serving.predict --model="$SEGTHOR_MODEL" --input="$MERCURE_IN_DIR" --output="$work/out" \
  --formats="${SEGTHOR_FORMATS:-rtstruct,seg}"
cp "$work"/out/dicom/*.dcm "$MERCURE_OUT_DIR"
