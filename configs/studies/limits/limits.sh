#!/usr/bin/env bash
# The study of limits, from nothing to its report: what attention and its alternatives cost, recall, copy, find and
# extrapolate. Makes its data, trains, evaluates, and writes report.md with figures and tables into a folder: docs/limits
# was made like this. Stopped and started again it goes on.
#   configs/studies/limits/limits.sh [--quick] [OUTPUT_FOLDER]    SWITCHYARD: the program, default build/release/switchyard
# --quick: one seed, shorter sequences, fewer steps, in runs/studies/limits_quick: some minutes in place of an hour, for
# seeing that all of it works. What it finds is no finding.
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=configs/studies/limits
usage() { sed -n '2,8s/^# \{0,1\}//p' "$here/limits.sh"; }
quick=false
while [[ ${1:-} == -* ]]; do
  case $1 in
    --quick) quick=true; shift ;;
    *) usage; [[ $1 == -h || $1 == --help ]] && exit 0; exit 2 ;;
  esac
done
switchyard=${SWITCHYARD:-build/release/switchyard}
mpiexec=${MPIEXEC:-tests/support/mpiexec.sh}
studies=runs/studies/limits output=${1:-docs/limits}
[[ $quick == false ]] || { studies=runs/studies/limits_quick output=${1:-$studies/report}; }
corpora=runs/corpora/limits
mkdir -p "$corpora" "$studies" "$output"

# corpus FILE OPTION...: made once.
corpus() {
  [[ -e $1 ]] || "$switchyard" prepare --output "$1" "${@:2}" >"$studies/prepare.log" 2>&1 ||
    { tail -n 3 "$studies/prepare.log" >&2; return 1; }
}
problems() { corpus "$corpora/$1.h5" --synthetic "${@:2}" --valid 0.02; }
problems mqar-64-4 mqar --length 64 --size 4 --documents 30000
problems mqar-128-16 mqar --length 128 --size 16 --documents 30000
problems copy-10-50 copy --length 128 --least-size 10 --size 50 --documents 26000
problems parity-2-12 parity --length 16 --least-size 2 --size 12 --documents 60000
problems listops-64-2 listops --length 64 --size 2 --documents 20000
problems needle-512 needle --length 512 --size 4 --documents 5000
for letters in 50 100 200; do
  corpus "$corpora/copy-$letters.h5" --synthetic copy --length $((2 * letters + 28)) --least-size "$letters" \
    --size "$letters" --documents 400 --seed 7 --valid 0.5
done
for bits in 12 24 48; do
  corpus "$corpora/parity-$bits.h5" --synthetic parity --length $((bits + 4)) --least-size "$bits" --size "$bits" \
    --documents 2000 --seed 7 --valid 0.5
done
for length in 2048 8192; do
  corpus "$corpora/needle-$length.h5" --synthetic needle --length "$length" --size 4 --documents 100 --seed 7 --valid 0.5
done
# The modules of Python's standard library, without its packages: some 5 MB.
if [[ ! -e $corpora/text.h5 ]]; then
  mkdir -p "$corpora/text"
  cp "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"/*.py "$corpora/text"
  corpus "$corpora/text.h5" "$corpora/text" --train-tokenizer 512
fi

# study NAME: its points; in a quick study fewer and shorter.
study() {
  sed "s|runs/studies/limits|$studies|" "$here/$1.yaml" >"$studies/$1.yaml"
  if $quick; then
    sed -i -E 's/seeds: .*/seeds: [1]/; s/num_steps: [0-9]+00/num_steps: 100/; s/, 8192, 16384\]/]/; /sequence_length: 16384/d' "$studies/$1.yaml"
  fi
  "$switchyard" sweep "$studies/$1.yaml" --local >"$studies/$1.log" 2>&1 || { tail -n 5 "$studies/$1.log" >&2; return 1; }
  echo "$1: $(tail -n 1 "$studies/$1.log")"
}
questions() {
  python3 "$here/evaluate.py" "$switchyard" "$studies/$1" "$studies/$1/questions.csv"
}

# Seconds are measured alone; the others run two at a time.
study cost
python3 "$here/layouts.py" "$switchyard" "$mpiexec" "$studies"
study recall & recall=$!
{
  for part in compute needle positions; do
    study "$part"
    questions "$part"
  done
} & others=$!
wait "$recall"
wait "$others"
python3 "$here/report.py" "$studies" "$output"
echo "wrote $output/report.md"
