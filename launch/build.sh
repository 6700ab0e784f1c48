#!/usr/bin/env bash
# Builds a preset (default: release) quietly; prints the compiler's words only when it fails.
#   launch/build.sh [PRESET] [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${1:-release}
shift || true
log=build/$preset.log
mkdir -p build
fail() {
  tail -n 40 "$log" >&2
  echo "build: $1 failed; the whole log is $log" >&2
  exit 1
}
started=$SECONDS
cmake --preset "$preset" >"$log" 2>&1 || fail "cmake --preset $preset"
cmake --build --preset "$preset" ${1:+--target "$@"} >>"$log" 2>&1 || fail "cmake --build --preset $preset"
echo "Built build/$preset in $((SECONDS - started)) s"
