#include "data/sampler.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr std::uint32_t num_rounds = 8;

}  // namespace

EpochPermutation::EpochPermutation(std::int64_t size, std::uint64_t seed)
    : size_(size), key_(random_key(seed, "order of an epoch")) {
  expect(size >= 1 && size <= (std::int64_t{1} << 62), "a permutation of 1 to 2^62 elements");
  const int bits = std::bit_width(static_cast<std::uint64_t>(size - 1));
  half_bits_ = std::max(1, (bits + 1) / 2);
}

std::uint64_t EpochPermutation::scramble(std::uint64_t epoch, std::uint64_t value) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = value >> half_bits_;
  std::uint64_t right = value & mask;
  for (std::uint32_t round = 0; round < num_rounds; ++round) {
    const auto words = random_words(
        key_, {static_cast<std::uint32_t>(right), round, static_cast<std::uint32_t>(epoch),
               static_cast<std::uint32_t>(epoch >> 32)});
    const std::uint64_t mixed = left ^ (words[0] & mask);
    left = right;
    right = mixed;
  }
  return (left << half_bits_) | right;
}

std::int64_t EpochPermutation::operator()(std::int64_t epoch, std::int64_t position) const {
  expect(epoch >= 0 && position >= 0 && position < size_, "a position of an epoch");
  // The network permutes up to four times as many values as there are sequences. Walking along its
  // cycle until a value is in range gives a permutation of the range.
  auto value = static_cast<std::uint64_t>(position);
  do {
    value = scramble(static_cast<std::uint64_t>(epoch), value);
  } while (value >= static_cast<std::uint64_t>(size_));
  return static_cast<std::int64_t>(value);
}

PackedSequences::PackedSequences(const TokenFile& file, Split split, std::int64_t sequence_length)
    : file_(file), split_(split), sequence_length_(sequence_length) {
  expect(sequence_length >= 1, "a sequence of at least one token");
  const std::int64_t num_tokens = file.num_tokens(split);
  num_sequences_ = std::max<std::int64_t>(0, num_tokens - 1) / sequence_length;
  if (num_sequences_ == 0)
    throw DataError(fmt::format(
        "{}: the {} split has {} tokens, fewer than the {} that one sequence needs; prepare more "
        "text{} or make model.sequence_length shorter",
        file.path(), name_of(split), num_tokens, sequence_length + 1,
        split == Split::valid ? ", give a larger part of it to validation" : ""));
}

void PackedSequences::read(std::int64_t sequence, std::int64_t begin,
                           std::span<std::int32_t> tokens, std::span<std::int32_t> targets) const {
  const std::size_t count = tokens.size();
  expect(sequence >= 0 && sequence < num_sequences_, "a sequence of the split");
  expect(begin >= 0 && begin + static_cast<std::int64_t>(count) <= sequence_length_ &&
             targets.size() == count,
         "positions of the sequence");
  if (count == 0) return;
  std::vector<std::int32_t> stretch(count + 1);
  file_.read(split_, sequence * sequence_length_ + begin, stretch);
  std::copy_n(stretch.begin(), count, tokens.begin());
  std::copy_n(stretch.begin() + 1, count, targets.begin());
}

void PackedSequences::read_weights(std::int64_t sequence, std::int64_t begin,
                                   std::span<float> weights) const {
  std::vector<std::uint8_t> mask(weights.size());
  file_.read_mask(split_, sequence * sequence_length_ + begin + 1, mask);
  std::copy(mask.begin(), mask.end(), weights.begin());
}

std::int64_t PackedSequences::num_targets(std::int64_t sequence) const {
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(sequence_length_));
  file_.read_mask(split_, sequence * sequence_length_ + 1, mask);
  return std::count(mask.begin(), mask.end(), std::uint8_t{1});
}

void PackedSequences::load_documents() {
  document_offsets_ = file_.document_offsets(split_);
}

std::vector<std::int32_t> PackedSequences::document_starts(std::int64_t sequence) const {
  expect(!document_offsets_.empty(),
         "load_documents() to be called before the documents of a sequence are asked for");
  const std::int64_t first = sequence * sequence_length_;
  std::vector<std::int32_t> starts;
  for (auto offset = std::upper_bound(document_offsets_.begin(), document_offsets_.end(), first);
       offset != document_offsets_.end() && *offset < first + sequence_length_; ++offset)
    starts.push_back(static_cast<std::int32_t>(*offset - first));
  return starts;
}

}  // namespace switchyard
