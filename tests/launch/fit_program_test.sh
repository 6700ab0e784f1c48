#!/usr/bin/env bash
# switchyard fit as a person calls it.
#   fit_program_test.sh SWITCHYARD DATA_FOLDER
set -uo pipefail
switchyard=$1
data=$2
source "$(dirname "$0")/expect.sh"
cd "$work" || exit 1

expect 0 "$switchyard" fit "$data/chinchilla_points.csv" --drop-lowest-ratio 5 --bootstrap 40
[[ $out == *"the 5 runs of the lowest D/N (0.0361 to 0.404) are dropped"* ]] || fail "what is dropped is not told: $out"
row() { awk -v name="$1" '$1 == name { print $2; exit }' <<<"$out"; }
[[ "$(row E) $(row alpha) $(row beta)" == "1.8172 0.34731 0.36717" ]] || fail "the fit: $out"
[[ $out == *"residuals: root mean square"*"the largest budget held out"*"compute-optimal: N ~ C^0.514"* ]] || fail "parts: $out"
[[ $out == *"Not fitted:"*"granularity: the runs have 1 value of G"* ]] || fail "refusals: $out"

# Other names of columns, and JSON.
sed 's/^N,C,L$/Model Size,"Training FLOP",loss/' "$data/chinchilla_points.csv" >named.csv
expect 3 "$switchyard" fit named.csv
expect_lines 1 "named.csv: no column holds N (parameters, those that a token passes); name it with --columns N=NAME"
expect 0 "$switchyard" fit named.csv --columns "N=Model Size,C=Training FLOP" --bootstrap 0 --law tokens --json
python3 - "$work/out" <<'PY' || fail "JSON of a fit"
import json, sys
fit, = json.load(open(sys.argv[1]))["fits"]
assert abs(fit["parameters"]["B"]["value"] - 12846) < 1 and len(fit["residuals"]) == 245
PY

# No law from one budget; nothing is printed then.
{ echo N,D,L; for n in 1 2 4 8 16 32 64 128; do echo "${n}e6,$((12800 / n))e6,3.$n"; done; } >budget.csv
expect 3 "$switchyard" fit budget.csv --law tokens
expect_lines 1 "tokens: all runs are of one budget (C = 7.68e+16 to 7.68e+16 FLOPs)"
[[ -z $out ]] || fail "printed beside a refusal: $out"
expect 2 "$switchyard" fit budget.csv --law token
expect_lines 1 "did you mean tokens?"
expect 2 "$switchyard" fit budget.csv --columns M=x
expect_lines 1 "--columns M=x: expected SYMBOL=NAME"
expect 6 "$switchyard" fit none.csv
expect 2 "$switchyard" fit
finish
