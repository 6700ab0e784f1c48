# Sourced by the tests of programs: runs a command and compares exit code and output.
#   expect EXIT_CODE COMMAND...      then  $out and $err hold the outputs
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}
expect() {
  local wanted=$1
  shift
  local code=0
  "$@" >"$work/out" 2>"$work/err" || code=$?
  out=$(cat "$work/out")
  err=$(cat "$work/err")
  [[ $code -eq $wanted ]] || fail "$* gave exit code $code, not $wanted; stderr: $err"
}
# The number of lines of $err that hold a text must be as told.
expect_lines() {
  local count
  count=$(grep -cF -- "$2" <<<"$err")
  [[ $count -eq $1 ]] || fail "'$2' stands on $count lines of stderr, not $1: $err"
}
finish() {
  [[ $failures -eq 0 ]] || { echo "$failures failures"; exit 1; }
  echo "all as expected"
}
