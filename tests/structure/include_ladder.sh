#!/usr/bin/env bash
# Checks the include lines of our own sources: a folder includes only folders below it on the ladder, a
# sub-folder only those of its brothers that it may know, each third-party library is included only in its
# home, and a .cpp includes its own header first, which proves that the header compiles alone.
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
# A sub-folder -> the brothers it may include; all may include what lies in the folder itself.
declare -A brothers=(
  [tensor/cuda]=""
  [kernels/cpu]=""
  [kernels/cuda]=""
  [kernels/plan]="sums rows products routing attention recurrence cpu cpu/products cpu/attention cuda cuda/products cuda/attention"
  [kernels/sums]="plan cpu/sums cuda/sums" [kernels/cpu/sums]="cpu sums" [kernels/cuda/sums]="cuda sums"
  [kernels/rows]="sums plan cpu/rows cuda/rows"
  [kernels/cpu/rows]="cpu rows sums cpu/sums"
  [kernels/cuda/rows]="cuda rows sums cuda/sums"
  [kernels/products]="sums plan cpu/products cuda/products"
  [kernels/cpu/products]="cpu products sums cpu/sums"
  [kernels/cuda/products]="cuda products sums cuda/sums"
  [kernels/routing]="rows sums plan cpu/routing cuda/routing"
  [kernels/cpu/routing]="cpu routing rows sums cpu/rows cpu/sums"
  [kernels/cuda/routing]="cuda routing rows sums cuda/rows cuda/sums"
  [kernels/attention]="products sums plan cpu/attention cuda/attention"
  [kernels/cpu/attention]="cpu attention products sums cpu/products cpu/sums"
  [kernels/cuda/attention]="cuda attention products sums cuda/products cuda/sums"
  [kernels/recurrence]="attention products rows sums plan cpu/recurrence cuda/recurrence"
  [kernels/cpu/recurrence]="cpu recurrence attention products rows sums cpu/attention cpu/products cpu/rows cpu/sums"
  [kernels/cuda/recurrence]="cuda recurrence attention products rows sums cuda/attention cuda/products cuda/rows cuda/sums"
  [data/files]="" [data/hdf5]="files" [data/bpe]="" [data/formats]="files" [data/safetensors]="files"
  [data/prepare]="files formats hdf5"
  [experts/router]="" [experts/dispatch]=""
  [model/mixers]=""
  [parallel/group]="" [parallel/context]="group"
  [trainer/activations]="" [trainer/placement]="" [trainer/checkpoint]="placement" [trainer/pricing]="" [trainer/routing]="" [trainer/watch]=""
  [trainer/run/meters]="placement pricing"
  [trainer/run]="activations checkpoint placement pricing routing run/meters watch" [trainer/families]="checkpoint placement run"
  [launch/config]="" [launch/doctor]="" [launch/pricing]="config" [launch/study]="" [launch/fit]="study"
  [launch/report]="config fit study" [launch/sweep]="config pricing report study"
  [launch/commands]="config doctor fit pricing report study sweep"
)
# header pattern -> folders (or files) that may include it
declare -A home=(
  ['mpi\.h']='^parallel/session\.cpp$|^parallel/group/mpi_[a-z_]*\.[ch]pp$'
  ['dnnl[a-z_]*\.h(pp)?|oneapi/.*']='^kernels/cpu/|^kernels/plan/'
  ['hwy/.*']='^kernels/cpu/'
  ['omp\.h']='^kernels/(team|threads|cpu/products/onednn)\.cpp$'
  ['hdf5\.h|H5.*']='^data/hdf5/'
  ['sentencepiece.*']='^data/[a-z_]*\.cpp$'
  ['pcre2\.h']='^data/bpe/split_pattern\.cpp$'
  ['utf8proc\.h']='^data/bpe/[a-z_]*\.cpp$'
  ['zlib\.h']='^data/(hdf5|prepare)/[a-z_]*\.cpp$'
  ['zstd\.h']='^data/prepare/[a-z_]*\.cpp$'
  ['xxhash\.h']='^(data/files|trainer/checkpoint)/[a-z_]*\.cpp$'
  ['boost/iostreams/.*']='^data/(formats/)?[a-z_]*\.cpp$'
  ['boost/program_options.*']='^launch/options\.(cpp|hpp)$'
  ['yaml-cpp/.*']='^launch/config/yaml_tree\.cpp$'
  ['nlohmann/.*']='\.cpp$|^data/bpe/json_part\.hpp$'
  ['spdlog/.*']='^(trainer/run|launch)/[a-z_]*\.cpp$'
  ['fmt/.*']='\.cpp$'
  ['nlopt\.h']='^launch/fit/[a-z_]*\.cpp$'
  ['Random123/.*']='^tensor/random\.cpp$|^kernels/cuda/(rows/dropout|routing/select_fixed)\.cu$'
  ['cuda.*|nccl\.h|cublas.*|cudnn.*|nvtx3/.*']='^(tensor|kernels)/cuda/|^parallel/group/nccl_'
)

