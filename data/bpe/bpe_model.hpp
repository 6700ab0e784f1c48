// Byte-pair encoding of one word: it begins as single symbols (bytes or characters), and of the
// neighbours that may be merged those of the lowest rank are, the leftmost first, until none is
// left (Sennrich et al., "Neural machine translation of rare words with subword units", ACL 2016).
// Immutable; several threads may encode at once.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/bpe/token_index.hpp"

namespace switchyard::bpe {

struct MergeRule {
  std::int32_t left = 0, right = 0, token = 0;
};

struct BpeVocabulary {
  std::vector<std::pair<std::string, std::int32_t>> tokens;  // texts and ids, each once
  std::vector<MergeRule> merges;  // the rank is the place; of two for a pair the later counts
  // Words begin as bytes, and the tokens' texts are bytes; else they begin as UTF-8 characters.
  bool of_bytes = true;
  // Of words of characters: what is not in the vocabulary becomes its bytes' tokens.
  bool byte_fallback = false;
  std::array<std::int32_t, 256> byte_tokens{};  // of byte_fallback; -1: there is none
  std::int32_t unknown = -1;                    // for any other symbol; -1: it is left out
  bool fuse_unknown = false;                    // several in a row are one token
  bool whole_words_first = false;               // a word that is a token is not made by merges
};

class BpeModel {
 public:
  explicit BpeModel(const BpeVocabulary& vocabulary);

  // Appends the tokens of a word.
  void encode(std::string_view word, std::vector<std::int32_t>& tokens) const;

 private:
  enum class Whole : std::uint8_t { unseen, made_by_merges, never_made };

  void add_symbols(std::string_view word, std::vector<std::int32_t>& tokens) const;
  bool add_bytes(std::string_view character, std::vector<std::int32_t>& tokens) const;
  // Merge a word's symbols where they lie; the number of tokens that are left.
  std::size_t merge_short(std::span<std::int32_t> symbols) const;
  std::size_t merge_long(std::span<std::int32_t> symbols) const;

  TokenIndex index_;
  MergeIndex merges_;
  std::array<std::int32_t, 256> first_symbols_{};  // of words of bytes; -1: unknown
  std::array<std::int32_t, 256> byte_tokens_{};
  bool of_bytes_, byte_fallback_, fuse_unknown_, whole_words_first_;
  std::int32_t unknown_;
  // Of each token, whether merges make it of its own text: found out when a word is that text.
  mutable std::vector<std::atomic<Whole>> whole_;
};

}  // namespace switchyard::bpe
