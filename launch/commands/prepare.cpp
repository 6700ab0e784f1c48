// switchyard prepare: from texts to a token file, with a live line on a terminal.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <optional>

#include "data/prepare/prepare.hpp"
#include "data/tokenizer.hpp"
#include "launch/commands/commands.hpp"
#include "launch/options.hpp"
#include "trainer/run/progress.hpp"

namespace switchyard {
namespace {

std::string progress_text(const PrepareProgress& progress) {
  const double share = progress.bytes_total > 0 ? 100.0 * static_cast<double>(progress.bytes_read) /
                                                      static_cast<double>(progress.bytes_total)
                                                : 0.0;
  const double rate =
      progress.seconds > 0 ? static_cast<double>(progress.bytes_read) / progress.seconds / 1e6 : 0;
  return fmt::format("{}  {:.0f}%  {} documents  {} tokens  {:.1f} MB/s", progress.phase, share,
                     progress.num_documents, progress.num_tokens, rate);
}

// On a terminal one line that is written over; elsewhere a line every ten seconds. On stderr.
class LiveLine {
 public:
  LiveLine() : is_terminal_(isatty(STDERR_FILENO) == 1) {}
  ~LiveLine() { clear(); }
  LiveLine(const LiveLine&) = delete;
  LiveLine& operator=(const LiveLine&) = delete;

  void show(const PrepareProgress& progress) {
    if (is_terminal_) {
      const auto room = static_cast<std::size_t>(std::max(terminal_columns(STDERR_FILENO), 2) - 1);
      std::fprintf(stderr, "\r\033[K%s", progress_text(progress).substr(0, room).c_str());
      is_shown_ = true;
    } else if (progress.seconds >= next_seconds_) {
      std::fprintf(stderr, "%s\n", progress_text(progress).c_str());
      next_seconds_ = progress.seconds + 10;
    }
  }
  void clear() {
    if (is_shown_) std::fputs("\r\033[K", stderr);
    is_shown_ = false;
  }

