#!/usr/bin/env bash
# The reference study, from text to page: prepares Python's standard library, runs the 36 points of first.yaml (again: goes
# on), and writes report.html, fit.txt and study.csv into a folder: docs/example_report was made like this.
#   configs/studies/first.sh [OUTPUT_FOLDER]        SWITCHYARD: the program, default build/release/switchyard
set -euo pipefail
cd "$(dirname "$0")/../.."

output=${1:-docs/example_report}
switchyard=${SWITCHYARD:-build/release/switchyard}
study=runs/studies/first/study.h5
most_bytes=3000000

mkdir -p runs/corpora "$output"
if [[ ! -e runs/corpora/python.h5 ]]; then
  "$switchyard" prepare "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    --output runs/corpora/python.h5 --train-tokenizer 1024
fi
"$switchyard" sweep configs/studies/first.yaml --dry-run | tail -n 4
"$switchyard" sweep configs/studies/first.yaml --local
"$switchyard" fit "$study" | tee "$output/fit.txt" || echo "no law: see above" | tee "$output/fit.txt"
"$switchyard" report "$study" --output "$output/report.html"
cp runs/studies/first/study.csv "$output/study.csv"
bytes=$(du -sb "$output" | cut -f 1)
((bytes <= most_bytes)) || { echo "$output has $bytes bytes, and may have $most_bytes" >&2; exit 1; }
echo "wrote $output"
