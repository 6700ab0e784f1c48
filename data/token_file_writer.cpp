#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "data/files/atomic_file.hpp"
#include "data/files/checksum.hpp"
#include "data/files/spool.hpp"
#include "data/hdf5/hdf5.hpp"
#include "data/token_file.hpp"
#include "data/token_format.hpp"

namespace switchyard {

namespace {

struct SplitSpool {
  explicit SplitSpool(const std::string& folder)
      : tokens(folder), mask(folder), document_ends(folder) {}
  Spool tokens;         // u16 or i32
  Spool mask;           // u8; the first tokens, all others are targets
  Spool document_ends;  // i64, in tokens
  std::int64_t num_tokens = 0;
  std::int64_t num_documents = 0;
};

template <class Stored>
void append_as(Spool& spool, std::span<const std::int32_t> tokens, std::int32_t end_of_document) {
  std::vector<Stored> stored(tokens.size() + 1);
  std::transform(tokens.begin(), tokens.end(), stored.begin(),
                 [](std::int32_t token) { return static_cast<Stored>(token); });
  stored.back() = static_cast<Stored>(end_of_document);
  spool.append(std::as_bytes(std::span(stored)));
}

template <class Stored>
void read_as(Spool& spool, std::int64_t begin, std::span<std::int32_t> out) {
  std::vector<Stored> stored(out.size());
  spool.read(begin * std::int64_t{sizeof(Stored)}, std::as_writable_bytes(std::span(stored)));
  std::copy(stored.begin(), stored.end(), out.begin());
}

// Where a document ends, in tokens.
std::int64_t end_of(SplitSpool& split, std::int64_t document) {
  std::int64_t value = 0;
  split.document_ends.read(document * std::int64_t{sizeof value},
                           std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

void append_end(SplitSpool& split, std::int64_t end) {
  split.document_ends.append(std::as_bytes(std::span(&end, 1)));
}

// What fills the mask of tokens that were added without one.
void fill_mask(SplitSpool& split) {
  const std::vector<std::byte> ones(1 << 16, std::byte{1});
  while (split.mask.size() < split.num_tokens)
    split.mask.append(std::span(ones).first(static_cast<std::size_t>(
        std::min(std::ssize(ones), split.num_tokens - split.mask.size()))));
}

// A spool block by block, and the checksums of the blocks and of the whole.
void write_checked(hdf5::File& file, Split split, Spool& spool, std::string_view name,
                   std::string_view checksum_name, hdf5::ElementType type,
                   std::int64_t element_bytes) {
  const std::int64_t count = spool.size() / element_bytes;
  hdf5::Dataset values = file.create_dataset(token_format::in_split(split, name), {count}, type,
                                             {.layout = hdf5::Layout::contiguous});
  const std::int64_t block_elements = token_format::block_bytes / element_bytes;
  std::vector<std::byte> block;
  std::vector<std::uint64_t> block_checksums;
  Checksum whole;
  for (std::int64_t begin = 0; begin < count; begin += block_elements) {
    const std::int64_t now = std::min(block_elements, count - begin);
    block.resize(static_cast<std::size_t>(now * element_bytes));
    spool.read(begin * element_bytes, block);
    values.write(hdf5::Box::rows(values.shape(), begin, now), block.data());
    block_checksums.push_back(checksum_of(block));
    whole.add(block);
  }
  values.set_attribute("xxh3", checksum_text(whole.value()));
  hdf5::Dataset checksums = file.create_dataset(token_format::in_split(split, checksum_name),
                                                {static_cast<std::int64_t>(block_checksums.size())},
                                                hdf5::ElementType::u64);
  checksums.write_all<std::uint64_t>(block_checksums);
}

void write_offsets(hdf5::File& file, Split split, SplitSpool& spool) {
  hdf5::Dataset offsets = file.create_dataset(token_format::in_split(split, "document_offsets"),
                                              {spool.num_documents + 1}, hdf5::ElementType::i64);
  const std::int64_t zero = 0;
  offsets.write(hdf5::Box::rows(offsets.shape(), 0, 1), &zero);
  constexpr std::int64_t rows_at_once = 1 << 17;
  std::vector<std::int64_t> ends;
  for (std::int64_t begin = 0; begin < spool.num_documents; begin += rows_at_once) {
    const std::int64_t count = std::min(rows_at_once, spool.num_documents - begin);
    ends.resize(static_cast<std::size_t>(count));
    spool.document_ends.read(begin * static_cast<std::int64_t>(sizeof(std::int64_t)),
                             std::as_writable_bytes(std::span(ends)));
    offsets.write(hdf5::Box::rows(offsets.shape(), begin + 1, count), ends.data());
  }
}

}  // namespace

struct TokenFileWriter::State {
  State(const std::string& folder, const Tokenizer& writer_tokenizer)
      : tokenizer(writer_tokenizer),
        bytes_per_token(tokenizer.vocab_size() <= token_format::max_u16_vocab ? 2 : 4),
        train(folder),
        valid(folder) {}
  SplitSpool& of(Split split) { return split == Split::train ? train : valid; }
  // Adds tokens and the end of their document.
  void close_document(SplitSpool& split, std::span<const std::int32_t> tokens) const {
    const std::int32_t end = tokenizer.end_of_document();
    if (bytes_per_token == 2)
      append_as<std::uint16_t>(split.tokens, tokens, end);
    else
      append_as<std::int32_t>(split.tokens, tokens, end);
    split.num_tokens += static_cast<std::int64_t>(tokens.size()) + 1;
    split.num_documents += 1;
    append_end(split, split.num_tokens);
  }

  const Tokenizer& tokenizer;
  std::int64_t bytes_per_token;
  SplitSpool train, valid;
  bool has_mask = false;
};

TokenFileWriter::TokenFileWriter(const std::string& folder, const Tokenizer& tokenizer)
    : state_(std::make_unique<State>(folder, tokenizer)) {}

TokenFileWriter::~TokenFileWriter() = default;

const Tokenizer& TokenFileWriter::tokenizer() const {
  return state_->tokenizer;
}

std::int64_t TokenFileWriter::num_tokens(Split split) const {
  return state_->of(split).num_tokens;
}

std::int64_t TokenFileWriter::num_documents(Split split) const {
  return state_->of(split).num_documents;
}

bool TokenFileWriter::has_loss_mask() const {
  return state_->has_mask;
}

void TokenFileWriter::add_document(Split split, std::span<const std::int32_t> tokens,
                                   std::span<const std::uint8_t> mask) {
  expect(mask.empty() || mask.size() == tokens.size() || mask.size() == tokens.size() + 1,
         "a mask of every token");
  const std::int32_t vocab_size = state_->tokenizer.vocab_size();
  expect(std::all_of(tokens.begin(), tokens.end(),
                     [&](std::int32_t token) { return token >= 0 && token < vocab_size; }),
         "tokens of the tokenizer's vocabulary");
  SplitSpool& spool = state_->of(split);
  if (std::ranges::find(mask, 0) != mask.end()) {
    fill_mask(spool);
    spool.mask.append(std::as_bytes(mask));
    state_->has_mask = true;
  }
  state_->close_document(spool, tokens);
}

void TokenFileWriter::read_tokens(Split split, std::int64_t begin, std::span<std::int32_t> out) {
  Spool& tokens = state_->of(split).tokens;
  if (state_->bytes_per_token == 2)
    read_as<std::uint16_t>(tokens, begin, out);
  else
    read_as<std::int32_t>(tokens, begin, out);
}

void TokenFileWriter::read_document_ends(Split split, std::int64_t first,
                                         std::span<std::int64_t> out) {
  state_->of(split).document_ends.read(first * std::int64_t{sizeof(std::int64_t)},
                                       std::as_writable_bytes(out));
}

void TokenFileWriter::move_tail(Split from, Split to, std::int64_t begin) {
  SplitSpool& source = state_->of(from);
  SplitSpool& target = state_->of(to);
  expect(from != to && begin >= 0 && begin < source.num_tokens,
         "two different splits and tokens to move");
  const std::int64_t bytes_per_token = state_->bytes_per_token;
  // The first document that reaches beyond `begin`.
  std::int64_t first = source.num_documents - 1;
  while (first > 0 && end_of(source, first - 1) > begin) --first;
  const bool is_inside = begin > (first > 0 ? end_of(source, first - 1) : 0);

  std::vector<std::byte> block;
  const std::int64_t end = source.tokens.size();
  for (std::int64_t at = begin * bytes_per_token; at < end; at += token_format::block_bytes) {
    block.resize(static_cast<std::size_t>(std::min(token_format::block_bytes, end - at)));
    source.tokens.read(at, block);
    target.tokens.append(block);
  }
  if (state_->has_mask) {
    fill_mask(source);
    fill_mask(target);
    block.resize(static_cast<std::size_t>(source.num_tokens - begin));
    source.mask.read(begin, block);
    target.mask.append(block);
    source.mask.truncate(begin);
  }

  for (std::int64_t document = first; document < source.num_documents; ++document)
    append_end(target, target.num_tokens + end_of(source, document) - begin);
  target.num_tokens += source.num_tokens - begin;
  target.num_documents += source.num_documents - first;

  source.tokens.truncate(begin * bytes_per_token);
  source.document_ends.truncate(first * std::int64_t{sizeof(std::int64_t)});
  source.num_tokens = begin;
  source.num_documents = first;
  if (is_inside) state_->close_document(source, {});
}

void TokenFileWriter::write(const std::string& path, std::string_view sources_json) {
  const Tokenizer& tokenizer = state_->tokenizer;
  const std::string blob = tokenizer.serialize();
  constexpr std::int64_t slack = std::int64_t{8} << 20;  // HDF5's metadata, checksums, padding
  std::int64_t bytes = slack + static_cast<std::int64_t>(blob.size() + sources_json.size());
  for (Split split : {Split::train, Split::valid}) {
    if (state_->has_mask) fill_mask(state_->of(split));
    bytes += state_->of(split).tokens.size() + state_->of(split).mask.size() +
             state_->of(split).document_ends.size();
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  require_free_space(folder.empty() ? "." : folder, bytes, "the token file");

  hdf5::File file = hdf5::File::create(path);
  file.set_attribute("/", "format", token_format::name);
  file.set_attribute("/", "version",
                     state_->has_mask ? token_format::version_with_mask : token_format::version);
  file.set_attribute("/", "vocab_size", std::int64_t{tokenizer.vocab_size()});
  file.set_attribute("/", "end_of_document", std::int64_t{tokenizer.end_of_document()});
  file.set_attribute("/", "tokenizer", tokenizer.name());
  hdf5::write_text(file, "tokenizer", blob);
  hdf5::write_text(file, "sources", sources_json);
  for (Split split : {Split::train, Split::valid}) {
    SplitSpool& spool = state_->of(split);
    write_checked(file, split, spool.tokens, "tokens", "block_checksums",
                  state_->bytes_per_token == 2 ? hdf5::ElementType::u16 : hdf5::ElementType::i32,
                  state_->bytes_per_token);
    if (state_->has_mask)
      write_checked(file, split, spool.mask, "loss_mask", "mask_checksums", hdf5::ElementType::u8,
                    1);
    write_offsets(file, split, state_->of(split));
  }
  file.close_synced();
}

}  // namespace switchyard