 private:
  bool is_terminal_;
  bool is_shown_ = false;
  double next_seconds_ = 10;
};

// A number from the command line as a smaller or unsigned type.
template <class Number>
Number narrow(std::string_view option, std::int64_t value, std::int64_t least,
              Number most = std::numeric_limits<Number>::max()) {
  if (value < least || static_cast<std::uint64_t>(value) > static_cast<std::uint64_t>(most)) {
    throw UsageError("prepare",
                     fmt::format("--{} must be from {} to {}, got {}", option, least, most, value));
  }
  return static_cast<Number>(value);
}

// The made-up task, if one is named; without one there must be inputs.
void set_synthetic(PrepareOptions& wanted, const std::optional<SyntheticTask>& task,
                   SyntheticOptions given) {
  if (task) {
    given.task = *task;
    wanted.synthetic = given;
    return;
  }
  if (!(given == SyntheticOptions{}))
    throw UsageError("prepare",
                     "--documents, --length, --size, --least-size and --symbols count only with "
                     "--synthetic");
  if (wanted.inputs.empty()) throw UsageError("prepare", "INPUT is missing");
}

}  // namespace

int run_prepare(const CommandContext& context) {
  PrepareOptions wanted;
  std::optional<std::int64_t> train_vocab;
  std::optional<SyntheticTask> task;
  SyntheticOptions made_up;
  std::int64_t num_threads = wanted.num_threads;
  std::int64_t seed = static_cast<std::int64_t>(wanted.seed);
  std::int64_t max_document_megabytes = wanted.max_document_bytes >> 20;
  Options options(
      "prepare", "INPUT... --output FILE.h5",
      "Turns texts into a file of tokens. An INPUT is a text file, a .jsonl or .ndjson file with a "
      "document a line, a .json file with an array of documents or one a line, any of them with "
      ".gz or .zst behind, or a folder of such files (hidden files and backups in it are left "
      "out). "
      "Or it is tokens already: NAME.idx with NAME.bin (Megatron), NAME.bin (nanoGPT), NAME.h5.");
  options
      .add_path(
          "output", "FILE.h5", wanted.output,
          "the token file to write (required); NAME.idx: with NAME.bin for Megatron, NAME.bin: for "
          "nanoGPT")
      .add("overwrite", wanted.overwrite, "replace an existing output")
      .add_path(
          "tokenizer", "NAME", wanted.tokenizer,
          "bytes (the default), a SentencePiece FILE.model, a tokenizer.json, a file of tiktoken "
          "(cl100k_base.tiktoken, or ENCODING:FILE), or a token file to take it from")
      .add("train-tokenizer", "N", train_vocab,
           "train a SentencePiece tokenizer with N tokens on the inputs")
      .add("valid", "FRACTION", wanted.valid_fraction,
           fmt::format(
               "share of the documents for validation; of too few, the last share of the tokens "
               "(default {})",
               wanted.valid_fraction))
      .add("separator", "NAME", wanted.separator,
           "where a document of a text file ends: auto (a line that is exactly %), blank (an empty "
           "line) or none (a file is a document)")
      .add("text-field", "NAME", wanted.text_field,
           fmt::format("field of JSON objects with the text (default {})", wanted.text_field))
      .add("prompt-field", "NAME", wanted.prompt_field,
           "field of JSON objects with a text before it that is read and not learned (a loss mask)")
      .add("synthetic", "TASK", task,
           "make problems up in place of inputs, of which only the answers are learned (a loss "
           "mask): mqar, copy, needle, listops or parity (docs/data.md)")
      .add("documents", "N", made_up.num_documents,
           fmt::format("of --synthetic: problems, each a document (default {})",
                       made_up.num_documents))
      .add("length", "N", made_up.length,
           fmt::format("of --synthetic: tokens of a document, as model.sequence_length (default "
                       "{})",
                       made_up.length))
      .add(
          "size", "N", made_up.size,
          "of --synthetic: pairs, letters or bits of a problem (default 16), digits (7), depth (3)")
      .add("least-size", "N", made_up.least_size,
           "of --synthetic: sizes differ from N to --size; 0, the default: all are --size")
      .add("symbols", "N", made_up.symbols,
           "of --synthetic mqar: keys and values (default 256); of copy: letters (default 26)")
      .add("threads", "N", num_threads, "threads; 0, the default: all that the processor has")
      .add("seed", "N", seed, "of the validation split and the tokenizer's sample (default 0)")
      .add("strict", wanted.strict, "end with an error at the first text that cannot be used")
      .add("drop-ends", wanted.drop_ends,
           "write an .idx whose documents lack the token that ends them")
      .add("max-document-megabytes", "N", max_document_megabytes,
           fmt::format("cut longer documents at a line end (default {})", max_document_megabytes))
      .arguments("INPUT", wanted.inputs);
  if (!options.parse(context.arguments)) return 0;
  set_synthetic(wanted, task, made_up);
  if (wanted.output.empty()) throw UsageError("prepare", "--output FILE.h5 is missing");
  if (train_vocab && wanted.tokenizer != PrepareOptions{}.tokenizer) {
    throw UsageError("prepare", "--tokenizer and --train-tokenizer exclude each other");
  }
  if (train_vocab)
    wanted.train_vocab =
        narrow<std::int32_t>("train-tokenizer", *train_vocab, min_sentencepiece_vocab);
  wanted.num_threads = narrow<int>("threads", num_threads, 0, 1024);
  wanted.seed = narrow<std::uint64_t>("seed", seed, 0);
  wanted.max_document_bytes =
      std::int64_t{narrow<std::int32_t>("max-document-megabytes", max_document_megabytes, 1)} << 20;

  LiveLine line;
  PrepareReports reports;
  reports.progress = [&](const PrepareProgress& progress) { line.show(progress); };
  reports.message = [&](std::string_view message) {
    line.clear();
    std::fputs(fmt::format("{}\n", message).c_str(), stderr);
  };
  const PrepareSummary summary = prepare(wanted, reports);
  line.clear();
  std::fputs(fmt::format("{}\n", summary.to_string()).c_str(), stdout);
  if (std::fflush(stdout) != 0)
    throw IoError(
        fmt::format("{} is complete, but its summary cannot be written to the standard output: {}",
                    wanted.output, std::strerror(errno)));
  return 0;
}

}  // namespace switchyard
