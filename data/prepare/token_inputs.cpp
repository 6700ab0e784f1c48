#include "data/prepare/token_inputs.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <string_view>

#include "data/formats/token_documents.hpp"
#include "data/prepare/valid_split.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

bool is_token_input(const std::string& path) {
  constexpr std::array<std::string_view, 3> ends{".idx", ".bin", ".h5"};
  return !fs::is_directory(path) &&
         std::ranges::any_of(ends, [&](std::string_view end) { return path.ends_with(end); });
}

bool is_token_file(const std::string& path) {
  return path.ends_with(".h5");
}

// Copies the documents of one input after another.
class Copier {
 public:
  Copier(const PrepareOptions& options, TokenFileWriter& writer, ProgressLine& progress)
      : options_(options), writer_(writer), progress_(progress) {}

  void copy_token_file(const std::string& path) {
    const TokenFile file(path);
    mask_.clear();
    for (const Split split : {Split::train, Split::valid}) {
      const std::vector<std::int64_t> offsets = file.document_offsets(split);
      for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
        tokens_.resize(static_cast<std::size_t>(offsets[i + 1] - offsets[i]));
        file.read(split, offsets[i], tokens_);
        if (file.has_loss_mask()) {
          mask_.resize(tokens_.size());
          file.read_mask(split, offsets[i], mask_);
        }
        if (!tokens_.empty() && tokens_.back() == file.end_of_document()) tokens_.pop_back();
        if (!mask_.empty()) mask_.resize(tokens_.size());
        add(split, offsets[i] * file.bytes_per_token());
      }
    }
  }
  void copy(formats::TokenDocuments& documents) {
    mask_.clear();
    while (documents.next(tokens_))
      add(split_of_document(options_.seed, options_.valid_fraction, num_documents_),
          documents.bytes_read());
  }
  std::int64_t num_documents() const { return num_documents_; }
  std::int64_t num_empty() const { return num_empty_; }
  void finish_file(const std::string& path) {
    finished_bytes_ += static_cast<std::int64_t>(fs::file_size(path));
  }

 private:
  void add(Split split, std::int64_t bytes_read) {
    if (tokens_.empty()) {
      ++num_empty_;
      return;
    }
    writer_.add_document(split, tokens_, mask_);
    ++num_documents_;
    progress_.update(num_documents_,
                     writer_.num_tokens(Split::train) + writer_.num_tokens(Split::valid),
                     finished_bytes_ + bytes_read);
  }

  const PrepareOptions& options_;
  TokenFileWriter& writer_;
  ProgressLine& progress_;
  std::vector<std::int32_t> tokens_;
  std::vector<std::uint8_t> mask_;  // of a token file that has one
  std::int64_t num_documents_ = 0;
  std::int64_t num_empty_ = 0;
  std::int64_t finished_bytes_ = 0;
};

}  // namespace

bool are_token_inputs(const std::vector<std::string>& inputs) {
  const auto tokens = std::ranges::find_if(inputs, is_token_input);
  const auto texts =
      std::ranges::find_if(inputs, [](const std::string& path) { return !is_token_input(path); });
  if (tokens == inputs.end()) return false;
  if (texts == inputs.end()) return true;
  throw ConfigError(
      fmt::format("prepare: {} is a file of tokens, {} of texts; prepare them apart, and mix them "
                  "by data.mixture",
                  *tokens, *texts));
}

std::unique_ptr<Tokenizer> tokenizer_of_inputs(const InputList& inputs,
                                               const PrepareOptions& options) {
  std::unique_ptr<Tokenizer> tokenizer;
  std::string first;
  if (!options.tokenizer.empty()) tokenizer = make_tokenizer(options.tokenizer);
  for (const std::string& path : inputs.files) {
    if (!is_token_file(path)) continue;
    auto own = tokenizer_from_file(path);
    if (!tokenizer) {
      tokenizer = std::move(own);
      first = path;
    } else if (own->serialize() != tokenizer->serialize()) {
      throw ConfigError(fmt::format("prepare: {} has another tokenizer than {}", path,
                                    first.empty() ? options.tokenizer : first));
    }
  }
  if (!tokenizer)
    throw ConfigError(
        fmt::format("prepare: {} holds token ids alone; --tokenizer must tell what they mean",
                    inputs.files.front()));
  return tokenizer;
}

CopiedTokens copy_tokens(const InputList& inputs, const PrepareOptions& options,
                         TokenFileWriter& writer, ProgressLine& progress) {
  Copier copier(options, writer, progress);
  const std::int32_t vocab_size = writer.tokenizer().vocab_size();
  const std::int32_t end = writer.tokenizer().end_of_document();
  CopiedTokens copied;
  std::set<std::string> indexes;  // a dataset may be named by both of its files
  for (const std::string& path : inputs.files) {
    const std::int64_t before = copier.num_documents();
    const std::string idx = formats::idx_of_bin(path);
    if (is_token_file(path))
      copier.copy_token_file(path);
    else if (!path.ends_with(".idx") && !fs::exists(idx))
      copier.copy(*formats::open_nanogpt(path, vocab_size, end));
    else if (indexes.insert(idx).second)
      copier.copy(*formats::open_megatron(idx, vocab_size, end));
    copier.finish_file(path);
    copied.num_documents.push_back(copier.num_documents() - before);
  }
  copied.num_empty = copier.num_empty();
  progress.show();
  return copied;
}

}  // namespace switchyard
