// SentencePiece behind the Tokenizer interface: loading, encoding, training.
#include "data/sentencepiece_tokenizer.hpp"

#include <fmt/core.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <ranges>
#include <unordered_map>
#include <utility>

#include "data/files/atomic_file.hpp"
#include "data/files/utf8.hpp"
#include "data/piece_borders.hpp"
#include "data/tokenizer.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

namespace sp = sentencepiece;

constexpr std::string_view guard = "\n";

std::string with_spaces(std::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    const bool is_space = piece.starts_with(space_mark);
    text.push_back(is_space ? ' ' : piece.front());
    piece.remove_prefix(is_space ? space_mark.size() : 1);
  }
  return text;
}

// The library puts its source line and the condition in brackets before the sentence, and names
// options of its own program behind it.
std::string plain_reason(std::string_view message) {
  const std::size_t begin = message.rfind("] ");
  if (begin != std::string_view::npos) message.remove_prefix(begin + 2);
  const std::size_t advice = message.find(" Increase vocab_size or");
  if (advice == std::string_view::npos) return std::string(message);
  return fmt::format("{} Choose a larger vocabulary.", message.substr(0, advice));
}

// "Vocabulary size is too high (300). Please set it to a value <= 266.": the bound, if that is it.
std::optional<std::int32_t> largest_vocab(std::string_view message) {
  constexpr std::string_view words = "value <= ";
  const std::size_t at = message.find(words);
  std::int32_t bound = 0;
  if (at == std::string_view::npos) return std::nullopt;
  message.remove_prefix(at + words.size());
  const auto [end, error] = std::from_chars(message.data(), message.data() + message.size(), bound);
  return error == std::errc{} ? std::optional(bound) : std::nullopt;
}

[[noreturn]] void refuse_vocab(std::int32_t wanted, std::int32_t largest) {
  if (largest < min_sentencepiece_vocab)
    throw DataError(
        fmt::format("no tokenizer of {} pieces can be trained on these texts: they support {} at "
                    "most, and {} is the least; give more text, or use the tokenizer \"bytes\"",
                    wanted, largest, min_sentencepiece_vocab));
  throw DataError(
      fmt::format("no tokenizer of {} pieces can be trained on these texts: they support {} at "
                  "most; choose from {} to {}, or give more text",
                  wanted, largest, min_sentencepiece_vocab, largest));
}

