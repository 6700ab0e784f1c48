#include "data/token_file.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/iostreams/device/mapped_file.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "data/files/checksum.hpp"
#include "data/files/shell_quote.hpp"
#include "data/hdf5/hdf5.hpp"
#include "data/token_format.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr std::string_view remedy = "run `switchyard prepare` again";

[[noreturn]] void fail(const std::string& path, std::string_view what) {
  throw DataError(fmt::format("{}: {}; {}", path, what, remedy));
}

struct SplitData {
  const std::byte* data = nullptr;  // in the mapping
  std::int64_t num_tokens = 0;
  std::int64_t num_documents = 0;
  std::vector<std::uint64_t> block_checksums;
  // One for each block: nonzero once it was compared with its checksum.
  std::unique_ptr<std::atomic<std::uint8_t>[]> block_checked;
  std::string checksum;  // of the whole split
};

std::span<const std::byte> block_bytes(const SplitData& split, std::int64_t block,
                                       std::int64_t bytes_per_token) {
  const std::int64_t begin = block * token_format::block_bytes;
  const std::int64_t end =
      std::min(begin + token_format::block_bytes, split.num_tokens * bytes_per_token);
  return {split.data + begin, static_cast<std::size_t>(end - begin)};
}

// Offsets must rise from 0 to the number of tokens: every document has at least its end.
void check_offsets(const std::string& path, Split name, const hdf5::Dataset& offsets,
                   std::int64_t num_tokens) {
  const std::int64_t num_offsets = offsets.shape().numel();
  constexpr std::int64_t rows_at_once = 1 << 20;
  std::vector<std::int64_t> values;
  std::int64_t last = -1;
  for (std::int64_t begin = 0; begin < num_offsets; begin += rows_at_once) {
    const std::int64_t count = std::min(rows_at_once, num_offsets - begin);
    values.resize(static_cast<std::size_t>(count));
    offsets.read(hdf5::Box::rows(offsets.shape(), begin, count), values.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
      if ((last < 0 && values[i] != 0) || values[i] <= last)
        fail(path,
             fmt::format("document_offsets[{}] = {} of the {} split does not follow {}",
                         begin + static_cast<std::int64_t>(i), values[i], name_of(name), last));
      last = values[i];
    }
  }
  if (last != num_tokens)
    fail(path, fmt::format("the documents of the {} split end at token {}, but it has {} tokens",
                           name_of(name), last, num_tokens));
}

template <class Stored>
void convert(const std::byte* from, std::span<std::int32_t> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    Stored value;
    std::memcpy(&value, from + i * sizeof(Stored), sizeof(Stored));
    out[i] = static_cast<std::int32_t>(value);
  }
}

}  // namespace

std::string_view name_of(Split split) {
  return split == Split::train ? "train" : "valid";
}

