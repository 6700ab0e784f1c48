#include "trainer/checkpoint/comparison.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include "data/files/checksum.hpp"
#include "trainer/agreement.hpp"
#include "trainer/checkpoint/kept_tokenizer.hpp"

namespace switchyard {

namespace {

// Whether a checkpoint that was trained with another value of the key is told: what the model
// computes, to the last bit, and from which data. Schedules, batches and layouts are changed all
// the time, and of the corpus (data.path) the checksums tell more.
bool is_told(const std::string& key) {
  return key.starts_with("model.") || key.starts_with("experts.") || key.starts_with("numerics.") ||
         (key.starts_with("data.") && key != "data.path") || key == "run.seed" ||
         key == "run.precision";
}

bool is_of_training_alone(const std::string& key) {
  return key == "run.seed" || key.starts_with("numerics.") || key.ends_with("_std") ||
         key.ends_with("dropout") || key == "experts.balance_weight" || key == "experts.z_weight" ||
         key == "experts.balance_scope" || key == "experts.bias_rate" ||
         key == "experts.balance_reduction" || key == "experts.balance_loss" ||
         key == "experts.bias_rule";
}

// Keys whose every change makes other matrices, or cuts the same ones in another way, which no
// shape would tell. Of the rest of the shapes load_checkpoint() tells.
bool is_refused(const std::string& key) {
  constexpr std::string_view refused[] = {
      "model.hidden",          "model.num_layers",      "model.num_heads",
      "model.num_kv_heads",    "model.head_dim",        "model.tie_embeddings",
      "model.latent.nope_dim", "model.latent.rope_dim", "model.latent.value_dim"};
  return std::find(std::begin(refused), std::end(refused), key) != std::end(refused);
}

// 0 stands for hidden / num_heads: written out, so that it equals the same width.
void write_out_head_dim(std::map<std::string, std::string>& values) {
  std::string& head_dim = values["model.head_dim"];
  if (head_dim != "0") return;
  const std::int64_t heads = std::atoll(values["model.num_heads"].c_str());
  if (heads > 0) head_dim = std::to_string(std::atoll(values["model.hidden"].c_str()) / heads);
}

std::string checksum_of_tokenizer(const Tokenizer& tokenizer) {
  const std::string bytes = tokenizer.serialize();
  return checksum_text(checksum_of(std::as_bytes(std::span(bytes))));
}

[[noreturn]] void refuse_tokenizer(const std::string& checkpoint, const std::string& trained_with,
                                   const std::string& given) {
  throw CheckpointError(fmt::format(
      "{}: was trained with another tokenizer ({}) than that of {}: the same ids mean other texts "
      "there; choose another run.output, or prepare the texts with `--tokenizer` and a token file "
      "of that run",
      checkpoint, trained_with, given));
}

void check_tokenizer(const std::string& checkpoint, const CorpusRecord& record,
                     const TokenFile& tokens, const Report& report) {
  if (!record.tokenizer.empty()) {
    if (record.tokenizer != checksum_of_tokenizer(tokens.tokenizer()))
      refuse_tokenizer(checkpoint, fmt::format("checksum {}", record.tokenizer), tokens.path());
    return;
  }
  const std::optional<KeptTokenizer> kept = kept_tokenizer(checkpoint);
  if (!kept)
    report(
        fmt::format("{} names no tokenizer, and none lies in its run: there is nothing to "
                    "compare that of {} with",
                    checkpoint, tokens.path()));
  else if (kept->tokenizer->serialize() != tokens.tokenizer().serialize())
    refuse_tokenizer(checkpoint, kept->path, tokens.path());
}

void tell_corpus(const CorpusRecord& trained, const CorpusRecord& now, const Report& report) {
  if (trained.train.empty())
    report(
        fmt::format("the checkpoint keeps no checksums of its corpus (it is of an earlier "
                    "version): there is nothing to compare {} with",
                    now.path));
  else if (trained.train != now.train || trained.valid != now.valid)
    report(
        fmt::format("the checkpoint was trained on another corpus: {} (checksums: train {}, "
                    "valid {}); here it is {} (train {}, valid {})",
                    trained.path, trained.train, trained.valid, now.path, now.train, now.valid));
}

// A file of the mixture that has changed under its name. Which files there are says data.mixture.
void tell_mixture(const CorpusRecord& trained, const CorpusRecord& now, const Report& report) {
  for (const MixedCorpus& before : trained.mixture)
    for (const MixedCorpus& part : now.mixture)
      if (part.path == before.path && part.train != before.train)
        report(
            fmt::format("{} of data.mixture has changed: the checkpoint was trained on one with "
                        "checksum {}, here it is {}",
                        part.path, before.train, part.train));
}

}  // namespace

void require_same_model(const std::string& path, const std::vector<ChangedKey>& changed) {
  for (const ChangedKey& key : changed)
    if (is_refused(key.path))
      throw CheckpointError(fmt::format(
          "{}: was trained with {} {}, not {}: its matrices mean something else there; set {} back "
          "or choose another run.output",
          path, key.path, key.saved, key.now, key.path));
}

CorpusRecord corpus_record(const TokenFile& tokens, std::span<const MixtureEntry> mixture) {
  CorpusRecord record{.path = tokens.path(),
                      .train = tokens.checksum(Split::train),
                      .valid = tokens.checksum(Split::valid),
                      .tokenizer = checksum_of_tokenizer(tokens.tokenizer())};
  for (const MixtureEntry& entry : mixture)
    record.mixture.push_back({entry.path, TokenFile(entry.path).checksum(Split::train)});
  return record;
}

void compare_with_checkpoint(const std::string& checkpoint, const ConfigText& configuration,
                             const TokenFile& tokens, ReadFor use, Group& world,
                             const Report& report, std::span<const MixtureEntry> mixture) {
  const Report tell = [&](const std::string& text) {
    if (report) report(text);
  };
  run_together(world, [&] {
    if (world.rank() != 0) return;
    const Manifest manifest = read_manifest(checkpoint);
    check_tokenizer(checkpoint, manifest.corpus, tokens, tell);
    const std::vector<ChangedKey> changed =
        changed_keys(configuration.values_of(manifest.configuration),
                     configuration.values_of(configuration.yaml));
    require_same_model(checkpoint, changed);
    for (const ChangedKey& key : changed)
      if (use == ReadFor::training || !is_of_training_alone(key.path))
        tell(fmt::format("the checkpoint was trained with {} {}; here it is {}", key.path,
                         key.saved, key.now));
    const CorpusRecord now = corpus_record(tokens, mixture);
    tell_corpus(manifest.corpus, now, tell);
    tell_mixture(manifest.corpus, now, tell);
  });
}

std::unique_ptr<Tokenizer> tokenizer_of_checkpoint(const std::string& checkpoint,
                                                   const std::string& data_path) {
  const CorpusRecord record = read_manifest(checkpoint).corpus;
  std::optional<KeptTokenizer> kept = kept_tokenizer(checkpoint);
  const std::string origin = kept ? kept->path : data_path;
  std::unique_ptr<Tokenizer> tokenizer =
      kept ? std::move(kept->tokenizer) : tokenizer_from_file(data_path);
  if (!record.tokenizer.empty() && record.tokenizer != checksum_of_tokenizer(*tokenizer))
    throw CheckpointError(fmt::format(
        "{}: was trained with another tokenizer (checksum {}) than that of {}: the same ids mean "
        "other texts there; put the run's tokenizer.bin back beside its checkpoints",
        checkpoint, record.tokenizer, origin));
  return tokenizer;
}

std::vector<ChangedKey> changed_keys(const ConfigValues& saved, const ConfigValues& now) {
  std::map<std::string, std::string> before(saved.begin(), saved.end());
  std::map<std::string, std::string> after(now.begin(), now.end());
  for (auto* values : {&before, &after})
    if (values->count("model.head_dim") > 0) write_out_head_dim(*values);
  std::vector<ChangedKey> changed;
  for (const auto& [path, ignored] : now) {
    if (!is_told(path)) continue;
    const auto found = before.find(path);
    if (found != before.end() && found->second != after[path])
      changed.push_back({path, found->second, after[path]});
  }
  return changed;
}

}  // namespace switchyard
