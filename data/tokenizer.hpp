// Text to token ids and back. The kinds: the 256 byte values, SentencePiece models, tokenizer.json
// of Hugging Face, files of tiktoken. A tokenizer is immutable and may be used by several threads
// at once. Every tokenizer has an end-of-document token, which closes each document of a token file
// and starts generation without a prompt.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

// What encoding a text has cost.
struct EncodeNotes {
  std::int64_t num_forced_cuts = 0;  // a text cut where pieces of the model might have crossed
  std::int64_t num_lost_marks = 0;   // U+2581 that the model takes for a space
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  virtual std::string name() const = 0;  // "bytes", "sentencepiece", "tokenizer.json", "tiktoken"
  virtual std::int32_t vocab_size() const = 0;
  virtual std::int32_t end_of_document() const = 0;
  // Tokens that the tokenizer's makers put before every text, such as <s>; they open each document
  // of a token file and each prompt.
  virtual std::vector<std::int32_t> begin_of_document() const { return {}; }
  // Whether its makers put nothing before a text, not even an end of document: so with tokenizers
  // of others that have no token for it.
  virtual bool begins_with_text() const { return false; }

  // The tokens of a text, without end of document. Adds to `notes`.
  virtual std::vector<std::int32_t> encode(std::string_view text, EncodeNotes& notes) const = 0;
  std::vector<std::int32_t> encode(std::string_view text) const {
    EncodeNotes ignored;
    return encode(text, ignored);
  }
  // The text of whole tokens: end of document gives nothing, ids outside the vocabulary (a model's
  // padding) give U+FFFD. decode(encode(text)) is `text` for bytes and for models trained here.
  virtual std::string decode(std::span<const std::int32_t> tokens) const = 0;
  // The bytes one token adds in the middle of a text; may be part of a UTF-8 character.
  virtual std::string token_bytes(std::int32_t token) const = 0;

  // All there is to know, self-describing; load_tokenizer_blob() makes an equal tokenizer of it.
  virtual std::string serialize() const = 0;
  // The file that other programs read it from; without a name: there is no such file.
  struct PublishedFile {
    std::string name;
    std::string content;
  };
  virtual PublishedFile published_file() const { return {}; }

 protected:
  Tokenizer() = default;
};

// What stands before a text that a model reads: its tokenizer's begin_of_document(), else the end
// of another document. A text stands alone where its tokenizer's makers have it so, and with a
// document mask, since a token then never sees the end of another document; something must stand
// before none.
std::vector<std::int32_t> tokens_before_text(const Tokenizer& tokenizer, bool has_text,
                                             bool document_mask);

// 256 byte values and end of document (id 256): 257 tokens. Encodes any bytes.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

// Lengths in bytes of what SentencePiece encodes in one piece: it takes some hundred bytes of
// memory, and more time than in proportion, for each byte of a text.
struct PieceLimits {
  // A longer text is cut where no piece of the model crosses, which changes no token...
  std::size_t wanted = std::size_t{64} << 10;
  // ...and at a character where it has no such place for so long, which is noted.
  std::size_t most = std::size_t{1} << 20;
};

// A SentencePiece model; end of document is its </s>, or one id beyond its pieces if it has none.
// DataError when it is no such model, IoError when it cannot be read.
std::unique_ptr<Tokenizer> load_sentencepiece_file(const std::string& path);
std::unique_ptr<Tokenizer> load_sentencepiece_model(std::string_view model, std::string_view source,
                                                    PieceLimits limits = {});

std::unique_ptr<Tokenizer> load_tokenizer_blob(std::string_view blob, std::string_view source);

// tokenizer.json of Hugging Face, a byte-pair model (data/bpe/tokenizer_json.hpp says which). The
// end of document is eos_token of the tokenizer_config.json beside it; without one the added token
// of a usual name (<|endoftext|>, </s>, ...), or one id beyond the vocabulary. IoError, DataError.
std::unique_ptr<Tokenizer> load_tokenizer_json_file(const std::string& path);
// A file of tiktoken (data/bpe/tiktoken_file.hpp) whose encoding is named. ConfigError, DataError.
std::unique_ptr<Tokenizer> load_tiktoken_file(std::string_view encoding, const std::string& path);

// "bytes"; or the path of a SentencePiece model, of a tokenizer.json (or a folder with one), of a
// token file (*.h5), whose tokenizer is taken, or of NAME.tiktoken, NAME the encoding;
// ENCODING:PATH for a tiktoken file of another name. ConfigError if it is none of them.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& what);

// The tokenizer inside a token file.
std::unique_ptr<Tokenizer> tokenizer_from_file(const std::string& token_file);

struct SentencePieceTraining {
  std::int32_t vocab_size = 8192;  // including </s>, <unk> and the 256 byte tokens
  std::function<void(std::string_view)> progress = {};  // a sentence at the start and the end
};

// 256 bytes, </s>, <unk> and some characters.
inline constexpr std::int32_t min_sentencepiece_vocab = 300;
// ConfigError if no model of so few tokens can be trained.
void check_sentencepiece_vocab(std::int32_t vocab_size);

// Learns a byte-pair model (BPE with byte fallback, text left as it is, no dummy prefix) from
// texts: lossless on any UTF-8 text; U+2581, which SentencePiece takes for a space, is encoded as
// its three bytes. The same texts give the same model. DataError when the texts cannot support the
// vocabulary, with the largest that they can.
std::unique_ptr<Tokenizer> train_sentencepiece(const std::vector<std::string>& texts,
                                               const SentencePieceTraining& training);

// Text of tokens that arrive one by one: bytes of an incomplete UTF-8 character are held back until
// it is complete, so that what push() returns can be printed at once.
class StreamingDecoder {
 public:
  explicit StreamingDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(std::int32_t token);
  std::string finish();  // what was held back, as U+FFFD if incomplete

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;  // at most 3 bytes
};

}  // namespace switchyard
