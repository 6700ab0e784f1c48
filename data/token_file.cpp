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

// A run of bytes in the mapping, whose blocks are compared with their checksums when first touched.
struct CheckedBytes {
  const std::byte* data = nullptr;
  std::int64_t num_bytes = 0;
  std::vector<std::uint64_t> block_checksums;
  // One for each block: nonzero once it was compared with its checksum.
  std::unique_ptr<std::atomic<std::uint8_t>[]> block_checked;
  std::string checksum;  // of all of it

  std::span<const std::byte> block(std::int64_t number) const {
    const std::int64_t begin = number * token_format::block_bytes;
    return {data + begin,
            static_cast<std::size_t>(std::min(token_format::block_bytes, num_bytes - begin))};
  }
};

struct SplitData {
  CheckedBytes tokens;
  CheckedBytes mask;  // no bytes: every token is a target
  std::int64_t num_tokens = 0;
  std::int64_t num_documents = 0;
};

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
  bool has_mask = false;
  boost::iostreams::mapped_file_source mapping;
  int file_descriptor = -1;  // of the same file, to see its size
  std::array<SplitData, num_splits> splits;

  SplitData& of(Split split) { return splits[static_cast<std::size_t>(split)]; }
  void read_header(const hdf5::File& file);
  void map_file();
  void open_split(const hdf5::File& file, Split split);
  CheckedBytes open_bytes(const hdf5::File& file, Split split, std::string_view dataset,
                          std::string_view checksums, hdf5::ElementType type,
                          std::int64_t element_bytes) const;
  void check_block(Split split, const CheckedBytes& bytes, std::int64_t block,
                   std::int64_t element_bytes) const;
  void check_blocks(Split split, const CheckedBytes& bytes, std::int64_t begin, std::int64_t end,
                    std::int64_t element_bytes) const;
  void check_size() const;
};

