// Which sequence is trained on when. The tokens of a split are seen as sequences of L inputs,
// packed back to back over document borders; an epoch visits all of them once in an order that is a
// pseudo-random permutation of their indices. The permutation is a formula (a Feistel network,
// cf. Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002), not a table: it
// costs no memory, and any position of any epoch can be asked for directly.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/token_file.hpp"
#include "tensor/random.hpp"

namespace switchyard {

// A permutation of [0, size) for each (seed, epoch).
class EpochPermutation {
 public:
  EpochPermutation(std::int64_t size, std::uint64_t seed);
  std::int64_t size() const { return size_; }
  // The sequence at `position` (in [0, size)) of an epoch.
  std::int64_t operator()(std::int64_t epoch, std::int64_t position) const;

 private:
  std::uint64_t scramble(std::uint64_t epoch, std::uint64_t value) const;

  std::int64_t size_;
  RandomKey key_;
  int half_bits_;  // the network permutes [0, 2^(2 half_bits)), the smallest such power >= size
};

// Sequence i reads tokens [i L, i L + L] of the split: L inputs and, one further, L targets. A part
// of a sequence is cut from the whole: the target of its last position lies behind the cut.
class PackedSequences {
 public:
  // Borrows the file. DataError when the split is shorter than one sequence, with the remedy.
  PackedSequences(const TokenFile& file, Split split, std::int64_t sequence_length);

  std::int64_t num_sequences() const { return num_sequences_; }  // (num_tokens - 1) / L
  std::int64_t sequence_length() const { return sequence_length_; }
  // The tokens and targets of the positions from `begin` on, as many as fit both spans. Any thread.
  void read(std::int64_t sequence, std::int64_t begin, std::span<std::int32_t> tokens,
            std::span<std::int32_t> targets) const;

  // How much each target of these positions counts: 1, or 0 by the file's loss mask. Any thread.
  void read_weights(std::int64_t sequence, std::int64_t begin, std::span<float> weights) const;
  // The sum of them over a whole sequence. Any thread.
  std::int64_t num_targets(std::int64_t sequence) const;

  // Reads where the split's documents begin, 8 bytes a document (HDF5, in the calling thread).
  void load_documents();
  // After load_documents(): the positions above 0 of a sequence at which a document begins,
  // ascending. The token that ends a document belongs to it. Any thread.
  std::vector<std::int32_t> document_starts(std::int64_t sequence) const;

 private:
  const TokenFile& file_;
  Split split_;
  std::int64_t sequence_length_;
  std::int64_t num_sequences_;
  std::vector<std::int64_t> document_offsets_;  // of the split; empty: not loaded
};

}  // namespace switchyard
