// Batches for one rank. A step trains on global_batch sequences, in global_batch / (micro_batch
// * data_size) micro-steps; row j of micro-step a on data rank d at step s is the sequence with
//   g = s * global_batch + a * (micro_batch * data_size) + d * micro_batch + j
// so the sequences of a step are the same on every layout, and each rank's rows are in the order of
// g. The position in the data is one number, the sequences that all steps before took: s *
// global_batch, or what seek() says after steps of another size. Where a sequence is split over
// ranks, each reads the tokens of its own segments alone. Of several corpora a formula of g tells
// which one the sequence is of (data/mixture.hpp).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor/position_range.hpp"

#include "data/mixture.hpp"
#include "data/sampler.hpp"
#include "data/token_file.hpp"

namespace switchyard {

// Legend: S micro_batch, n positions of a sequence that this rank holds.
struct Batch {
  std::vector<std::int32_t> tokens;        // [S * n], row-major
  std::vector<std::int32_t> targets;       // [S * n], tokens one further in the whole sequence
  std::vector<std::int64_t> sequence_ids;  // [S]: g of each row, the sequence's identity
  // [S]: the positions above 0 of the whole sequence at which a document begins, ascending; empty
  // unless the layout asks for documents.
  std::vector<std::vector<std::int32_t>> document_starts;
  // [S * n], where the layout asks for weights: how much each target counts, 0 or 1.
  std::vector<float> weights;
  // The sum of the weights of all targets of the whole step, or of the evaluation, on all ranks.
  double num_targets = 0;
  // The last rows that stand for no sequence, where an evaluation's last sequences do not fill all
  // ranks. Their tokens and targets are 0, their ids -1: they count nowhere and reach no expert.
  std::int64_t num_padding = 0;
};

struct BatchLayout {
  std::int64_t sequence_length = 0;  // of a whole sequence
  std::int64_t global_batch = 0;     // sequences in a step, over all data ranks and micro-steps
  std::int64_t micro_batch = 0;      // sequences of one rank in one micro-step
  int data_rank = 0;
  int data_size = 1;
  // What this rank holds of every sequence: ascending, apart; empty: all of it.
  std::vector<PositionRange> segments = {};
  bool with_documents = false;  // whether batches tell where documents begin
  bool with_weights = false;    // whether targets count by the file's loss mask

  std::int64_t local_length() const;  // n: positions of a sequence that this rank holds
  std::vector<PositionRange> local_segments() const;  // never empty
  std::int64_t num_micro_steps() const { return global_batch / (micro_batch * data_size); }
  // ConfigError unless micro_batch * data_size * num_micro_steps = global_batch.
  void validate() const;
};

// Training batches in shuffled order, made ahead of need by a thread of its own (which reads the
// memory-mapped tokens and never calls HDF5). Epochs follow each other without a seam: sample g is
// position g % num_sequences of epoch g / num_sequences.
class Loader {
 public:
  // Opens the file (HDF5, in the calling thread). Starts at step 0. With a mixture the sequences
  // are those of its corpora, whose tokenizer must be the file's: DataError.
  Loader(const std::string& path, Split split, const BatchLayout& layout, std::uint64_t seed,
         const std::vector<MixtureEntry>& mixture = {});
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  const TokenFile& file() const;
  std::int64_t num_sequences() const;  // of an epoch; of a mixture: of all corpora
  std::int64_t step() const;           // that the next batch belongs to

  // The micro-batches of a step in order, then those of the next step. An error of the reading
  // thread is thrown here.
  Batch next();
  // The next batch is the first of `step`, before which the run took `position` sequences.
  void seek(std::int64_t step, std::int64_t position);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Evaluation batches: the sequences of a split in its own order, each of them once, whatever the
// batch and the layout. A micro-step takes the next micro_batch * data_size sequences, or those
// that are left, and shares them out over the data ranks in order and as equally as can be; the
// rows that a rank then has no sequence for are padding. sequence_ids holds the sequence's number
// in the split.
class FixedBatches {
 public:
  // num_sequences: the first so many of the split, at most all; 0: all. Borrows the file.
  FixedBatches(const TokenFile& file, Split split, const BatchLayout& layout,
               std::int64_t num_sequences = 0);

  std::int64_t num_sequences() const { return num_sequences_; }
  double num_targets() const { return num_targets_; }  // that count
  std::int64_t num_micro_steps() const;                // the same on every rank
  Batch batch(std::int64_t micro_step) const;

 private:
  PackedSequences sequences_;
  BatchLayout layout_;
  std::int64_t num_sequences_;
  double num_targets_ = 0;
};

}  // namespace switchyard
