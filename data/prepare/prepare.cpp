#include "data/prepare/prepare.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <filesystem>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "data/formats/token_documents.hpp"
#include "data/hdf5/hdf5.hpp"
#include "data/prepare/document_reader.hpp"
#include "data/prepare/prepare_synthetic.hpp"
#include "data/prepare/prepared_output.hpp"
#include "data/prepare/progress_line.hpp"
#include "data/prepare/thread_pool.hpp"
#include "data/prepare/token_inputs.hpp"
#include "data/prepare/valid_split.hpp"
#include "data/token_file.hpp"
#include "data/tokenizer.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::size_t batch_bytes = std::size_t{1} << 20;  // of text, a task for one thread

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void check_options(const PrepareOptions& options) {
  if (options.inputs.empty() && !options.synthetic)
    throw ConfigError("prepare: no input files or folders are named");
  if (options.output.empty()) throw ConfigError("prepare: no output file is named");
  if (!(options.valid_fraction >= 0 && options.valid_fraction < 1))
    throw ConfigError(
        fmt::format("prepare: the validation fraction {} must be at least 0 and "
                    "below 1",
                    options.valid_fraction));
  if (options.train_vocab > 0 && !options.tokenizer.empty())
    throw ConfigError("prepare: either a tokenizer is given or one is trained, not both");
  if (options.num_threads < 0 || options.train_vocab < 0 || options.max_document_bytes < 16 ||
      options.tokenizer_sample_bytes < 1)
    throw ConfigError("prepare: numbers of threads, tokens and bytes must be positive");
  if (options.train_vocab > 0) check_sentencepiece_vocab(options.train_vocab);
  const fs::path folder = fs::path(options.output).parent_path();
  if (!folder.empty() && !fs::is_directory(folder))
    throw IoError(fmt::format("{}: the folder of the output does not exist; make it (mkdir -p {})",
                              folder.string(), folder.string()));
}

// With `overwrite` the output may exist, but it must be none of the texts. A token file that an
// earlier call has left in a folder of texts is none.
void set_output_apart(const PrepareOptions& options, InputList& inputs) {
  std::error_code absent;
  const std::string bin = formats::bin_of_idx(options.output);  // which goes with an .idx
  const auto found = std::ranges::find_if(inputs.files, [&](const std::string& path) {
    return fs::equivalent(path, options.output, absent) ||
           (options.output.ends_with(".idx") && fs::equivalent(path, bin, absent));
  });
  if (found == inputs.files.end()) return;
  const bool is_named = std::ranges::any_of(options.inputs, [&](const std::string& input) {
    return fs::equivalent(input, *found, absent);
  });
  if (is_named || !hdf5::has_signature(*found))
    throw ConfigError(fmt::format(
        "prepare: the output {} is one of the inputs; choose another name", options.output));
  inputs.left_out.push_back(
      {*found, "token file in the folder of texts", "it is the output", true});
  inputs.total_bytes -= static_cast<std::int64_t>(fs::file_size(*found));
  inputs.files.erase(found);
}

// A sample of the documents of at most the given bytes, each document with the same chance: the
// ones whose lot is below a bar, which sinks whenever the sample gets too large.
std::vector<std::string> sample_texts(const InputList& inputs, const PrepareOptions& options,
                                      ProgressLine& progress) {
  Complaints silent(false, {});
  DocumentReader reader(inputs, options, silent);
  std::vector<std::pair<double, std::string>> sample;
  std::int64_t sample_bytes = 0;
  double bar = 1;
  std::int64_t number = 0;
  for (Document document; reader.next(document); ++number) {
    progress.update(number, 0, reader.bytes_read());
    const double lot = lot_of(options.seed, "tokenizer sample", number);
    if (lot >= bar) continue;
    sample_bytes += static_cast<std::int64_t>(document.text.size());
    sample.emplace_back(lot, std::move(document.text));
    while (sample_bytes > options.tokenizer_sample_bytes && sample.size() > 1) {
      bar /= 2;
      std::erase_if(sample, [&](const auto& entry) {
        if (entry.first < bar) return false;
        sample_bytes -= static_cast<std::int64_t>(entry.second.size());
        return true;
      });
    }
  }
  std::vector<std::string> texts;
  for (auto& [lot, text] : sample) texts.push_back(std::move(text));
  return texts;
}

