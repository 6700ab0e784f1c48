#!/usr/bin/env bash
# The command line of the program itself: exit codes, messages, help.
#   program_test.sh SWITCHYARD
set -uo pipefail
switchyard=$1
source "$(dirname "$0")/expect.sh"
cd "$work" || exit 1

expect 2 "$switchyard"
[[ $err == "switchyard: a command is missing"$'\n'"switchyard: Try 'switchyard --help'." ]] || fail "no command: $err"
expect 2 "$switchyard" confg
[[ $err == "switchyard: unknown command confg; did you mean config?"* ]] || fail "unknown command: $err"
expect 0 "$switchyard" --help
[[ $out == *"Commands:"*"prepare"*"config"* ]] || fail "help: $out"
help=$out
expect 0 "$switchyard" help
[[ $out == "$help" ]] || fail "help is not --help"
expect 0 "$switchyard" help config
[[ $out == "switchyard config CONFIG"*"--origins"* ]] || fail "help config: $out"
help=$out
expect 0 "$switchyard" config --help --bogus
[[ $out == "$help" ]] || fail "config --help is not help config"
expect 2 "$switchyard" help confg
for command in prepare train eval generate score plan sweep fit config checkpoint upcycle import export trace report doctor bench; do
  expect 0 "$switchyard" "$command" --help
  [[ $out == "switchyard $command "* && $out == *"Options:"* && -z $err ]] || fail "$command --help: $out $err"
  [[ $command == doctor ]] || {
    expect 2 "$switchyard" "$command"
    expect_lines 1 "switchyard: $command: "
    expect_lines 1 "switchyard: Try 'switchyard $command --help'."
  }
done
expect 0 "$switchyard" --version
[[ $out == "switchyard "[0-9]*"oneDNN "[0-9]*"MPI"*"HDF5 "[0-9]* ]] || fail "version: $out"

expect 2 "$switchyard" config --orgins a.yaml
[[ $err == "switchyard: config: unknown option --orgins; did you mean --origins?"$'\n'"switchyard: Try 'switchyard config --help'." ]] ||
  fail "unknown option: $err"
expect 2 "$switchyard" config
[[ $err == "switchyard: config: CONFIG is missing"* ]] || fail "missing argument: $err"
expect 2 "$switchyard" config --ranks two a.yaml
expect 2 "$switchyard" config --ranks 0 a.yaml

