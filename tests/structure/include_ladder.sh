#!/usr/bin/env bash
# Checks the include lines of our own sources: a folder includes only folders below it on the ladder,
# each third-party library is included only in its home, and a .cpp includes its own header first, which
# proves that the header compiles alone.
#   include_ladder.sh SOURCE_FOLDER
set -euo pipefail
cd "$1"

declare -A below=(
  [tensor]=""
  [kernels]="tensor"
  [data]="tensor"
  [parallel]="kernels tensor"
  [experts]="parallel kernels tensor"
  [model]="experts parallel kernels tensor"
  [trainer]="model experts parallel kernels data tensor"
  [bench]="trainer model experts parallel kernels data tensor"
  [launch]="bench trainer model experts parallel kernels data tensor"
)
# header pattern -> folders (or files) that may include it
declare -A home=(
  ['mpi\.h']='^parallel/[a-z_]*\.cpp$|^parallel/mpi_[a-z_]*\.hpp$'
  ['dnnl[a-z_]*\.h(pp)?|oneapi/.*']='^kernels/cpu/|^kernels/plan/'
  ['hwy/.*']='^kernels/cpu/'
  ['omp\.h']='^kernels/'
  ['hdf5\.h|H5.*']='^data/[a-z_0-9]*\.cpp$|^data/hdf5_[a-z]*\.hpp$'
  ['sentencepiece.*']='^data/[a-z_]*\.cpp$'
  ['zlib\.h']='^data/[a-z_]*\.cpp$'
  ['xxhash\.h']='^(data|trainer)/[a-z_]*\.cpp$'
  ['boost/iostreams/.*']='^data/[a-z_]*\.cpp$'
  ['boost/program_options.*']='^launch/[a-z_]*\.(cpp|hpp)$'
  ['yaml-cpp/.*']='^launch/[a-z_]*\.cpp$'
  ['nlohmann/.*']='\.cpp$'
  ['spdlog/.*']='^(trainer|launch)/[a-z_]*\.cpp$'
  ['fmt/.*']='\.cpp$'
  ['Random123/.*']='^tensor/random\.cpp$'
  ['cuda.*|nccl\.h|cublas.*']='^(tensor|kernels)/cuda/|^parallel/nccl_'
)

failures=0
complain() {
  echo "$1"
  failures=$((failures + 1))
}

while IFS= read -r file; do
  folder=${file%%/*}
  while IFS= read -r included; do
    target=${included%%/*}
    if [[ -n ${below[$target]+x} ]]; then
      [[ $target == "$folder" || " ${below[$folder]} " == *" $target "* ]] ||
        complain "$file includes $included: $folder may include only: ${below[$folder]:-nothing of ours}"
      continue
    fi
    for pattern in "${!home[@]}"; do
      if [[ $included =~ ^($pattern)$ && ! $file =~ ${home[$pattern]} ]]; then
        complain "$file includes <$included>, whose home is ${home[$pattern]}"
      fi
    done
  done < <(sed -nE 's/^#include [<"]([^>"]+)[>"].*/\1/p' "$file")
done < <(find "${!below[@]}" -name '*.hpp' -o -name '*.cpp' | sort)

while IFS= read -r header; do
  # Highway includes a file once for each instruction set: such a file has guards of its own.
  grep -q '^#include <hwy/foreach_target.h>\|defined(HWY_TARGET_TOGGLE)' "$header" && continue
  grep -qx '#pragma once' "$header" || complain "$header has no '#pragma once'"
  source=${header%.hpp}.cpp
  if [[ -f $source ]] && ! grep -q '^#include <hwy/foreach_target.h>' "$source"; then
    [[ $(grep -m1 '^#include' "$source") == "#include \"$header\"" ]] ||
      complain "$source does not include $header first"
  fi
done < <(find "${!below[@]}" -name '*.hpp' | sort)

if [[ $failures -gt 0 ]]; then
  echo "$failures lines break the rules of inclusion (docs/architecture.md)"
  exit 1
fi