[[noreturn]] void refuse_model(std::string_view source, const std::string& reason) {
  throw DataError(fmt::format("{}: is not a SentencePiece model{}{}", source,
                              reason.empty() ? "" : ": ", reason));
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string_view model, std::string_view source, PieceLimits limits)
      : model_(model), limits_(limits) {
    const sp::util::Status status = processor_.LoadFromSerializedProto(model);
    if (!status.ok() || processor_.GetPieceSize() <= 0)
      refuse_model(source, plain_reason(status.error_message()));
    num_pieces_ = processor_.GetPieceSize();
    const int eos = processor_.eos_id();
    end_of_document_ = eos >= 0 ? eos : num_pieces_;
    if (const int bos = processor_.bos_id(); bos >= 0) begin_.push_back(bos);
    borders_ = borders_of(processor_);
    if (borders_.needs_guard) guard_tokens_ = encode_piece(guard);
  }

  std::string name() const override { return "sentencepiece"; }
  std::int32_t vocab_size() const override { return std::max(num_pieces_, end_of_document_ + 1); }
  std::int32_t end_of_document() const override { return end_of_document_; }
  // What Llama and Mistral put before every text.
  std::vector<std::int32_t> begin_of_document() const override { return begin_; }

  using Tokenizer::encode;
  std::vector<std::int32_t> encode(std::string_view text, EncodeNotes& notes) const override {
    std::vector<std::int32_t> tokens;
    bool is_first = true;
    const auto append_part = [&](std::string_view part) {
      append_encoded(part, std::exchange(is_first, false), tokens);
    };
    if (!borders_.writes_mark_as_bytes) {
      for (std::size_t at = text.find(space_mark); at != std::string_view::npos;
           at = text.find(space_mark, at + space_mark.size()))
        ++notes.num_lost_marks;
      for_each_part(text, borders_, limits_, notes, append_part);
      return tokens;
    }
    while (!text.empty()) {
      const std::string_view plain = text.substr(0, text.find(space_mark));
      if (!plain.empty()) for_each_part(plain, borders_, limits_, notes, append_part);
      text.remove_prefix(plain.size());
      if (text.empty()) break;
      tokens.insert(tokens.end(), borders_.mark_bytes.begin(), borders_.mark_bytes.end());
      text.remove_prefix(space_mark.size());
      is_first = false;
    }
    return tokens;
  }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string text;
    std::vector<int> pieces;
    const auto append_pieces = [&] {
      std::string part;
      if (!pieces.empty() && !processor_.Decode(pieces, &part).ok())
        throw DataError("SentencePiece cannot decode its own tokens");
      text += part;
      pieces.clear();
    };
    for (std::int32_t token : tokens) {
      if (token >= 0 && token < num_pieces_ && token != end_of_document_) {
        pieces.push_back(token);
        continue;
      }
      append_pieces();
      if (token != end_of_document_) text += replacement_character;
    }
    append_pieces();
    return text;
  }

  std::string token_bytes(std::int32_t token) const override {
    if (token == end_of_document_) return {};
    if (token < 0 || token >= num_pieces_ || processor_.IsUnknown(token))
      return std::string(replacement_character);
    if (processor_.IsControl(token)) return {};
    const std::string& piece = processor_.IdToPiece(token);
    if (processor_.IsByte(token))  // "<0x0A>"
      return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
    return with_spaces(piece);
  }

  std::string serialize() const override { return serialize_sentencepiece(model_); }
  PublishedFile published_file() const override { return {"tokenizer.model", model_}; }

 private:
  std::vector<int> encode_piece(std::string_view text) const {
    std::vector<int> tokens;
    const sp::util::Status status = processor_.Encode({text.data(), text.size()}, &tokens);
    if (!status.ok())
      throw DataError(fmt::format("SentencePiece cannot encode a text of {} bytes: {}", text.size(),
                                  status.error_message()));
    return tokens;
  }

  // Where the model puts a space before every text, a later part is encoded behind a line end,
  // which no piece joins, and the tokens of both are left out.
  void append_encoded(std::string_view part, bool is_first,
                      std::vector<std::int32_t>& tokens) const {
    const bool is_guarded = !is_first && borders_.needs_guard;
    const std::vector<int> encoded =
        is_guarded ? encode_piece(std::string(guard).append(part)) : encode_piece(part);
    const std::size_t skipped = is_guarded ? guard_tokens_.size() : 0;
    expect(std::ranges::equal(guard_tokens_ | std::views::take(skipped),
                              encoded | std::views::take(skipped)),
           "a line end that stays apart from what follows it");
    tokens.insert(tokens.end(), encoded.begin() + static_cast<std::ptrdiff_t>(skipped),
                  encoded.end());
  }

  std::string model_;
  PieceLimits limits_;
  sp::SentencePieceProcessor processor_;
  PieceBorders borders_;
  std::vector<int> guard_tokens_;
  std::int32_t num_pieces_ = 0;
  std::int32_t end_of_document_ = 0;
  std::vector<std::int32_t> begin_;
};

// The library skips longer training sentences.
constexpr std::size_t max_sentence_bytes = 4000;