printf 'run: {output: runs/a}\ndata: {path: a.h5}\nmodel:\n  hiden: 8\n  hidden: 1.5\n' >bad.yaml
expect 2 "$switchyard" config bad.yaml train.num_steps=ten
[[ -z $out ]] || fail "a bad file printed $out"
[[ $err == "switchyard: bad.yaml:4:3: model.hiden: unknown key; did you mean model.hidden?
switchyard: bad.yaml:5:11: model.hidden: expected a whole number, got 1.5
switchyard: command line: train.num_steps=ten: expected a whole number, got ten" ]] || fail "bad file: $err"
expect 2 "$switchyard" config .
expect 2 "$switchyard" config none.yaml
expect_lines 1 "switchyard: none.yaml: cannot read the configuration: No such file or directory"

printf 'run: {output: runs/a}\ndata: {path: a.h5}\n' >good.yaml
expect 0 "$switchyard" config good.yaml train.num_steps=50
[[ $out == *"  num_steps: 50"* && -z $err ]] || fail "good file: $out $err"
printf '%s\n' "$out" >effective.yaml
expect 0 "$switchyard" config effective.yaml
diff "$work/out" effective.yaml || fail "the effective configuration does not read back"
expect 0 "$switchyard" config good.yaml --origins train.num_steps=50
[[ $out == *"# good.yaml:1:15"*"# default"*"# command line: train.num_steps=50"* ]] || fail "origins: $out"
# The weight of a single choice is not scaled to 1 unless somebody says so, who then gets a warning.
expect 0 "$switchyard" config good.yaml
[[ $out == *"  normalize_top_k: true"* && -z $err ]] || fail "top_k 2: $out $err"
expect 0 "$switchyard" config good.yaml experts.top_k=1
[[ $out == *"  normalize_top_k: false"* && -z $err ]] || fail "top_k 1: $out $err"
for command in config plan; do
  expect 0 "$switchyard" "$command" good.yaml model.vocab_size=300 experts.top_k=1 experts.normalize_top_k=true
  expect_lines 1 "switchyard: command line: experts.normalize_top_k=true: warning: with top_k = 1, normalize_top_k = true"
done
expect 5 "$switchyard" plan good.yaml model.vocab_size=1000000 model.hidden=1000000 experts.num_experts=1000000 \
  experts.intermediate=1000000 experts.every=4
expect_lines 1 "make the model"
expect 6 "$switchyard" plan good.yaml data.path=none.h5
expect_lines 1 "make it with \`switchyard prepare TEXTS... --output none.h5\`"
expect 6 "$switchyard" plan good.yaml "data.path=it's none.h5"
expect_lines 1 "make it with \`switchyard prepare TEXTS... --output 'it'\\''s none.h5'\`"
# The value of one key, as a shell takes it, whatever YAML makes of it.
for name in runs/a "a b" ä "x=1" "it's \"quoted\"" "a #b" "#" '$HOME\' "- [x, {y: z}]" true "100%"; do
  expect 0 "$switchyard" config good.yaml "run.output=$name" --get run.output
  [[ $out == "$name" && -z $err ]] || fail "--get run.output: '$out' for '$name' $err"
  "$switchyard" config good.yaml "run.output=$name" >quoted.yaml
  expect 0 "$switchyard" config quoted.yaml --get run.output
  [[ $out == "$name" ]] || fail "--get run.output from a file: '$out' for '$name'"
done
value() { expect 0 "$switchyard" config good.yaml "${@:3}" --get "$1"; [[ $out == "$2" ]] || fail "--get $1: '$out', not '$2'"; }
value train.num_steps 50 train.num_steps=50
value optimizer.learning_rate 0.0006
value data.document_mask false
value checkpoint.resume auto
value capture.steps "[1, 2]" "capture.steps=[1,2]"
value model.rope_scaling none
value model.rope_scaling.kind none
for wrong in train.num_step "train.num_steps?" run.outputs "run.output?" run "is a section" trian.num_steps "unknown section trian"; do
  [[ -n ${asked:-} ]] || { asked=$wrong; continue; }
  expect 2 "$switchyard" config good.yaml --get "$asked"
  expect_lines 1 "$wrong"
  asked=''
done
expect 2 "$switchyard" config good.yaml --get run.output --origins
expect 2 "$switchyard" config bad.yaml --get run.output

expect 2 "$switchyard" config good.yaml --ranks 3
expect_lines 1 "global_batch / data = 8 / 3 is not whole"
expect 0 "$switchyard" config good.yaml --ranks 4
expect 0 "$switchyard" config <(cat good.yaml)

# The limit of the instruction set is the program's, too; a wrong one is told before anything begins.
expect 2 env SWITCHYARD_MAX_ISA=pentium "$switchyard" plan good.yaml model.vocab_size=300
expect_lines 1 "switchyard: environment variable SWITCHYARD_MAX_ISA: 'pentium' is not an instruction set; use sse4, avx2"
expect 0 env SWITCHYARD_MAX_ISA=sse4 "$switchyard" doctor
[[ $out == *"instruction set sse4, bf16 products as fp32 products"* ]] || fail "doctor on sse4: $out"

# What a rank needs follows from its threads, which need not be those of this machine.
for threads in 1 3; do
  expect 0 "$switchyard" plan good.yaml model.vocab_size=300 --threads $threads
  [[ $out == *"expert 1; $threads threads a rank"* ]] || fail "threads of a plan: $out"
done
# Nor does it depend on the processor that plans.
for precision in fp32 bf16; do
  options=(model.vocab_size=300 run.precision=$precision --node-memory 64G)
  expect 0 "$switchyard" plan good.yaml "${options[@]}"
  planned=$out
  for isa in sse4 avx2 avx512; do
    expect 0 env SWITCHYARD_MAX_ISA=$isa "$switchyard" plan good.yaml "${options[@]}"
    [[ $out == "$planned" ]] || fail "plan in $precision on $isa: $out, without a limit: $planned"
  done
done
# Rows that no routing could send are refused, and the least and the most that it could are planned.
for rows in 1=less 7=less 8= 16= 17=more; do
  expect "$([[ $rows == *= ]] && echo 0 || echo 2)" "$switchyard" plan good.yaml model.vocab_size=300 --ranks 4 \
    model.sequence_length=4 experts.num_experts=4 experts.top_k=1 parallel.expert=2 train.micro_batch=2 --rows "${rows%=*}"
  [[ $rows == *= ]] || expect_lines 1 "--rows ${rows%=*} is ${rows#*=} than"
done

expect 6 bash -c "'$switchyard' config good.yaml >/dev/full"
expect 6 bash -c "'$switchyard' plan good.yaml model.vocab_size=300 >/dev/full"
expect_lines 1 "switchyard: cannot write to the standard output"

printf 'Once upon a time\n' >once.txt
expect 3 "$switchyard" plan good.yaml data.path=once.txt
expect_lines 1 "once.txt: is a text, not a token file; make one with \`switchyard prepare once.txt --output once.h5\`"
# "~/" is the home folder wherever a path stands, as no shell puts it in there.
mkdir home
printf 'run: {output: ~/runs/a}\ndata: {path: ~/a.h5}\nactivations: {folder: ~/spill}\n' >home.yaml
cp home.yaml home
expect 0 env HOME="$work/home" "$switchyard" config '~/home.yaml' checkpoint.resume=~/runs/a
[[ $out == *"output: $work/home/runs/a"*"path: $work/home/a.h5"*"folder: $work/home/spill"*"resume: $work/home/runs/a"* ]] ||
  fail "paths at home: $out"
printf 'one\n%%\ntwo\n%%\nthree\n%%\nfour\n' >home/a.txt
expect 0 env HOME="$work/home" "$switchyard" prepare '~/a.txt' --output='~/a.h5' --valid 0.25
[[ -s home/a.h5 && ! -e '~' ]] || fail "prepare at home: $(ls . home)"
expect 0 env HOME="$work/home" "$switchyard" prepare '~/a.txt' --output='~/b.h5' --tokenizer='~/a.h5' --valid 0.25
expect 2 env -u HOME "$switchyard" config home.yaml
expect_lines 3 "~ stands for the home folder, and HOME names none"
expect 2 "$switchyard" config good.yaml run.output=~nobody/runs
expect_lines 1 "run.output=~nobody/runs: ~nobody is not known here as the home of a user; write the folder out"
expect 2 "$switchyard" prepare a.txt --output='~nobody/a.h5'

expect 2 "$switchyard" prepare a.txt --output a.h5 --separator lines
expect_lines 1 "switchyard: prepare: --separator: 'lines' is not a choice; use auto, none or blank"
expect 2 "$switchyard" prepare a.txt
expect_lines 1 "switchyard: prepare: --output FILE.h5 is missing"
expect 2 "$switchyard" prepare --output a.h5
expect_lines 1 "switchyard: prepare: INPUT is missing"
expect 2 "$switchyard" prepare a.txt --output a.h5 --threads -1
expect 2 "$switchyard" prepare a.txt --output a.h5 --threads 100000
expect 2 "$switchyard" prepare a.txt --output a.h5 --tokeniser bytes
expect_lines 1 "unknown option --tokeniser; did you mean --tokenizer?"
expect 3 "$switchyard" prepare none.txt --output a.h5
[[ ! -e a.h5 ]] || fail "a failed prepare left its output"
printf 'one\n%%\ntwo\n%%\nthree\n%%\nfour\n' >a.txt
expect 0 "$switchyard" prepare a.txt --output a.h5 --valid 0.25
[[ -s a.h5 ]] || fail "prepare wrote nothing"
# One text: its last lines are for validation. Hidden files, and the output in the folder of texts, are not read.
mkdir -p texts/.git
seq 1000 1999 >texts/numbers.txt
seq 1000 1999 >texts/.git/index
for overwrite in '' --overwrite; do
  expect 0 "$switchyard" prepare texts --output texts/a.h5 --valid 0.1 $overwrite
  [[ $out == *"train  1 documents, 4501 tokens"*"valid  1 documents, 501 tokens"*"the last 10% of the tokens; one document is cut at a line"*"left out  hidden file or folder: 1"* ]] ||
    fail "one text: $out"
done
[[ $out == *"left out  hidden file or folder: 1, token file in the folder of texts: 1"* ]] || fail "the output among the texts: $out"
expect 3 "$switchyard" prepare once.txt --output b.h5 --train-tokenizer 300
expect_lines 1 "300 is the least; give more text"
# Two at once on one output: one makes it, the other says that it exists.
for i in 1 2; do
  { "$switchyard" prepare a.txt --output twice.h5 2> "twice.$i.err" > /dev/null; echo $? > "twice.$i.code"; } &
done
wait
[[ $(sort twice.1.code twice.2.code | tr '\n' ' ') == "0 6 " ]] || fail "two at once: $(cat twice.*)"
[[ $(cat twice.*.err) == *"twice.h5: exists already; remove it or choose another name"* ]] || fail "two at once: $(cat twice.*.err)"
[[ $(ls) != *tmp* ]] || fail "left behind: $(ls)"
expect 2 "$switchyard" prepare a.txt --output b.h5 --train-tokenizer 299
expect_lines 1 "--train-tokenizer must be from 300 to 2147483647, got 299"

# A plan of many ranks takes what differs once, and its columns stay apart and aligned.
cat > large.yaml <<'YAML'
run: {output: runs/large}
data: {path: corpus.h5}
model: {vocab_size: 129280, hidden: 7168, num_layers: 61, num_heads: 128, num_kv_heads: 8, head_dim: 128, sequence_length: 4096}
experts: {num_experts: 256, top_k: 8, intermediate: 2048}
parallel: {expert: 256}
train: {global_batch: 16384, micro_batch: 1}
YAML
expect 0 timeout 20 "$switchyard" plan large.yaml --ranks 2048 # takes a fraction of a second
table=$(sed -n '/^Work of one step/,/^$/p' <<<"$out")
[[ $(sed -n 2p <<<"$table" | tr -s ' ') == " part PFLOP wire TB" ]] || fail "units of a large plan: $table"
[[ $(sed '1d;$d' <<<"$table" | awk '{print length($0)}' | sort -u | wc -l) -eq 1 &&
  $(sed '1,2d;$d' <<<"$table" | awk '{print NF}' | sort -u) == 3 ]] || fail "columns of a large plan: $table"

# Whether it fits is judged by the nodes that are told; else it says what is assumed.
expect 0 "$switchyard" plan large.yaml --ranks 2048 --node-memory 4TiB --ranks-per-node 8
[[ $out == *"512.0 GiB a rank hold up to "*" x balanced)"*"(4.0 TiB of a node, 8 ranks on a node)"* ]] || fail "told nodes: $out"
[[ $out == *"nodes of 8 ranks, all experts alike likely"*"all_to_all (configured) "*"hierarchical, return: summed "*"Fewest bytes to experts between nodes, then within: hierarchical"* ]] ||
  fail "kinds of dispatch: $out"
expect 0 "$switchyard" plan large.yaml --ranks 2048 --node-memory 1500GB --ranks-per-node 8
[[ $out == *"Does not fit into 174.6 GiB a rank, even balanced"* ]] || fail "small nodes: $out"
expect 0 "$switchyard" plan large.yaml --ranks 2048
[[ $out == *"(assumed: nodes like this host, on which "*" leaves so much for each rank; "*" on a node"* ]] || fail "assumed nodes: $out"
expect 0 "$switchyard" plan good.yaml model.vocab_size=300 --ranks 4 --node-memory 64G --json
[[ $out == *'"fits": true'* && $out == *"64.0 GiB of a node"* ]] || fail "told nodes in JSON: $out"
expect 2 "$switchyard" plan large.yaml --node-memory lots
expect_lines 1 "--node-memory lots: expected a size as 512GiB"
expect 2 "$switchyard" plan large.yaml --node-memory 1T --memory 4
expect 2 "$switchyard" plan large.yaml --ranks-per-node -1

# Sharing a sequence: the plan shows every legal way and marks one; an impossible one is refused with
# the legal choices.
cat > context.yaml <<'YAML'
run: {output: runs/context}
data: {path: corpus.h5}
model: {vocab_size: 64, hidden: 64, num_layers: 2, num_heads: 8, num_kv_heads: 2, sequence_length: 512}
experts: {num_experts: 4, top_k: 2, intermediate: 32}
train: {global_batch: 1}
parallel: {context: 4}
YAML
expect 0 "$switchyard" plan context.yaml --ranks 4
[[ $(grep -c "  chosen$" <<<"$out") -eq 1 ]] || fail "not one scheme chosen: $out"
for scheme in "ring 4" "all_gather 4" "ring 2 x ulysses 2" "all_gather 2 x ulysses 2" "ulysses 4"; do
  [[ $(grep -c "^  $scheme  " <<<"$out") -eq 1 ]] || fail "no line of $scheme: $out"
done
expect 0 "$switchyard" plan context.yaml --ranks 4 --json
[[ $(grep -c '"chosen": true' <<<"$out") -eq 1 && $(grep -c '"hidden_share"' <<<"$out") -eq 10 ]] ||
  fail "no schemes in JSON: $out"
expect 0 "$switchyard" plan context.yaml --ranks 1 parallel.context.ranks=1
[[ $out != *"Sharing a sequence"* ]] || fail "schemes of one rank: $out"
expect 2 "$switchyard" plan context.yaml --ranks 3 parallel.context.ranks=3
expect_lines 1 "the zigzag layout needs a multiple of 6: make model.sequence_length 510 or 516"
expect 2 "$switchyard" plan context.yaml --ranks 6 parallel.context.ranks=6 parallel.context.ulysses=3
expect_lines 1 "8 heads"

# Sequences, and blocks of rows, that are alike are planned once: the largest take no longer than small ones.
for sizes in "model.sequence_length=2147483640" "model.sequence_length=2048 train.global_batch=1000000"; do
  read -ra sizes <<<"$sizes"
  expect 0 timeout 30 "$switchyard" plan context.yaml --ranks 4 "${sizes[@]}"
done
finish
