#!/usr/bin/env bash
# What an installation holds, and that it works where it was put: the program, its man page and completion, the
# scripts, the environment module; what is said of the version is the same everywhere; the Debian package.
#   install_test.sh BUILD_FOLDER SOURCE_FOLDER
set -uo pipefail
build=$1 source=$2
source "$(dirname "$0")/expect.sh"
cd "$work" || exit 1

expect 0 cmake --install "$build" --prefix "$work/first place"
mv "first place" moved # nothing knows where it was
prefix=$work/moved
program=$prefix/bin/switchyard
expect 0 "$program" --version
version=$(sed -nE '1s/^switchyard ([0-9]+\.[0-9]+\.[0-9]+) \(commit [0-9a-z-]+\)$/\1/p' <<<"$out")
[[ -n $version ]] || fail "no version and commit: $out"
[[ $(sed -nE 's/^## ([0-9.]+)$/\1/p' "$prefix/share/doc/switchyard/CHANGELOG.md" | head -n 1) == "$version" ]] || fail "CHANGELOG.md is not of $version"
grep -qx "version: $version" "$prefix/share/doc/switchyard/CITATION.cff" || fail "CITATION.cff is not of $version"
grep -q "Apache License" "$prefix/share/doc/switchyard/LICENSE" || fail "no licence"
[[ -s $prefix/share/doc/switchyard/docs/configuration.md ]] || fail "no documents"

# Every command and option that the program's help tells stands in the man page and is completed.
page=$prefix/share/man/man1/switchyard.1
for word in ".SH NAME" ".SS train" ".SS report" "node\-memory" ".SH EXIT STATUS" "switchyard $version"; do
  grep -qF -- "$word" "$page" || fail "the man page does not have '$word'"
done
if command -v man >/dev/null; then
  expect 0 env MANROFFSEQ='' LC_ALL=C.UTF-8 man --warnings -E UTF-8 -l "$page"
  [[ -z $err && $out == *"--node-memory BYTES"* ]] || fail "man says: $err"
fi
complete_words() { # WORD...: what is offered for the last of them
  bash -c 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _switchyard; printf "%s\n" "${COMPREPLY[@]}"' - \
    "$prefix/share/bash-completion/completions/switchyard" "$@"
}
[[ $(complete_words switchyard rep) == report ]] || fail "completes rep to $(complete_words switchyard rep)"
[[ $(complete_words switchyard plan --node) == --node-memory ]] || fail "completes --node to $(complete_words switchyard plan --node)"
for command in $("$program" --help | awk '/^Commands:/ { inside = 1; next } /^$/ { inside = 0 } inside { print $1 }'); do
  while read -r option; do
    [[ $(complete_words switchyard "$command" "$option") == *"$option"* ]] || fail "$command $option is not completed"
  done < <("$program" "$command" --help | grep -oE '^  (-. \[ )?--[a-z-]+' | grep -oE -- '--[a-z-]+')
done
touch "a file.yaml"
[[ $(complete_words switchyard train a) == "a file.yaml" ]] || fail "does not complete files: $(complete_words switchyard train a)"

# The scripts find the program of their own tree.
printf 'run: {output: runs/a}\ndata: {path: a.h5}\n' >a.yaml
expect 0 env -u SWITCHYARD "$prefix/share/switchyard/launch/mpirun.sh" a.yaml -n 2 --dry-run
[[ $out == *"/bin/switchyard train a.yaml"* ]] || fail "mpirun.sh starts: $out"
expect 0 "$program" plan "$prefix/share/switchyard/configs/tiny.yaml" --ranks 2 model.vocab_size=300

module=$prefix/share/modulefiles/switchyard/$version
[[ -s $module ]] || fail "no module file of $version: $(ls "$prefix/share/modulefiles/switchyard")"
if command -v tclsh >/dev/null; then
  cat >module.tcl <<'TCL'
proc module-whatis {text} {}
proc conflict {name} {}
proc prepend-path {name value} { puts "$name $value" }
proc setenv {name value} { puts "$name $value" }
set ModulesCurrentModulefile [lindex $argv 0]
source $ModulesCurrentModulefile
TCL
  expect 0 tclsh module.tcl "$module"
  [[ $out == *"PATH $prefix/bin"*"SWITCHYARD $program"* ]] || fail "the module sets: $out"
else
  echo "NOT TESTED: the module file needs tclsh to be read"
fi

# Read for their syntax only: neither tool is packaged in Debian 12.
[[ ! -x /usr/bin/python3 ]] || expect 0 /usr/bin/python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$source/launch/packaging/spack/package.py"
for part in Bootstrap: From: %files %post %environment %runscript %test; do
  grep -qE "^$part" "$source/launch/packaging/switchyard.def" || fail "switchyard.def has no $part"
done

if command -v dpkg-shlibdeps >/dev/null && command -v dpkg-deb >/dev/null; then
  expect 0 cpack --config "$build/CPackConfig.cmake" -B "$work/package"
  package=$(find package -maxdepth 1 -name "switchyard_${version}_*.deb")
  [[ -n $package ]] || fail "no package: $(ls package)"
  expect 0 dpkg-deb --info "$package"
  for library in libhdf5 libdnnl libyaml-cpp libopenmpi openmpi-bin; do
    [[ $out == *"Depends: "*"$library"* ]] || fail "the package does not ask for $library: $out"
  done
  expect 0 dpkg-deb --extract "$package" extracted
  expect 0 extracted/usr/bin/switchyard --version
  [[ $out == "switchyard $version "* ]] || fail "the package's program says: $out"
else
  echo "NOT TESTED: the Debian package needs dpkg-dev to be made"
fi
finish