failures=0
complain() {
  echo "$1"
  failures=$((failures + 1))
}

mapfile -t sources < <(find "${!below[@]}" -name '*.hpp' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu' | sort)
for file in "${sources[@]}"; do
  [[ ${file%/*} == "${file%%/*}" || -n ${brothers[${file%/*}]+x} ]] ||
    complain "${file%/*} is not in the list of sub-folders at the head of this test"
done

# check_include FILE INCLUDED: one include line.
check_include() {
  local file=$1 included=$2
  local folder=${file%%/*} own_house=${file%/*} target=${included%%/*} house=${included%/*} pattern
  if [[ -n ${below[$target]+x} ]]; then
    [[ $target != "$folder" || $house == "$folder" || $house == "$own_house" || $own_house == "$folder" ||
      " ${brothers[$own_house]-} " == *" ${house#*/} "* ]] ||
      complain "$file includes $included: $own_house may include of its brothers only: ${brothers[$own_house]:-none}"
    [[ $target == "$folder" || " ${below[$folder]} " == *" $target "* ]] ||
      complain "$file includes $included: $folder may include only: ${below[$folder]:-nothing of ours}"
    return 0
  fi
  for pattern in "${!home[@]}"; do
    if [[ $included =~ ^($pattern)$ && ! $file =~ ${home[$pattern]} ]]; then
      complain "$file includes <$included>, whose home is ${home[$pattern]}"
    fi
  done
}
while IFS=' ' read -r file included; do
  check_include "$file" "$included"
done < <(grep -HE '^#include [<"]' "${sources[@]}" | sed -nE 's/^([^:]*):#include [<"]([^>"]+)[>"].*/\1 \2/p')

# Highway includes a file once for each instruction set: such a file has guards of its own.
declare -A by_highway=() once=() first_include=()
while IFS= read -r file; do by_highway[$file]=1; done < <(
  grep -lE '^#include <hwy/foreach_target.h>|defined\(HWY_TARGET_TOGGLE\)' "${sources[@]}")
while IFS= read -r file; do once[$file]=1; done < <(grep -lx '#pragma once' "${sources[@]}")
while IFS=: read -r file line; do first_include[$file]=$line; done < <(grep -Hm1 '^#include' "${sources[@]}")
for header in "${sources[@]}"; do
  [[ $header == *.hpp && -z ${by_highway[$header]+x} ]] || continue
  [[ -n ${once[$header]+x} ]] || complain "$header has no '#pragma once'"
  source=${header%.hpp}.cpp
  [[ ! -f $source || -n ${by_highway[$source]+x} || ${first_include[$source]-} == "#include \"$header\"" ]] ||
    complain "$source does not include $header first"
done

if [[ $failures -gt 0 ]]; then
  echo "$failures lines break the rules of inclusion (docs/architecture.md)"
  exit 1
fi