std::unique_ptr<Tokenizer> tokenizer_for(const InputList& inputs, const PrepareOptions& options,
                                         const PrepareReports& reports, ProgressLine& progress) {
  if (options.train_vocab == 0)
    return make_tokenizer(options.tokenizer.empty() ? "bytes" : options.tokenizer);
  progress.begin("sampling");
  const std::vector<std::string> texts = sample_texts(inputs, options, progress);
  if (texts.empty())
    throw DataError("prepare: the inputs hold no documents to train a tokenizer on");
  progress.begin("training tokenizer");
  return train_sentencepiece(texts,
                             {.vocab_size = options.train_vocab, .progress = reports.message});
}

struct EncodedDocument {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> mask;  // empty: all are learned
  EncodeNotes notes;
  std::size_t file = 0;
  std::int64_t line = 0;
};
using EncodedBatch = std::vector<EncodedDocument>;

EncodedBatch encode(const Tokenizer& tokenizer, const std::vector<Document>& documents) {
  EncodedBatch batch(documents.size());
  for (std::size_t i = 0; i < batch.size(); ++i) {
    batch[i].file = documents[i].file;
    batch[i].line = documents[i].line;
    batch[i].tokens = tokenizer.begin_of_document();
    const std::vector<std::int32_t> text = tokenizer.encode(documents[i].text, batch[i].notes);
    batch[i].tokens.insert(batch[i].tokens.end(), text.begin(), text.end());
    if (documents[i].prompt == 0) continue;
    // A token over the border belongs to the text that is learned, as far as the prompt alone has
    // fewer tokens without it.
    const std::size_t prompt =
        tokenizer.encode(std::string_view(documents[i].text).substr(0, documents[i].prompt)).size();
    batch[i].mask.assign(batch[i].tokens.size(), 1);
    std::fill_n(batch[i].mask.begin(),
                std::min(batch[i].tokens.size(), batch[i].tokens.size() - text.size() + prompt), 0);
  }
  return batch;
}

// Says of the first few documents what encoding them has cost, and counts.
class EncodeCosts {
 public:
  EncodeCosts(const InputList& inputs, const Complaints& complaints)
      : inputs_(inputs), complaints_(complaints) {}

  void add(const EncodedDocument& document) {
    say(document, document.notes.num_forced_cuts, total_.num_forced_cuts,
        "a text of over 1 MiB in which no word or line ends is cut");
    say(document, document.notes.num_lost_marks, total_.num_lost_marks,
        "the tokenizer cannot tell U+2581 from a space: found");
  }
  const EncodeNotes& total() const { return total_; }

 private:
  void say(const EncodedDocument& document, std::int64_t count, std::int64_t& total,
           std::string_view what) {
    constexpr std::int64_t most_messages = 10;
    if (count > 0 && total < most_messages)
      complaints_.say(fmt::format("{}:{}: {} {} {}", inputs_.files[document.file], document.line,
                                  what, count, count == 1 ? "time" : "times"));
    total += count;
  }

  const InputList& inputs_;
  const Complaints& complaints_;
  EncodeNotes total_;
};

struct SourceCount {
  std::int64_t num_documents = 0;
  std::int64_t bytes = 0;
};

// Reads documents, has batches of them encoded by several threads, and takes the results back in
// the order of the documents; only a few batches are under way at a time.
class Pipeline {
 public:
  Pipeline(const Tokenizer& tokenizer, const PrepareOptions& options, TokenFileWriter& writer,
           EncodeCosts& costs)
      : tokenizer_(tokenizer),
        options_(options),
        writer_(writer),
        costs_(costs),
        num_threads_(options.num_threads > 0
                         ? options.num_threads
                         : std::max(1, static_cast<int>(std::thread::hardware_concurrency()))),
        pool_(num_threads_) {}

