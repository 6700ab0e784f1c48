// The tokens of a vocabulary by their text, and the merges of pairs of tokens: two hash tables with
// open addressing, made once and then only read, by any number of threads. A word of a text asks
// them some ten times, which is nearly all the time that encoding takes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::bpe {

// Texts -> ids.
class TokenIndex {
 public:
  // Room for num_tokens texts of num_bytes bytes together.
  TokenIndex(std::size_t num_tokens, std::size_t num_bytes);
  // False, and nothing done, if the text is there already.
  bool add(std::string_view text, std::int32_t token);
  std::int32_t find(std::string_view text) const;  // -1: not there

 private:
  struct Slot {
    std::uint32_t tag = 0;  // of the text's hash
    std::uint32_t length = 0;
    std::size_t begin = 0;  // in texts_
    std::int32_t token = -1;
  };
  std::size_t place_of(std::string_view text, std::uint64_t hash) const;
  // The bit of a hash among filter_.
  std::size_t filter_bit(std::uint64_t hash) const {
    return hash >> 24 & (filter_.size() * 64 - 1);
  }

  std::vector<Slot> slots_;  // a power of two, at most half full
  // A bit for each text's hash, 16 times as many as texts: it stays in a processor's cache, which
  // the slots do not, and nearly all texts that are not there end here.
  std::vector<std::uint64_t> filter_;
  std::string texts_;
};

struct Merge {
  std::int32_t rank = -1;  // lower ranks go first; -1: the pair is never merged
  std::int32_t token = -1;
};

// Pairs of tokens -> what they become.
class MergeIndex {
 public:
  explicit MergeIndex(std::size_t num_merges);
  void set(std::int32_t left, std::int32_t right, Merge merge);  // replaces an earlier one
  Merge find(std::int32_t left, std::int32_t right) const;

 private:
  struct Slot {
    std::int32_t left = -1, right = -1;
    Merge merge;
  };
  std::size_t place_of(std::int32_t left, std::int32_t right) const;

  std::vector<Slot> slots_;
};

}  // namespace switchyard::bpe
