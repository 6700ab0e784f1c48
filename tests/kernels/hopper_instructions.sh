#!/usr/bin/env bash
# Every kernel of object files that is written for Hopper's matrix units has their instruction
# (HGMMA in the machine code) and keeps its sums in registers (no stores to local memory).
#   hopper_instructions.sh FILE.o...
# 77, which ctest counts as skipped, where the toolkit has no cuobjdump.
set -euo pipefail

cuobjdump=$(command -v cuobjdump || command -v "${CUDA_HOME:-/usr/local/cuda}/bin/cuobjdump" || true)
if [[ -z $cuobjdump ]]; then
  echo "NOT TESTED: the machine code of kernels for Hopper (no cuobjdump)"
  exit 77
fi
for object in "$@"; do "$cuobjdump" -sass "$object"; done | awk '
  /Function :/ { name = $3; kernels[name] = 1 }
  /HGMMA/ { products[name]++ }
  / STL/ { spills[name]++ }
  END {
    for (name in kernels) {
      count++
      if (!products[name] || spills[name]) {
        print name ": " products[name] + 0 " HGMMA, " spills[name] + 0 " stores to local memory"
        wrong = 1
      }
    }
    print count + 0 " kernels"
    exit wrong || count == 0
  }'