  void run(DocumentReader& reader, std::vector<SourceCount>& sources, ProgressLine& progress) {
    std::vector<Document> documents;
    std::size_t bytes = 0;
    for (Document document; reader.next(document);) {
      sources[document.file].num_documents += 1;
      sources[document.file].bytes += static_cast<std::int64_t>(document.text.size());
      bytes += document.text.size();
      documents.push_back(std::move(document));
      if (bytes < batch_bytes) continue;
      submit(std::exchange(documents, {}));
      bytes = 0;
      progress.update(num_documents_, num_tokens(), reader.bytes_read());
    }
    if (!documents.empty()) submit(std::move(documents));
    while (!pending_.empty()) collect();
    progress.update(num_documents_, num_tokens(), reader.bytes_read());
    progress.show();
    if (num_documents_ > 0 && num_prompts_ == 0 && !options_.prompt_field.empty())
      throw DataError(
          fmt::format("--prompt-field {}: no document has a prompt in a field of this name",
                      options_.prompt_field));
  }

 private:
  void submit(std::vector<Document> documents) {
    auto task = std::make_shared<std::packaged_task<EncodedBatch()>>(
        [this, batch = std::move(documents)] { return encode(tokenizer_, batch); });
    pending_.push_back(task->get_future());
    pool_.submit([task] { (*task)(); });
    if (pending_.size() > 2 * static_cast<std::size_t>(num_threads_)) collect();
  }
  void collect() {
    const EncodedBatch batch = pending_.front().get();
    pending_.pop_front();
    for (const EncodedDocument& document : batch) {
      costs_.add(document);
      num_prompts_ += document.mask.empty() ? 0 : 1;
      writer_.add_document(
          split_of_document(options_.seed, options_.valid_fraction, num_documents_++),
          document.tokens, document.mask);
    }
  }
  std::int64_t num_tokens() const {
    return writer_.num_tokens(Split::train) + writer_.num_tokens(Split::valid);
  }

  const Tokenizer& tokenizer_;
  const PrepareOptions& options_;
  TokenFileWriter& writer_;
  EncodeCosts& costs_;
  int num_threads_;
  std::int64_t num_documents_ = 0;
  std::int64_t num_prompts_ = 0;  // documents that begin with one
  std::deque<std::future<EncodedBatch>> pending_;
  ThreadPool pool_;  // last: its threads end before what they use
};

std::string sources_json(const InputList& inputs, const std::vector<SourceCount>& sources) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (std::size_t i = 0; i < sources.size(); ++i)
    if (sources[i].num_documents > 0)
      list.push_back({{"path", inputs.files[i]},
                      {"documents", sources[i].num_documents},
                      {"bytes", sources[i].bytes}});
  // A file name need not be UTF-8.
  return list.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

void report_odd_inputs(const InputList& inputs, Complaints& complaints) {
  if (!inputs.other_names.empty())
    complaints.say(fmt::format("{}: is another name of a file that is read already ({} such names)",
                               inputs.other_names.front(), inputs.other_names.size()));
  std::vector<InputList::LeftOut> left_out = inputs.left_out;
  std::ranges::sort(left_out, {}, &InputList::LeftOut::path);
  for (const InputList::LeftOut& entry : left_out) {
    if (entry.is_by_rule)
      complaints.pass_over(entry.reason, entry.path, entry.detail);
    else
      complaints.leave_out(entry.reason, entry.path, 0, entry.detail);
  }
}

// "binary file: 43, empty document: 4"
std::string counts_text(const std::map<std::string, std::int64_t>& counts) {
  std::string text;
  for (const auto& [reason, count] : counts)
    text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", reason, count);
  return text;
}

[[noreturn]] void fail_without_documents(const PrepareOptions& options,
                                         const Complaints& complaints) {
  const std::string reasons = counts_text(complaints.counts());
  throw DataError(fmt::format("{}: no documents found{}{}", fmt::join(options.inputs, ", "),
                              reasons.empty() ? "" : "; left out: ", reasons));
}

std::string megabytes(std::int64_t bytes) {
  return fmt::format("{:.2f} MB", static_cast<double>(bytes) * 1e-6);
}

void copy_documents(const InputList& inputs, const PrepareOptions& options, TokenFileWriter& writer,
                    std::vector<SourceCount>& sources, Complaints& complaints,
                    ProgressLine& progress) {
  progress.begin("copying");
  const CopiedTokens copied = copy_tokens(inputs, options, writer, progress);
  for (std::size_t i = 0; i < sources.size(); ++i)
    sources[i] = {copied.num_documents[i],
                  static_cast<std::int64_t>(fs::file_size(inputs.files[i]))};
  for (std::int64_t i = 0; i < copied.num_empty; ++i)
    complaints.leave_out("empty document", inputs.files.front(), 0);
}

}  // namespace

