#include "data/bpe/token_index.hpp"

#include <bit>
#include <functional>

#include "tensor/error.hpp"

namespace switchyard::bpe {

namespace {

std::size_t num_slots(std::size_t num_entries) {
  return std::bit_ceil(2 * num_entries + 2);
}

// Spreads the bits of a number over all of its bits (the end of MurmurHash3).
std::uint64_t mixed(std::uint64_t key) {
  key = (key ^ key >> 33) * 0xFF51AFD7ED558CCDU;
  key = (key ^ key >> 33) * 0xC4CEB9FE1A85EC53U;
  return key ^ key >> 33;
}

}  // namespace

TokenIndex::TokenIndex(std::size_t num_tokens, std::size_t num_bytes)
    : slots_(num_slots(num_tokens)), filter_(std::bit_ceil(num_tokens / 4 + 1)) {
  texts_.reserve(num_bytes);
}

std::size_t TokenIndex::place_of(std::string_view text, std::uint64_t hash) const {
  const auto tag = static_cast<std::uint32_t>(hash >> 32);
  std::size_t at = hash & (slots_.size() - 1);
  while (slots_[at].token >= 0) {
    const Slot& slot = slots_[at];
    if (slot.tag == tag && slot.length == text.size() &&
        std::string_view(texts_).substr(slot.begin, slot.length) == text)
      return at;
    at = (at + 1) & (slots_.size() - 1);
  }
  return at;
}

bool TokenIndex::add(std::string_view text, std::int32_t token) {
  const std::uint64_t hash = std::hash<std::string_view>{}(text);
  Slot& slot = slots_[place_of(text, hash)];
  if (slot.token >= 0) return false;
  expect(token >= 0, "a token's id");
  slot = {static_cast<std::uint32_t>(hash >> 32), static_cast<std::uint32_t>(text.size()),
          texts_.size(), token};
  texts_ += text;
  const std::size_t bit = filter_bit(hash);
  filter_[bit / 64] |= std::uint64_t{1} << bit % 64;
  return true;
}

std::int32_t TokenIndex::find(std::string_view text) const {
  const std::uint64_t hash = std::hash<std::string_view>{}(text);
  const std::size_t bit = filter_bit(hash);
  if ((filter_[bit / 64] >> bit % 64 & 1) == 0) return -1;
  return slots_[place_of(text, hash)].token;
}

MergeIndex::MergeIndex(std::size_t num_merges) : slots_(num_slots(num_merges)) {}

std::size_t MergeIndex::place_of(std::int32_t left, std::int32_t right) const {
  const std::uint64_t key = static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
                            static_cast<std::uint32_t>(right);
  std::size_t at = mixed(key) & (slots_.size() - 1);
  while (slots_[at].left >= 0 && (slots_[at].left != left || slots_[at].right != right))
    at = (at + 1) & (slots_.size() - 1);
  return at;
}

void MergeIndex::set(std::int32_t left, std::int32_t right, Merge merge) {
  slots_[place_of(left, right)] = {left, right, merge};
}

Merge MergeIndex::find(std::int32_t left, std::int32_t right) const {
  return slots_[place_of(left, right)].merge;
}

}  // namespace switchyard::bpe