// Lines of texts, long ones in parts. The trainer cannot hold a line end inside a sentence; models
// write it as the byte piece <0x0A>.
std::vector<std::string> sentences_of(const std::vector<std::string>& texts) {
  std::vector<std::string> sentences;
  for (std::string_view text : texts) {
    while (!text.empty()) {
      const std::string_view line = text.substr(0, text.find('\n'));
      text.remove_prefix(std::min(text.size(), line.size() + 1));
      for (std::string_view rest = line; !rest.empty();) {
        const std::size_t bytes = complete_utf8_prefix(rest.substr(0, max_sentence_bytes));
        sentences.emplace_back(rest.substr(0, std::max<std::size_t>(bytes, 1)));
        rest.remove_prefix(sentences.back().size());
      }
    }
  }
  return sentences;
}

class SentenceList final : public sp::SentenceIterator {
 public:
  explicit SentenceList(const std::vector<std::string>& sentences) : sentences_(sentences) {}
  bool done() const override { return next_ >= sentences_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return sentences_[next_]; }
  sp::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& sentences_;
  std::size_t next_ = 0;
};

// Lossless on any text: no normalisation, spaces kept as they are, bytes for unknown characters.
// One thread, so that nothing depends on their number; byte-pair training is mostly serial anyway.
std::unordered_map<std::string, std::string> training_arguments(std::int32_t vocab_size) {
  return {{"model_type", "bpe"},
          {"vocab_size", std::to_string(vocab_size)},
          {"normalization_rule_name", "identity"},
          {"add_dummy_prefix", "false"},
          {"remove_extra_whitespaces", "false"},
          {"allow_whitespace_only_pieces", "true"},
          {"split_digits", "true"},
          {"byte_fallback", "true"},
          {"character_coverage", "0.9995"},
          {"max_sentence_length", std::to_string(max_sentence_bytes + 4)},
          {"input_sentence_size", "0"},
          {"shuffle_input_sentence", "false"},
          {"num_threads", "1"},
          {"unk_id", "0"},
          {"eos_id", "1"},
          {"bos_id", "-1"},
          {"pad_id", "-1"},
          {"minloglevel", "3"}};
}

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece_model(std::string_view model, std::string_view source,
                                                    PieceLimits limits) {
  return std::make_unique<SentencePieceTokenizer>(model, source, limits);
}

std::unique_ptr<Tokenizer> load_sentencepiece_file(const std::string& path) {
  return load_sentencepiece_model(read_file(path), path);
}

void check_sentencepiece_vocab(std::int32_t vocab_size) {
  if (vocab_size < min_sentencepiece_vocab)
    throw ConfigError(
        fmt::format("a vocabulary of {} is too small for a SentencePiece model: choose at least {} "
                    "(256 bytes, </s>, <unk> and some characters), or the tokenizer \"bytes\"",
                    vocab_size, min_sentencepiece_vocab));
}

std::unique_ptr<Tokenizer> train_sentencepiece(const std::vector<std::string>& texts,
                                               const SentencePieceTraining& training) {
  check_sentencepiece_vocab(training.vocab_size);
  const std::vector<std::string> sentences = sentences_of(texts);
  if (sentences.empty()) throw DataError("there is no text to train a tokenizer on");
  if (training.progress)
    training.progress(fmt::format("training a tokenizer of {} pieces on {} lines",
                                  training.vocab_size, sentences.size()));

  SentenceList list(sentences);
  std::string model;
  const sp::util::Status status =
      sp::SentencePieceTrainer::Train(training_arguments(training.vocab_size), &list, &model);
  if (const auto largest = largest_vocab(status.error_message()); !status.ok() && largest)
    refuse_vocab(training.vocab_size, *largest);
  if (!status.ok())
    throw DataError(fmt::format("no tokenizer of {} pieces can be trained on these texts: {}",
                                training.vocab_size, plain_reason(status.error_message())));
  auto tokenizer = load_sentencepiece_model(model, "the trained tokenizer");
  if (tokenizer->vocab_size() != training.vocab_size)
    refuse_vocab(training.vocab_size, tokenizer->vocab_size());
  if (training.progress) training.progress("trained the tokenizer");
  return tokenizer;
}

}  // namespace switchyard
