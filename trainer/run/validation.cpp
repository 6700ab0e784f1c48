#include "trainer/run/validation.hpp"

#include <fmt/core.h>

#include <utility>

namespace switchyard {

Validation::Validation(const TokenFile& tokens, const Config& config, const BatchLayout& layout)
    : all_(tokens, Split::valid, layout, config.evaluate.num_sequences) {
  for (const MixtureEntry& entry : parse_mixture(config.data.mixture)) {
    Corpus corpus{entry.path, nullptr, nullptr};
    if (entry.path != tokens.path()) {
      corpus.file = std::make_unique<TokenFile>(entry.path);
      // A sequence and the token behind it.
      if (corpus.file->num_tokens(Split::valid) <= layout.sequence_length) {
        without_split_.push_back(entry.path);
        continue;
      }
      corpus.batches = std::make_unique<FixedBatches>(*corpus.file, Split::valid, layout,
                                                      config.evaluate.num_sequences);
    }
    corpora_.push_back(std::move(corpus));
  }
}

EvaluationMetrics Validation::evaluate(Trainer& trainer, std::int64_t step) const {
  const EvaluationResult all = trainer.evaluate(all_);
  EvaluationMetrics metrics{
      .step = step, .validation_loss = all.loss, .validation_accuracy = all.accuracy};
  for (const Corpus& corpus : corpora_)
    metrics.by_corpus.push_back({corpus.path, corpus.batches
                                                  ? trainer.evaluate(*corpus.batches).loss
                                                  : metrics.validation_loss});
  return metrics;
}

std::string to_sentence(const EvaluationMetrics& metrics) {
  std::string text =
      fmt::format("step {}  validation loss {:.4f}", metrics.step, metrics.validation_loss);
  if (metrics.validation_accuracy)
    text += fmt::format("  accuracy {:.4f}", *metrics.validation_accuracy);
  for (const CorpusLoss& corpus : metrics.by_corpus)
    text += fmt::format("{}{} {:.4f}", &corpus == metrics.by_corpus.data() ? "; " : ", ",
                        corpus.path, corpus.loss);
  return text;
}

}  // namespace switchyard
