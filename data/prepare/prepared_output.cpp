#include "data/prepare/prepared_output.hpp"

#include <fmt/core.h>

#include <filesystem>

#include "data/formats/token_documents.hpp"
#include "data/formats/token_output.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

std::string valid_name(const std::string& path) {
  const fs::path given(path);
  return (given.parent_path() / (given.stem().string() + "_valid")).string() +
         given.extension().string();
}

}  // namespace

PreparedOutput::PreparedOutput(const PrepareOptions& options)
    : kind_(options.output.ends_with(".idx")   ? Kind::megatron
            : options.output.ends_with(".bin") ? Kind::nanogpt
                                               : Kind::token_file),
      keeps_ends_(!options.drop_ends) {
  const Existing existing = options.overwrite ? Existing::replace : Existing::refuse;
  std::vector<std::string> names{options.output};
  if (kind_ != Kind::token_file) names.push_back(valid_name(options.output));
  for (const std::string& name : names) {
    // The index comes last: without it there is no dataset.
    if (kind_ == Kind::megatron)
      files_.push_back(std::make_unique<OutputFile>(formats::bin_of_idx(name), existing));
    files_.push_back(std::make_unique<OutputFile>(name, existing));
  }
}

void PreparedOutput::check(const Tokenizer& tokenizer) const {
  if (kind_ == Kind::nanogpt) formats::check_nanogpt_vocab(tokenizer.vocab_size());
}

std::int64_t PreparedOutput::write(TokenFileWriter& writer, const std::string& sources_json) {
  if (kind_ != Kind::token_file && writer.has_loss_mask())
    throw DataError(
        fmt::format("{}: a file of this form cannot hold the loss mask that the tokens "
                    "have; write a token file (.h5)",
                    files_.front()->path()));
  if (kind_ == Kind::token_file) {
    writer.write(files_.front()->temporary_path(), sources_json);
  } else {
    std::int64_t bytes = 0;
    for (const Split split : {Split::train, Split::valid})
      bytes += 4 * writer.num_tokens(split) + 20 * writer.num_documents(split) + 64;
    const std::string folder = fs::path(files_.front()->path()).parent_path().string();
    require_free_space(folder.empty() ? "." : folder, bytes, "the tokens");
  }
  const std::size_t files_a_split = kind_ == Kind::megatron ? 2 : 1;
  std::size_t num_written = kind_ == Kind::token_file ? 1 : 0;
  for (const Split split : {Split::train, Split::valid}) {
    if (kind_ == Kind::token_file || writer.num_documents(split) == 0) break;
    const std::string& first = files_[num_written]->temporary_path();
    if (kind_ == Kind::megatron)
      formats::write_megatron(writer, split, keeps_ends_, first,
                              files_[num_written + 1]->temporary_path());
    else
      formats::write_nanogpt(writer, split, first);
    num_written += files_a_split;
  }
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < num_written; ++i) {
    bytes += static_cast<std::int64_t>(fs::file_size(files_[i]->temporary_path()));
    files_[i]->commit();
  }
  return bytes;
}

}  // namespace switchyard
