// The tokenizer that a run keeps in its folder, so that text can be made of its checkpoints without
// the corpus, and by which a corpus with other tokens is told: a vocabulary of the same size fits
// every shape, and yet each id means another text.
#pragma once

#include <memory>
#include <string>

#include "data/token_file.hpp"
#include "data/tokenizer.hpp"
#include "parallel/group/group.hpp"

namespace switchyard {

// Into the run's folder. IoError if it cannot be written.
void keep_tokenizer(const std::string& run_folder, const Tokenizer& tokenizer);

// The one kept by the run that `checkpoint` (RUN/checkpoints/step-N) lies in; null if there is
// none, as where the checkpoint was moved. DataError if it is damaged.
std::unique_ptr<Tokenizer> kept_tokenizer(const std::string& checkpoint);

// Collective. CheckpointError if the checkpoint's run has kept another tokenizer than that of
// `tokens`.
void require_same_tokenizer(const std::string& checkpoint, const TokenFile& tokens, Group& world);

}  // namespace switchyard
