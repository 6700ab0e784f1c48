// The tokenizer that a run keeps in its folder, so that text can be made of its checkpoints without
// the corpus, and by which a corpus with other tokens is told: a vocabulary of the same size fits
// every shape, and yet each id means another text.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "data/tokenizer.hpp"

namespace switchyard {

// Into the run's folder. IoError if it cannot be written.
void keep_tokenizer(const std::string& run_folder, const Tokenizer& tokenizer);

struct KeptTokenizer {
  std::string path;
  std::unique_ptr<Tokenizer> tokenizer;
};

// The one kept by the run that `checkpoint` (RUN/checkpoints/step-N, however it is written, or a
// link to it) lies in; none if there is none, as where the checkpoint was moved. DataError if it is
// damaged.
std::optional<KeptTokenizer> kept_tokenizer(const std::string& checkpoint);

}  // namespace switchyard
