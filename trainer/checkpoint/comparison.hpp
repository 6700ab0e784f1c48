// A checkpoint against the configuration and the data that it is read with. Refused is what would
// read the same numbers as another model: other heads, another tokenizer. What may be meant
// (another top_k, rope_base, mask, window, length or corpus) is told.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/mixture.hpp"
#include "data/token_file.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/config_text.hpp"

namespace switchyard {

// What a token file, and those of a mixture, are told by in a manifest. DataError, IoError.
CorpusRecord corpus_record(const TokenFile& tokens, std::span<const MixtureEntry> mixture = {});

// What a checkpoint is read for: an evaluation need not hear of what matters in training alone.
enum class ReadFor : std::uint8_t { training, evaluation };

// Collective, for `train` and `eval` alike. `configuration`: of this run; mixture: what it trains
// on, of train alone. Reports on rank 0 every key and corpus that is another than the
// checkpoint's, or that there is nothing to compare.
// CheckpointError if it is another model's or tokenizer's.
void compare_with_checkpoint(const std::string& checkpoint, const ConfigText& configuration,
                             const TokenFile& tokens, ReadFor use, Group& world,
                             const Report& report, std::span<const MixtureEntry> mixture = {});

// For `generate`, which takes all else from the checkpoint: the tokenizer that its run has kept, or
// else that of `data_path`. CheckpointError if it is not the one that the manifest tells of.
std::unique_ptr<Tokenizer> tokenizer_of_checkpoint(const std::string& checkpoint,
                                                   const std::string& data_path);

// A key of the sections model, experts, numerics and data, or run.seed or run.precision, that the
// checkpoint's configuration has otherwise.
struct ChangedKey {
  std::string path;  // "model.rope_scaling.factor"
  std::string saved, now;
  friend bool operator==(const ChangedKey&, const ChangedKey&) = default;
};
// In the order of `now`. Keys that only one of them has are left out: they came or went with a
// version of the program.
std::vector<ChangedKey> changed_keys(const ConfigValues& saved, const ConfigValues& now);

// CheckpointError if one of them makes other matrices of the same shapes (another number of heads).
void require_same_model(const std::string& path, const std::vector<ChangedKey>& changed);

}  // namespace switchyard
