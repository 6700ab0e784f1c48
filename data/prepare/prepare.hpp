// From texts to a token file: `switchyard prepare`. Inputs are files and folders (searched through,
// in sorted order, the same file under two names once; hidden files and backups are left out and
// counted). NAME.jsonl and NAME.ndjson have a document a line in a field, NAME.json an array of
// objects with that field, or such objects one after another; any other file is text, cut into
// documents as DocumentSeparator says; a further .gz or .zst is undone. What cannot be used (bad
// UTF-8, a binary file, an empty document, a broken JSON line) is reported with file and line,
// counted and left out; with `strict` it is an error instead.
//
// Inputs that are named NAME.idx (Megatron, with NAME.bin), NAME.bin (nanoGPT) or NAME.h5 (token
// files) are tokens already, and are copied; the output may be of these kinds, too.
//
// A made-up task (data/prepare/synthetic.hpp) stands in place of inputs; the last of its documents
// are those of the validation split.
//
// The output depends on the inputs and options alone, never on the number of threads, and appears
// under its name only when it is complete.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/prepare/synthetic.hpp"
#include "data/tokenizer.hpp"

namespace switchyard {

enum class DocumentSeparator : std::uint8_t {
  automatic,   // a line that is exactly "%" (as in fortune files) ends a document
  none,        // a file is a document
  blank_line,  // an empty line ends a document
};
constexpr std::array<std::string_view, 3> choice_names(DocumentSeparator) {
  return {"auto", "none", "blank"};
}

struct PrepareOptions {
  std::vector<std::string> inputs;
  std::optional<SyntheticOptions> synthetic;  // in place of inputs
  std::string output;
  bool overwrite = false;
  // What make_tokenizer() takes; empty: "bytes", or the tokenizer of token files.
  std::string tokenizer;
  std::int32_t train_vocab = 0;  // > 0: train a SentencePiece model of that size on the inputs
  // Of the documents, in [0, 1); of the tokens where there are too few documents.
  double valid_fraction = 0.05;
  DocumentSeparator separator = DocumentSeparator::automatic;
  std::string text_field = "text";  // of .jsonl, .ndjson, .json
  // A field with a text before that one, whose tokens the loss mask leaves out; empty: none.
  std::string prompt_field;
  int num_threads = 0;     // 0: all the processor has
  std::uint64_t seed = 0;  // of the validation split and of the tokenizer's sample
  bool strict = false;
  bool drop_ends = false;  // of .idx: documents without the token that ends them
  std::int64_t max_document_bytes = std::int64_t{64} << 20;  // longer ones are cut at a line end
  std::int64_t tokenizer_sample_bytes = std::int64_t{32} << 20;  // text a tokenizer is trained on
};

struct PrepareProgress {
  std::string_view phase;  // "sampling", "training tokenizer", "tokenizing", "writing"
  std::int64_t num_documents = 0;
  std::int64_t num_tokens = 0;
  std::int64_t bytes_read = 0;  // of input files as they lie on the disk
  std::int64_t bytes_total = 0;
  double seconds = 0;
};

// Both may be empty. Called in the calling thread only, progress at most ten times a second.
struct PrepareReports {
  std::function<void(const PrepareProgress&)> progress = {};
  std::function<void(std::string_view)> message = {};
};

class TokenFileWriter;

struct PrepareSummary {
  std::string output;
  std::string source;     // of made-up tasks: what describe_synthetic() says; else empty
  std::string tokenizer;  // name
  std::int32_t vocab_size = 0;
  std::int64_t num_files = 0;
  std::int64_t num_train_documents = 0;
  std::int64_t num_valid_documents = 0;
  std::int64_t num_train_tokens = 0;  // end-of-document tokens included
  std::int64_t num_valid_tokens = 0;
  std::string valid_note;         // what was done for a validation split of too few documents
  std::int64_t text_bytes = 0;    // of the documents that were kept
  std::int64_t output_bytes = 0;  // size of the token file
  EncodeNotes encode_notes;       // of all documents
  std::map<std::string, std::int64_t> skipped;  // reason -> how many documents, lines or files
  double seconds = 0;

  // The names and what was written.
  void take_counts(const PrepareOptions& options, const TokenFileWriter& writer);
  std::string to_string() const;  // several lines for a terminal
};

// Errors: ConfigError (options), DataError (input missing, no documents, or anything under strict),
// IoError (existing output, disk full). After an error no output and no temporary is left.
PrepareSummary prepare(const PrepareOptions& options, const PrepareReports& reports = {});

}  // namespace switchyard
