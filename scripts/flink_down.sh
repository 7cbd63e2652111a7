#!/usr/bin/env bash
# Stops what scripts/flink_up.sh started, by its pid files, and nothing else.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$ROOT/scripts/flink.env"

names=()
for file in "$FLINK_RUN"/*.pid; do
  name=$(basename "$file" .pid)
  if is_running "$name"; then
    kill "$(cat "$file")"
    names+=("$name")
  else
    rm -f "$file"
  fi
done

limit=$((SECONDS + 15))
for name in "${names[@]}"; do
  while is_running "$name" && [ "$SECONDS" -lt "$limit" ]; do sleep 0.1; done
  if is_running "$name"; then kill -KILL "$(cat "$FLINK_RUN/$name.pid")"; fi
  rm -f "$FLINK_RUN/$name.pid"
done
rm -rf "$FLINK_RUN/tmp" "$FLINK_RUN/artifacts"
if [ "${#names[@]}" = 0 ]; then
  echo "Flink was not up."
else
  echo "Flink is down, ${#names[@]} processes ended: ${names[*]}"
fi