PrepareSummary prepare(const PrepareOptions& options, const PrepareReports& reports) {
  const Clock::time_point start = Clock::now();
  check_options(options);
  if (options.synthetic) return prepare_synthetic(options, reports);
  PreparedOutput output(options);
  InputList inputs = find_inputs(options.inputs);
  set_output_apart(options, inputs);
  const bool copies = are_token_inputs(options.inputs);
  Complaints complaints(options.strict, reports.message);
  report_odd_inputs(inputs, complaints);

  ProgressLine progress(reports, inputs.total_bytes);
  const std::unique_ptr<Tokenizer> tokenizer =
      copies ? tokenizer_of_inputs(inputs, options)
             : tokenizer_for(inputs, options, reports, progress);
  output.check(*tokenizer);
  const fs::path folder = fs::path(options.output).parent_path();
  TokenFileWriter writer(folder.empty() ? "." : folder.string(), *tokenizer);
  std::vector<SourceCount> sources(inputs.files.size());
  EncodeCosts costs(inputs, complaints);
  if (copies && !options.prompt_field.empty())
    throw ConfigError("prepare: --prompt-field is of texts, and the inputs are tokens");
  if (copies) {
    copy_documents(inputs, options, writer, sources, complaints, progress);
  } else {
    progress.begin("tokenizing");
    DocumentReader reader(inputs, options, complaints);
    Pipeline(*tokenizer, options, writer, costs).run(reader, sources, progress);
  }
  if (writer.num_documents(Split::train) == 0) fail_without_documents(options, complaints);
  PrepareSummary summary;
  const bool has_splits = std::ranges::any_of(
      options.inputs, [&](const std::string& path) { return copies && path.ends_with(".h5"); });
  if (options.valid_fraction > 0 && writer.num_documents(Split::valid) == 0 && !has_splits)
    summary.valid_note = take_valid_from_end(writer, *tokenizer, options.valid_fraction);

  progress.begin("writing");
  summary.output_bytes = output.write(writer, sources_json(inputs, sources));

  summary.take_counts(options, writer);
  for (const SourceCount& source : sources) {
    summary.num_files += source.num_documents > 0 ? 1 : 0;
    summary.text_bytes += source.bytes;
  }
  summary.skipped = complaints.counts();
  summary.encode_notes = costs.total();
  summary.seconds = seconds_since(start);
  return summary;
}

void PrepareSummary::take_counts(const PrepareOptions& options, const TokenFileWriter& writer) {
  output = options.output;
  tokenizer = writer.tokenizer().name();
  vocab_size = writer.tokenizer().vocab_size();
  num_train_documents = writer.num_documents(Split::train);
  num_valid_documents = writer.num_documents(Split::valid);
  num_train_tokens = writer.num_tokens(Split::train);
  num_valid_tokens = writer.num_tokens(Split::valid);
}

std::string PrepareSummary::to_string() const {
  const std::string from =
      source.empty() ? fmt::format("{} files, {} of text", num_files, megabytes(text_bytes))
                     : source;
  std::string text = fmt::format(
      "{}: {}, tokenizer {} with {} tokens\n"
      "  from   {}\n"
      "  train  {} documents, {} tokens\n"
      "  valid  {} documents, {} tokens\n",
      output, megabytes(output_bytes), tokenizer, vocab_size, from, num_train_documents,
      num_train_tokens, num_valid_documents, num_valid_tokens);
  if (!valid_note.empty()) text += fmt::format("         {}\n", valid_note);
  if (encode_notes.num_forced_cuts > 0)
    text += fmt::format("  cut    {} times where no word or line ended for over 1 MiB\n",
                        encode_notes.num_forced_cuts);
  if (encode_notes.num_lost_marks > 0)
    text += fmt::format("  lost   U+2581, which this tokenizer takes for a space: {} times\n",
                        encode_notes.num_lost_marks);
  if (!skipped.empty()) text += fmt::format("  left out  {}\n", counts_text(skipped));
  return text + fmt::format("  in {:.1f} s", seconds);
}

}  // namespace switchyard
