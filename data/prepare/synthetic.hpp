// Made-up tasks for `prepare --synthetic`: each document is one problem of the same length, its
// tokens are the bytes of the tokenizer "bytes", and the loss mask leaves nothing to learn but the
// answer. Problem i is a function of (task, seed, i) alone (tensor/random.hpp).
//
//   mqar     keys and values in pairs, then every key again, somewhere, with its value, which is
//            the answer (multi-query associative recall: Arora et al., "Zoology", 2023). Half of
//            the symbols are keys, half are values; values by chance stand between
//   copy     letters, "|", and the letters again, which are the answer (Jelassi et al., "Repeat
//            After Me", 2024)
//   needle   "The magic number of WORD is DIGITS." somewhere in a text that repeats itself, and at
//            the end the question, whose answer the digits are (as niah_single of RULER, Hsieh et
//            al. 2024)
//   listops  a nested expression of MAX, MIN, MED (the middle, of an even number the lower one) and
//            SM (sum modulo 10) over digits, as X(29N(47)0)= with X, N, D, S, and its digit, the
//            answer (Nangia and Bowman, "ListOps", 2018)
//   parity   bits, "=", and whether the number of ones is odd: 0 or 1
//
// What is left of a document after copy, listops and parity is filled with spaces, that of mqar
// lies between the answers. Sequences of `length` tokens hold one problem each.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/choice.hpp"

namespace switchyard {

enum class SyntheticTask : std::uint8_t { mqar, copy, needle, listops, parity };
constexpr std::array<std::string_view, 5> choice_names(SyntheticTask) {
  return {"mqar", "copy", "needle", "listops", "parity"};
}

struct SyntheticOptions {
  SyntheticTask task = SyntheticTask::mqar;
  std::int64_t num_documents = 10'000;
  std::int64_t length = 256;  // tokens of a document, the one that ends it included
  // Pairs of mqar, letters of copy, digits of needle, depth of listops, bits of parity. A problem
  // has `size` of them, or if least_size is not 0 a number from least_size to size. 0: 16; digits
  // 7, depth 3.
  std::int64_t size = 0;
  std::int64_t least_size = 0;
  std::int64_t symbols = 0;  // of mqar, an even number, 0: 256; letters of copy, 0: 26

  bool operator==(const SyntheticOptions&) const = default;
};

struct SyntheticDocument {
  std::vector<std::int32_t> tokens;  // length - 1: the end is the tokenizer's
  std::vector<std::uint8_t> mask;    // length: 1 for tokens of the answer
};

// With the numbers that a 0 stands for.
SyntheticOptions with_defaults(SyntheticOptions options);
// The rest takes options with those. ConfigError: numbers that no problem fits, with those that
// would.
void check_synthetic(const SyntheticOptions& options);
// Options that check_synthetic accepts.
SyntheticDocument make_synthetic(const SyntheticOptions& options, std::uint64_t seed,
                                 std::int64_t document);
// {"task": "mqar", ...}
std::string describe_synthetic(const SyntheticOptions& options, std::uint64_t seed);

}  // namespace switchyard
