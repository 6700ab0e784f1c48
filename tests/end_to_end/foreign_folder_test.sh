#!/usr/bin/env bash
# A run folder that holds somebody's files: train and eval refuse it and every byte in it stays, however
# it looks. Folders of runs, also of earlier versions, and folders that no run would touch are taken.
#   foreign_folder_test.sh MPIEXEC SWITCHYARD RANKS
set -uo pipefail
source "$(dirname "$0")/run.sh"
write_config small.yaml <<'YAML'
train: {num_steps: 2, global_batch: 12, micro_batch: 1}
capture: {steps: [1]}
YAML
prepare_corpus "$switchyard"
program() { on_ranks "$1" small.yaml parallel.expert="$ranks" "${@:2}"; }
expect 0 program train  # a run, whose files the foreign folders borrow
# Everything below a folder: kinds, modes, times, targets of links, bytes. Not the folder's own time: eval
# makes and removes a folder for its watchdog where there are checkpoints.
state() { find "$1" -mindepth 1 -printf '%P %y %m %T@ %l\n' | sort; find "$1" -type f -exec sha256sum {} + | sort; }

# nasty NAME: makes NAME/, and all that it must leave as it is in NAME.aside/.
nasty() {
  mkdir -p "$1" "$1.aside"
  case $1 in
    config) printf '# my comments\nrun: {output: elsewhere}\n' > "$1/config.yaml" ;;
    watch) mkdir "$1/watch" && echo mine > "$1/watch/notes" ;;
    watch_names) mkdir "$1/watch" && echo mine > "$1/watch/rank-0" ;;
    metrics) echo '{"loss": 1}' > "$1/metrics.jsonl" ;;
    metrics_of_a_run) cp run/metrics.jsonl run/exit.json run/config.yaml "$1" ;;
    logs) mkdir "$1/logs" && echo mine > "$1/logs/rank-0.log" ;;
    empty_logs) mkdir "$1/logs" ;;
    checkpoints) mkdir -p "$1/checkpoints/step-00000100" && echo mine | tee "$1/checkpoints/step-00000100/model.pt" > "$1/checkpoints/step-00000100/manifest.json" ;;
    leftovers) mkdir -p "$1/checkpoints/step-00000100.tmp" && echo mine > "$1/checkpoints/step-00000100.tmp/model.pt" ;;
    captures) mkdir -p "$1/captures/step-00000001" "$1/captures/a.tmp" && echo mine | tee "$1/captures/step-00000001/x" > "$1/captures/a.tmp/x" ;;
    exit) echo '{"code": 0, "reason": "mine"}' > "$1/exit.json" ;;
    lock) echo mine > "$1/run.lock" ;;
    tokenizer) echo mine > "$1/tokenizer.bin" ;;
    restarts) echo '{"restarts": "mine"}' > "$1/restarts.json" ;;
    restarts_locked) echo '{"restarts": "mine"}' > "$1/restarts.json"; : > "$1/run.lock"; echo mine > "$1/config.yaml" ;;
    marker) echo '{"format": "of another program", "course": "x"}' > "$1/run.json" ;;
    marker_text) echo 'switchyard run' > "$1/run.json" ;;
    marker_folder) mkdir "$1/run.json" && echo mine > "$1/run.json/x" ;;
    marker_link) cp run/run.json "$1.aside" && ln -s "../$1.aside/run.json" "$1/run.json" && echo mine > "$1/config.yaml" ;;
    linked_files)
      for file in config.yaml metrics.jsonl exit.json tokenizer.bin restarts.json run.lock; do
        echo mine > "$1.aside/$file" && ln -s "../$1.aside/$file" "$1/$file"
      done ;;
    linked_folders)
      for folder in watch logs checkpoints captures; do
        mkdir "$1.aside/$folder" && echo mine > "$1.aside/$folder/rank-0" && ln -s "../$1.aside/$folder" "$1/$folder"
      done ;;
    linked_checkpoints) cp -r run/checkpoints "$1.aside" && ln -s "../$1.aside/checkpoints" "$1/checkpoints" && : > "$1/run.lock" ;;
    linked_run) for file in restarts.json run.lock; do ln -s "../run/$file" "$1/$file"; done; echo mine > "$1/metrics.jsonl" ;;
    nowhere) ln -s nowhere "$1/metrics.jsonl" ;;
    linked) rmdir "$1" && echo mine > "$1.aside/config.yaml" && ln -s "$1.aside" "$1" ;;
    *) fail "unknown: $1" ;;
  esac
}
kinds=$(sed -nE '/^nasty\(\)/,/^}/s/^    ([a-z_]+)\).*/\1/p' "$0")
[[ $(wc -w <<<"$kinds") -ge 24 ]] || fail "not all kinds: $kinds"
((ranks == 1)) || kinds="config watch checkpoints linked_files"
run_before=$(state run)
for kind in $kinds; do
  nasty "$kind"
  before=$(state "$kind/"; state "$kind.aside")
  expect 2 program train run.output="$kind"
  expect_lines 1 "Choose another run.output"
  case $kind in
    linked_checkpoints) expect 0 program eval run.output="$kind" ;;
    config | watch | checkpoints | leftovers | linked_* | exit) expect 4 program eval run.output="$kind" ;;
  esac
  [[ $(state "$kind/"; state "$kind.aside") == "$before" ]] ||
    fail "$kind: $(diff <(echo "$before") <(state "$kind/"; state "$kind.aside"))"
done
[[ $(state run) == "$run_before" ]] || fail "the run that was linked to has changed"

# The case of the report: a configuration in the folder that it names.
mkdir r r/watch && cp small.yaml r/config.yaml && touch r/watch/notes
expect 2 program train run.output=r
expect_lines 1 "run.output: r holds config.yaml, watch, and no run.json says"

# Taken: an empty folder, a link to one, and one with files that a run never touches.
mkdir empty aside notes && ln -s aside link && echo mine > notes/notes.md && : > notes/slurm-1.log && cp small.yaml notes/my.yaml
for folder in empty link notes; do expect 0 program train run.output="$folder"; done
[[ $(cat notes/notes.md) == mine && -d notes/checkpoints/step-00000002 ]] || fail "notes: $(ls notes)"
# A run's own effective configuration goes on with it; what somebody puts into the folders of a run stays.
for folder in watch captures checkpoints logs; do echo mine > "run/$folder/notes.tmp"; done
expect 0 on_ranks train run/config.yaml run.output=run train.num_steps=4
[[ $out == *"resuming from step 2"* ]] || fail "did not go on: $out"
for folder in watch captures checkpoints logs; do [[ $(cat "run/$folder/notes.tmp") == mine ]] || fail "run/$folder: $(ls "run/$folder")"; done
# Folders of versions that wrote no run.json: known by what only this program writes.
rm run/run.json
expect 0 program train train.num_steps=5
rm run/run.json run/restarts.json
expect 0 program train train.num_steps=6
[[ $out == *"resuming from step 5"* && -s run/run.json ]] || fail "an earlier version's: $out"
# A start that was killed between the lock and the marker.
mkdir killed && : > killed/run.lock
expect 0 program train run.output=killed
finish