struct TokenFile::State {
  State() = default;
  ~State() {
    if (file_descriptor >= 0) ::close(file_descriptor);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  std::string path;
  std::unique_ptr<Tokenizer> tokenizer;
  std::string sources;
  std::int64_t bytes_per_token = 0;
  boost::iostreams::mapped_file_source mapping;
  int file_descriptor = -1;  // of the same file, to see its size
  std::array<SplitData, num_splits> splits;

  SplitData& of(Split split) { return splits[static_cast<std::size_t>(split)]; }
  void read_header(const hdf5::File& file);
  void map_file();
  void open_split(const hdf5::File& file, Split split);
  void check_block(Split split, std::int64_t block);
  void check_size() const;
};

void TokenFile::State::read_header(const hdf5::File& file) {
  if (!file.has_attribute("/", "format") ||
      file.string_attribute("/", "format") != token_format::name)
    fail(path, "is an HDF5 file but not a token file");
  const std::int64_t version = file.integer_attribute("/", "version");
  if (version != token_format::version)
    fail(path, fmt::format("has token file version {}, this program reads version {}", version,
                           token_format::version));
  tokenizer = load_tokenizer_blob(hdf5::read_text(file, "tokenizer"), path);
  sources = hdf5::read_text(file, "sources");
  if (file.integer_attribute("/", "vocab_size") != tokenizer->vocab_size() ||
      file.integer_attribute("/", "end_of_document") != tokenizer->end_of_document())
    fail(path, "its vocabulary is not that of the tokenizer inside it");
  bytes_per_token = tokenizer->vocab_size() <= token_format::max_u16_vocab ? 2 : 4;
}

void TokenFile::State::map_file() {
  try {
    mapping.open(path);
  } catch (const std::exception& error) {
    throw IoError(fmt::format("{}: cannot be mapped into memory: {}", path, error.what()));
  }
  file_descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_descriptor < 0)
    throw IoError(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
}

// Touching a page beyond the end of a file that was cut short since it was mapped would kill the
// process with SIGBUS and no word.
void TokenFile::State::check_size() const {
  struct stat status {};
  if (::fstat(file_descriptor, &status) != 0)
    throw IoError(fmt::format("{}: cannot be read any more: {}", path, std::strerror(errno)));
  if (status.st_size < static_cast<off_t>(mapping.size()))
    fail(path, fmt::format("was cut short from {} to {} bytes while it was in use", mapping.size(),
                           status.st_size));
}

void TokenFile::State::open_split(const hdf5::File& file, Split name) {
  SplitData& split = of(name);
  const hdf5::Dataset tokens = file.open_dataset(token_format::in_split(name, "tokens"));
  tokens.expect_type(bytes_per_token == 2 ? hdf5::ElementType::u16 : hdf5::ElementType::i32);
  split.num_tokens = tokens.shape().numel();
  split.checksum = tokens.string_attribute("xxh3");
  const std::int64_t num_bytes = split.num_tokens * bytes_per_token;
  if (num_bytes > 0) {
    const std::optional<std::int64_t> offset = tokens.file_offset();
    const auto file_bytes = static_cast<std::int64_t>(mapping.size());
    if (!offset || num_bytes > file_bytes || *offset > file_bytes - num_bytes)
      fail(path, fmt::format("the tokens of the {} split do not lie in one piece in the file",
                             name_of(name)));
    split.data = std::as_bytes(std::span(mapping.data(), mapping.size())).data() + *offset;
  }

  const hdf5::Dataset checksums =
      file.open_dataset(token_format::in_split(name, "block_checksums"));
  const std::int64_t num_blocks = token_format::num_blocks(num_bytes);
  checksums.expect_shape({num_blocks});
  split.block_checksums = checksums.read_all<std::uint64_t>();
  split.block_checked =
      std::make_unique<std::atomic<std::uint8_t>[]>(static_cast<std::size_t>(num_blocks));

  const hdf5::Dataset offsets = file.open_dataset(token_format::in_split(name, "document_offsets"));
  offsets.expect_type(hdf5::ElementType::i64);
  if (offsets.shape().num_dims() != 1 || offsets.shape()[0] < 1)
    fail(path, fmt::format("the {} split has no document offsets", name_of(name)));
  split.num_documents = offsets.shape()[0] - 1;
  check_offsets(path, name, offsets, split.num_tokens);
}

void TokenFile::State::check_block(Split name, std::int64_t block) {
  SplitData& split = of(name);
  const auto i = static_cast<std::size_t>(block);
  // Two threads may both check a block: that costs time and nothing else.
  if (split.block_checked[i].load(std::memory_order_relaxed) != 0) return;
  const std::uint64_t found = checksum_of(block_bytes(split, block, bytes_per_token));
  if (found != split.block_checksums[i]) {
    const std::int64_t first = block * token_format::block_bytes / bytes_per_token;
    fail(path,
         fmt::format(
             "tokens {} to {} of the {} split are damaged (block {} has checksum {}, "
             "{} was written)",
             first,
             std::min(first + token_format::block_bytes / bytes_per_token, split.num_tokens) - 1,
             name_of(name), block, checksum_text(found), checksum_text(split.block_checksums[i])));
  }
  split.block_checked[i].store(1, std::memory_order_relaxed);
}

TokenFile::TokenFile(const std::string& path) : state_(std::make_unique<State>()) {
  state_->path = path;
  if (hdf5::is_text(path))
    throw DataError(fmt::format(
        "{}: is a text, not a token file; make one with `switchyard prepare {} --output "
        "{}`, and name that",
        path, quote_for_shell(path),
        quote_for_shell(std::filesystem::path(path).replace_extension(".h5").string())));
  const hdf5::File file = hdf5::File::open(path);
  state_->read_header(file);
  state_->map_file();
  for (Split split : {Split::train, Split::valid}) state_->open_split(file, split);
}

TokenFile::~TokenFile() = default;
TokenFile::TokenFile(TokenFile&&) noexcept = default;
TokenFile& TokenFile::operator=(TokenFile&&) noexcept = default;

const std::string& TokenFile::path() const {
  return state_->path;
}
const Tokenizer& TokenFile::tokenizer() const {
  return *state_->tokenizer;
}
std::int32_t TokenFile::vocab_size() const {
  return state_->tokenizer->vocab_size();
}
std::int32_t TokenFile::end_of_document() const {
  return state_->tokenizer->end_of_document();
}
const std::string& TokenFile::sources() const {
  return state_->sources;
}
std::int64_t TokenFile::num_tokens(Split split) const {
  return state_->of(split).num_tokens;
}
std::int64_t TokenFile::num_documents(Split split) const {
  return state_->of(split).num_documents;
}
const std::string& TokenFile::checksum(Split split) const {
  return state_->of(split).checksum;
}
std::int64_t TokenFile::bytes_per_token() const {
  return state_->bytes_per_token;
}

std::vector<std::int64_t> TokenFile::document_offsets(Split split) const {
  const hdf5::File file = hdf5::File::open(state_->path);
  return file.open_dataset(token_format::in_split(split, "document_offsets"))
      .read_all<std::int64_t>();
}

void TokenFile::read(Split name, std::int64_t begin, std::span<std::int32_t> out) const {
  const SplitData& split = state_->of(name);
  const auto count = static_cast<std::int64_t>(out.size());
  expect(begin >= 0 && count <= split.num_tokens && begin <= split.num_tokens - count,
         "a range of tokens inside the split");
  if (count == 0) return;
  state_->check_size();
  const std::int64_t first_byte = begin * state_->bytes_per_token;
  const std::int64_t last_byte = (begin + count) * state_->bytes_per_token - 1;
  for (std::int64_t block = first_byte / token_format::block_bytes;
       block <= last_byte / token_format::block_bytes; ++block)
    state_->check_block(name, block);

  if (state_->bytes_per_token == 2)
    convert<std::uint16_t>(split.data + first_byte, out);
  else
    convert<std::int32_t>(split.data + first_byte, out);
  const std::int32_t vocab_size = state_->tokenizer->vocab_size();
  const auto bad = std::find_if(
      out.begin(), out.end(), [&](std::int32_t token) { return token < 0 || token >= vocab_size; });
  if (bad != out.end())
    fail(state_->path, fmt::format("token {} of the {} split is {}, the vocabulary has {}",
                                   begin + (bad - out.begin()), name_of(name), *bad, vocab_size));
}

void TokenFile::verify() const {
  for (Split name : {Split::train, Split::valid}) {
    const SplitData& split = state_->of(name);
    Checksum whole;
    for (std::size_t block = 0; block < split.block_checksums.size(); ++block) {
      state_->check_size();
      split.block_checked[block].store(0, std::memory_order_relaxed);
      state_->check_block(name, static_cast<std::int64_t>(block));
      whole.add(block_bytes(split, static_cast<std::int64_t>(block), state_->bytes_per_token));
    }
    if (checksum_text(whole.value()) != split.checksum)
      fail(state_->path, fmt::format("the checksum of the {} split is {}, {} was written",
                                     name_of(name), checksum_text(whole.value()), split.checksum));
  }
}

}  // namespace switchyard
