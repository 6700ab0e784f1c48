// Where a step's micro-batches come from: the loader of a token file, or made-up tokens for plans
// and benchmarks, which need no file.
#pragma once

#include <cstdint>

#include "data/loader.hpp"

namespace switchyard {

class BatchSource {
 public:
  virtual ~BatchSource() = default;
  // The next micro-batch of this data rank; the step's first follows the last of the step before.
  virtual Batch next() = 0;
};

class LoaderSource final : public BatchSource {
 public:
  explicit LoaderSource(Loader& loader) : loader_(loader) {}
  Batch next() override { return loader_.next(); }

 private:
  Loader& loader_;
};

// Uniformly random tokens by identity: row g, position p has the same token on every layout. Every
// sequence is one document.
class RandomSource final : public BatchSource {
 public:
  RandomSource(const BatchLayout& layout, std::int64_t vocab_size, std::uint64_t seed);
  Batch next() override;
  // The next batch is the first after `num_steps` steps.
  void seek(std::int64_t num_steps) { micro_step_ = num_steps * layout_.num_micro_steps(); }

 private:
  BatchLayout layout_;
  std::int64_t vocab_size_;
  RandomKey key_;
  std::int64_t micro_step_ = 0;  // since the first step
};

}  // namespace switchyard
