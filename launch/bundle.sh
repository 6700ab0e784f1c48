#!/usr/bin/env bash
# Packs a build so that it runs on another machine of the same kind of processor, which has MPI and, for
# cards, CUDA's cuBLAS, but none of the other packages: the program, the libraries it needs, the tests and
# benchmarks for a card (tests/gpu.sh), configurations.
#   launch/bundle.sh BUILD_FOLDER OUTPUT.tar.xz
set -euo pipefail
if [[ $# -ne 2 ]]; then
  sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
source_folder=$(cd "$(dirname "$0")/.." && pwd)
build=$(realpath "$1")
output=$(realpath -m "$2")
[[ -x $build/switchyard ]] || { echo "bundle.sh: there is no $build/switchyard; build it first" >&2; exit 2; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bundle=$folder/switchyard
mkdir -p "$bundle"/{bin,lib,tests}
cp "$build/switchyard" "$bundle/bin/"
if [[ -s $build/card_tests.txt ]]; then
  while read -r name ranks program; do
    [[ -x $program ]] || { echo "bundle.sh: $program is not built" >&2; exit 2; }
    cp -n "$program" "$bundle/tests/"
    echo "$name $ranks $(basename "$program")"
  done <"$build/card_tests.txt" >"$bundle/tests/card_tests.txt"
  cp "$source_folder"/tests/{gpu.sh,support/mpiexec.sh} "$bundle/tests/"
  cp -r "$source_folder/tests/golden" "$bundle/tests/"
  find "$build/tests" -name 'cuda_speed_*' -type f -executable -exec cp {} "$bundle/tests/" \;
fi
cp -r "$source_folder/configs" "$bundle/"
find "$bundle/bin" "$bundle/tests" -type f -executable ! -name '*.sh' ! -name '*.py' -exec strip --strip-unneeded {} +

# What every such machine has, or must bring itself: the C and C++ libraries, MPI and what it stands on,
# the driver, CUDA.
of_the_machine='^(ld-linux|linux-vdso|libc\.|libm\.|libdl\.|libpthread\.|librt\.|libresolv|libutil|libstdc\+\+|libgcc_s'
of_the_machine+='|libmpi|libopen-|libpmix|libhwloc|libevent|libcuda|libcublas|libcudart|libcudnn|libnccl|libnvrtc|libz\.)'
# ldd: name => path (address)
find "$bundle/bin" "$bundle/tests" -type f -executable ! -name '*.sh' ! -name '*.py' -exec ldd {} + 2>/dev/null |
  awk '$2 == "=>" && $3 ~ /^\// {print $1, $3}' | sort -u |
  while read -r name path; do
    [[ $name =~ $of_the_machine ]] || cp -L "$path" "$bundle/lib/$name"
  done

mkdir -p "$(dirname "$output")"
# The programs share most of their code, which a window as wide as all of them finds.
XZ_OPT=--lzma2=preset=1,dict=256MiB tar -C "$folder" -cJf "$output.part" switchyard
mv "$output.part" "$output"
echo "$output: $(du -m "$output" | cut -f1) MB, $(wc -l <"$bundle/tests/card_tests.txt" 2>/dev/null || echo 0) tests for a card"
