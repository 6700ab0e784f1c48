#include "data/prepare/prepare_synthetic.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "data/prepare/prepared_output.hpp"
#include "data/prepare/progress_line.hpp"
#include "data/token_file.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

void check(const PrepareOptions& options) {
  if (!options.inputs.empty())
    throw ConfigError(
        fmt::format("prepare: --synthetic makes up all documents and takes no input, got {}",
                    options.inputs.front()));
  if (options.train_vocab > 0 || !(options.tokenizer.empty() || options.tokenizer == "bytes"))
    throw ConfigError("prepare: the tokens of --synthetic are bytes; leave the tokenizer out");
  if (!options.prompt_field.empty())
    throw ConfigError("prepare: --prompt-field is of texts, which --synthetic has none of");
  check_synthetic(with_defaults(*options.synthetic));
}

// The last documents are those of the validation split: one at least, if it is to have any.
std::int64_t num_valid_documents(const PrepareOptions& options) {
  const std::int64_t count = options.synthetic->num_documents;
  if (options.valid_fraction == 0 || count < 2) return 0;
  const auto share = std::llround(options.valid_fraction * static_cast<double>(count));
  return std::clamp<std::int64_t>(share, 1, count - 1);
}

}  // namespace

PrepareSummary prepare_synthetic(const PrepareOptions& options, const PrepareReports& reports) {
  check(options);
  PreparedOutput output(options);
  ProgressLine progress(reports, 0);
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer("bytes");
  output.check(*tokenizer);
  const std::filesystem::path folder = std::filesystem::path(options.output).parent_path();
  TokenFileWriter writer(folder.empty() ? "." : folder.string(), *tokenizer);
  const SyntheticOptions task = with_defaults(*options.synthetic);
  progress.begin("making problems");
  const std::int64_t num_train = task.num_documents - num_valid_documents(options);
  for (std::int64_t i = 0; i < task.num_documents; ++i) {
    const SyntheticDocument document = make_synthetic(task, options.seed, i);
    writer.add_document(i < num_train ? Split::train : Split::valid, document.tokens,
                        document.mask);
    progress.update(i + 1, (i + 1) * task.length, 0);
  }
  progress.begin("writing");
  PrepareSummary summary;
  summary.source = describe_synthetic(task, options.seed);
  summary.output_bytes = output.write(writer, fmt::format("[{}]\n", summary.source));
  summary.take_counts(options, writer);
  summary.seconds = progress.seconds();
  return summary;
}

}  // namespace switchyard
