#!/usr/bin/env bash
# The border to the host: outside kernels/ nothing asks a tensor for the address that kernels use, and
# nobody takes its address as a pointer without a check. What the host wants goes through
# TensorView::host and kernels/host_copy.hpp. The NCCL group gives addresses to the card's own library.
#   host_border.sh SOURCE_FOLDER
set -euo pipefail
cd "$1"

found=$(grep -rnE '(\.|->)(as|row|span)<|kernel_bytes\(|(view|rows|tensor|whole|send|recv|_)->data\b|[a-z]_?\.data [+-]' \
  --include='*.hpp' --include='*.cpp' parallel experts model trainer bench launch | grep -vE '^(launch/options|parallel/group/nccl_group)\.' || true)
if [[ -n $found ]]; then
  echo "$found"
  echo "these lines reach over the border to the host (kernels/host_copy.hpp)"
  exit 1
fi
