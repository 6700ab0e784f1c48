// What a run is evaluated on while it trains: the validation split of data.path, and, with
// data.mixture, that of each of its corpora.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "trainer/run/meters/metrics.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {

class Validation {
 public:
  // Opens the corpora. evaluate.num_sequences counts for each. Borrows the token file.
  Validation(const TokenFile& tokens, const Config& config, const BatchLayout& layout);

  // Of the mixture, those whose validation split has no whole sequence.
  const std::vector<std::string>& without_split() const { return without_split_; }
  // Collective.
  EvaluationMetrics evaluate(Trainer& trainer, std::int64_t step) const;

 private:
  struct Corpus {
    std::string path;
    std::unique_ptr<TokenFile> file;  // null: that of data.path
    std::unique_ptr<FixedBatches> batches;
  };
  FixedBatches all_;  // of data.path
  std::vector<Corpus> corpora_;
  std::vector<std::string> without_split_;
};

std::string to_sentence(const EvaluationMetrics& metrics);

}  // namespace switchyard
