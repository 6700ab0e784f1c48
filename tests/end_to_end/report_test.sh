#!/usr/bin/env bash
# Pages made of real runs: every figure is there, nothing is loaded, names of runs are no markup, and a page
# appears whole or not at all.
#   report_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"
reader=$(realpath "$(dirname "${BASH_SOURCE[0]}")")/report_page.py

write_config small.yaml <<'YAML'
train: {num_steps: 12, global_batch: 12, micro_batch: 2}
optimizer: {learning_rate: 0.003, warmup_steps: 4}
evaluate: {every: 4, num_sequences: 8}
YAML
prepare_corpus "$switchyard"
odd="<script>alert(1)</script>&\"'"
expect 0 on_ranks train small.yaml run.output=first parallel.expert="$ranks"
expect 0 "$switchyard" train small.yaml "run.output=$odd" optimizer.learning_rate=0.001
line=$(sed -nE 's/^ *next +report: //p' <<<"$out")
expect 0 bash -c "$line"
[[ -s $odd/report.html ]] || fail "the printed line makes no report: $line"

# read_page PAGE ID...: the text of the page in $out
read_page() {
  [[ -x /usr/bin/python3 ]] || { echo "NOT TESTED: the page $1 needs Debian's python3 to be read"; return; }
  expect 0 /usr/bin/python3 "$reader" "$@"
}
says() { [[ $out == *"$1"* || ! -x /usr/bin/python3 ]] || fail "the page does not say '$1': $out"; }
curves=(loss-by-step loss-by-tokens loss-by-flops loss-by-time tokens-per-second gradient-norm learning-rate)

expect 0 "$switchyard" report first --output one.html
[[ $out == "one.html: 1 run, "* && -z $err ]] || fail "said: $out $err"
read_page one.html "${curves[@]}" parts parts-by-step load load-map-1 memory
says "run.output=first"
says "done"
says "nats a token"
grep -q '"at_measured_rows"' first/record.json || fail "no plan for the rows that were received: $(cat first/record.json)"
# The plan for the rows that were received is what the allocator counted.
measured=$(grep '"loss"' first/metrics.jsonl | tail -n 1 | sed -nE 's/.*"memory_bytes": ([0-9]+).*/\1/p')
planned=$(sed -nE '/at_measured_rows/,/}/s/.*"memory_bytes": ([0-9]+).*/\1/p' first/record.json)
[[ $measured == "$planned" ]] || fail "planned $planned bytes, measured $measured"

expect 0 "$switchyard" report first "$odd" --output two.html
read_page two.html "${curves[@]}" parts load load-map-1 load-map-2 memory
says "$odd"
says "optimizer.learning_rate"
if ((ranks > 1)); then
  # Two that differ only in their layout make a curve of scaling.
  expect 0 "$switchyard" train small.yaml run.output=alone
  expect 0 "$switchyard" report first alone --output scaling.html
  read_page scaling.html strong-scaling strong-efficiency
fi
grep -q '<script>alert' two.html && fail "the name of a run is markup"

# In a browser: no error, and a click on the head of a table sorts it, a second one the other way round.
if browser=$(command -v chromium); then
  in_browser() { # CLICKS: the names of the runs in the table's order, after so many clicks on their head
    sed "s#</body>#<script>for (let i = 0; i < $1; ++i) document.querySelector(\"th\").click();</script></body>#" two.html > clicked.html
    HOME=$work timeout 60 "$browser" --headless=new --no-sandbox --disable-gpu --enable-logging=stderr --dump-dom \
      "file://$work/clicked.html" > dom 2> words || fail "the browser ends with $?"
    ! grep CONSOLE words || fail "errors in the browser"
    grep -oE '<tr><td>[^<]*' dom | head -n 2 | tr '\n' ' '
  }
  forwards=$(in_browser 1) backwards=$(in_browser 2)
  [[ $forwards == *alert*first* && $backwards == *first*alert* ]] || fail "sorted: $forwards; the other way round: $backwards"
else
  echo "NOT TESTED: a page in a browser needs Debian's chromium"
fi

# A run without what newer ones record.
mkdir old
grep '"loss"' first/metrics.jsonl | sed -E 's/, "load_by_layer".*/}/' > old/metrics.jsonl
expect 0 "$switchyard" report old --output old.html
read_page old.html "${curves[@]}"
says "part_seconds are missing in metrics.jsonl"
says "There is no config.yaml"

# Whole or not at all; the old page stays.
before=$(sha256sum one.html)
expect 3 "$switchyard" report first none --output one.html
expect_lines 1 "none: is no folder of a run (it has neither metrics.jsonl nor run.json)"
expect 6 bash -c "ulimit -f 8; '$switchyard' report first --output one.html"
[[ $(sha256sum one.html) == "$before" && $(ls) != *one.html.tmp* ]] || fail "the page changed: $(ls)"
expect 6 "$switchyard" report first --output nowhere/one.html
finish