void TokenFile::State::read_header(const hdf5::File& file) {
  if (!file.has_attribute("/", "format") ||
      file.string_attribute("/", "format") != token_format::name)
    fail(path, "is an HDF5 file but not a token file");
  const std::int64_t version = file.integer_attribute("/", "version");
  if (version != token_format::version && version != token_format::version_with_mask)
    fail(path, fmt::format("has token file version {}, this program reads versions {} and {}",
                           version, token_format::version, token_format::version_with_mask));
  has_mask = version == token_format::version_with_mask;
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

CheckedBytes TokenFile::State::open_bytes(const hdf5::File& file, Split name,
                                          std::string_view dataset, std::string_view checksums,
                                          hdf5::ElementType type,
                                          std::int64_t element_bytes) const {
  const hdf5::Dataset values = file.open_dataset(token_format::in_split(name, dataset));
  values.expect_type(type);
  CheckedBytes bytes;
  bytes.num_bytes = values.shape().numel() * element_bytes;
  bytes.checksum = values.string_attribute("xxh3");
  if (bytes.num_bytes > 0) {
    const std::optional<std::int64_t> offset = values.file_offset();
    const auto file_bytes = static_cast<std::int64_t>(mapping.size());
    if (!offset || bytes.num_bytes > file_bytes || *offset > file_bytes - bytes.num_bytes)
      fail(path, fmt::format("the {} of the {} split do not lie in one piece in the file", dataset,
                             name_of(name)));
    bytes.data = std::as_bytes(std::span(mapping.data(), mapping.size())).data() + *offset;
  }
  const hdf5::Dataset sums = file.open_dataset(token_format::in_split(name, checksums));
  const std::int64_t num_blocks = token_format::num_blocks(bytes.num_bytes);
  sums.expect_shape({num_blocks});
  bytes.block_checksums = sums.read_all<std::uint64_t>();
  bytes.block_checked =
      std::make_unique<std::atomic<std::uint8_t>[]>(static_cast<std::size_t>(num_blocks));
  return bytes;
}

void TokenFile::State::open_split(const hdf5::File& file, Split name) {
  SplitData& split = of(name);
  split.tokens = open_bytes(file, name, "tokens", "block_checksums",
                            bytes_per_token == 2 ? hdf5::ElementType::u16 : hdf5::ElementType::i32,
                            bytes_per_token);
  split.num_tokens = split.tokens.num_bytes / bytes_per_token;
  if (has_mask) {
    split.mask = open_bytes(file, name, "loss_mask", "mask_checksums", hdf5::ElementType::u8, 1);
    if (split.mask.num_bytes != split.num_tokens)
      fail(path, fmt::format("the loss mask of the {} split has {} entries for {} tokens",
                             name_of(name), split.mask.num_bytes, split.num_tokens));
  }
  const hdf5::Dataset offsets = file.open_dataset(token_format::in_split(name, "document_offsets"));
  offsets.expect_type(hdf5::ElementType::i64);
  if (offsets.shape().num_dims() != 1 || offsets.shape()[0] < 1)
    fail(path, fmt::format("the {} split has no document offsets", name_of(name)));
  split.num_documents = offsets.shape()[0] - 1;
  check_offsets(path, name, offsets, split.num_tokens);
}

void TokenFile::State::check_block(Split name, const CheckedBytes& bytes, std::int64_t block,
                                   std::int64_t element_bytes) const {
  const auto i = static_cast<std::size_t>(block);
  // Two threads may both check a block: that costs time and nothing else.
  if (bytes.block_checked[i].load(std::memory_order_relaxed) != 0) return;
  const std::uint64_t found = checksum_of(bytes.block(block));
  if (found != bytes.block_checksums[i]) {
    const std::int64_t first = block * token_format::block_bytes / element_bytes;
    const std::int64_t count = std::ssize(bytes.block(block)) / element_bytes;
    fail(path, fmt::format("tokens {} to {} of the {} split are damaged (block {} has checksum {}, "
                           "{} was written)",
                           first, first + count - 1, name_of(name), block, checksum_text(found),
                           checksum_text(bytes.block_checksums[i])));
  }
  bytes.block_checked[i].store(1, std::memory_order_relaxed);
}

// The blocks of elements [begin, end), at least one.
void TokenFile::State::check_blocks(Split name, const CheckedBytes& bytes, std::int64_t begin,
                                    std::int64_t end, std::int64_t element_bytes) const {
  const std::int64_t last_byte = end * element_bytes - 1;
  for (std::int64_t block = begin * element_bytes / token_format::block_bytes;
       block <= last_byte / token_format::block_bytes; ++block)
    check_block(name, bytes, block, element_bytes);
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
  return state_->of(split).tokens.checksum;
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
  state_->check_blocks(name, split.tokens, begin, begin + count, state_->bytes_per_token);

  if (state_->bytes_per_token == 2)
    convert<std::uint16_t>(split.tokens.data + first_byte, out);
  else
    convert<std::int32_t>(split.tokens.data + first_byte, out);
  const std::int32_t vocab_size = state_->tokenizer->vocab_size();
  const auto bad = std::find_if(
      out.begin(), out.end(), [&](std::int32_t token) { return token < 0 || token >= vocab_size; });
  if (bad != out.end())
    fail(state_->path, fmt::format("token {} of the {} split is {}, the vocabulary has {}",
                                   begin + (bad - out.begin()), name_of(name), *bad, vocab_size));
}

bool TokenFile::has_loss_mask() const {
  return state_->has_mask;
}

void TokenFile::read_mask(Split name, std::int64_t begin, std::span<std::uint8_t> out) const {
  const SplitData& split = state_->of(name);
  const auto count = static_cast<std::int64_t>(out.size());
  expect(begin >= 0 && count <= split.num_tokens && begin <= split.num_tokens - count,
         "a range of tokens inside the split");
  if (count == 0) return;
  if (!state_->has_mask) {
    std::ranges::fill(out, std::uint8_t{1});
    return;
  }
  state_->check_size();
  state_->check_blocks(name, split.mask, begin, begin + count, 1);
  std::memcpy(out.data(), split.mask.data + begin, out.size());
  if (const auto bad = std::ranges::find_if(out, [](std::uint8_t value) { return value > 1; });
      bad != out.end())
    fail(state_->path, fmt::format("the loss mask of token {} of the {} split is {}, not 0 or 1",
                                   begin + (bad - out.begin()), name_of(name), *bad));
}

void TokenFile::verify() const {
  const auto verify_bytes = [&](Split name, const CheckedBytes& bytes, std::int64_t element_bytes) {
    Checksum whole;
    for (std::size_t block = 0; block < bytes.block_checksums.size(); ++block) {
      state_->check_size();
      bytes.block_checked[block].store(0, std::memory_order_relaxed);
      state_->check_block(name, bytes, static_cast<std::int64_t>(block), element_bytes);
      whole.add(bytes.block(static_cast<std::int64_t>(block)));
    }
    if (checksum_text(whole.value()) != bytes.checksum)
      fail(state_->path, fmt::format("the checksum of the {} split is {}, {} was written",
                                     name_of(name), checksum_text(whole.value()), bytes.checksum));
  };
  for (Split name : {Split::train, Split::valid}) {
    verify_bytes(name, state_->of(name).tokens, state_->bytes_per_token);
    if (state_->has_mask) verify_bytes(name, state_->of(name).mask, 1);
  }
}

}  // namespace switchyard
