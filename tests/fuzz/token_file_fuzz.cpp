// Our own datasets inside a valid HDF5 container: a token file with a loss mask, some of whose
// datasets and attributes are changed as the input says (whether checksums are made anew, then one
// change after the other). One that is opened is read as a whole.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "data/files/checksum.hpp"
#include "data/hdf5/hdf5.hpp"
#include "data/token_file.hpp"
#include "tensor/error.hpp"
#include "tests/fuzz/fuzz_target.hpp"

namespace {

using namespace switchyard;  // NOLINT

struct StoredDataset {
  std::string name;
  Shape shape;
  hdf5::ElementType type;
  std::vector<std::byte> bytes;
  bool is_there = true;
};

struct Contents {
  std::vector<StoredDataset> datasets;
  std::int64_t version = 2, vocab_size = 256, end_of_document = 0;
  std::string format = "switchyard tokens";
};

Contents make_contents() {
  const auto tokenizer = make_byte_tokenizer();
  std::string folder = (std::filesystem::temp_directory_path() / "switchyard-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) std::abort();
  const std::string path = folder + "/whole.h5";
  {
    TokenFileWriter writer(folder, *tokenizer);
    for (const Split split : {Split::train, Split::valid}) {
      const std::vector<std::int32_t> tokens = {104, 101, 108, 108, 111};
      writer.add_document(split, tokens, std::vector<std::uint8_t>{0, 0, 1, 1, 1});
      writer.add_document(split, tokens);
    }
    writer.write(path, "[]");
  }
  Contents contents;
  const hdf5::File file = hdf5::File::open(path);
  contents.vocab_size = file.integer_attribute("/", "vocab_size");
  contents.end_of_document = file.integer_attribute("/", "end_of_document");
  for (const std::string& name : file.list_datasets()) {
    const hdf5::Dataset dataset = file.open_dataset(name);
    StoredDataset stored{name, dataset.shape(), dataset.type(), {}};
    stored.bytes.resize(
        static_cast<std::size_t>(dataset.shape().numel() * size_of(dataset.type())));
    dataset.read(stored.bytes.data());
    contents.datasets.push_back(std::move(stored));
  }
  std::filesystem::remove_all(folder);
  return contents;
}

// Numbers out of the input; zeros behind its end.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool is_empty() const { return at_ >= size_; }
  template <class Number>
  Number take() {
    Number number{};
    const std::size_t length = std::min(sizeof(number), size_ - std::min(at_, size_));
    if (length > 0) std::memcpy(&number, data_ + at_, length);
    at_ += sizeof(number);
    return number;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_, at_ = 0;
};

void reshape(StoredDataset& dataset, const Shape& shape) {
  dataset.shape = shape;
  dataset.bytes.resize(static_cast<std::size_t>(shape.numel() * size_of(dataset.type)));
}

void change(Contents& contents, Input& input) {
  StoredDataset& dataset = contents.datasets[input.take<std::uint8_t>() % contents.datasets.size()];
  switch (input.take<std::uint8_t>() % 8) {
    case 0:
      dataset.is_there = false;
      break;
    case 1:
      dataset.type = static_cast<hdf5::ElementType>(input.take<std::uint8_t>() % 7);
      reshape(dataset, dataset.shape);
      break;
    case 2:
      reshape(dataset, {input.take<std::uint16_t>() % 5000});
      break;
    case 3:
      reshape(dataset, {input.take<std::uint8_t>() % 16, input.take<std::uint8_t>() % 16});
      break;
    case 4:
      contents.version = input.take<std::int8_t>();
      break;
    case 5:
      contents.vocab_size = input.take<std::int64_t>();
      break;
    case 6:
      contents.end_of_document = input.take<std::int64_t>();
      break;
    default: {
      const std::size_t at = input.take<std::uint8_t>() * std::size_t{input.take<std::uint8_t>()};
      const auto number = input.take<std::int64_t>();
      for (std::size_t i = 0; i < sizeof(number) && at + i < dataset.bytes.size(); ++i)
        dataset.bytes[at + i] = static_cast<std::byte>(number >> 8 * i & 0xFF);
    }
  }
}

void write(const Contents& contents, bool fits_checksums, const std::string& path) {
  hdf5::File file = hdf5::File::create(path);
  file.set_attribute("/", "format", contents.format);
  file.set_attribute("/", "version", contents.version);
  file.set_attribute("/", "vocab_size", contents.vocab_size);
  file.set_attribute("/", "end_of_document", contents.end_of_document);
  file.set_attribute("/", "tokenizer", "bytes");
  const auto bytes_of = [&](const std::string& name) -> std::span<const std::byte> {
    for (const StoredDataset& dataset : contents.datasets)
      if (dataset.name == name) return dataset.bytes;
    return {};
  };
  for (const StoredDataset& dataset : contents.datasets) {
    if (!dataset.is_there) continue;
    const bool is_mapped =
        dataset.name.ends_with("/tokens") || dataset.name.ends_with("/loss_mask");
    hdf5::Dataset made = file.create_dataset(
        dataset.name, dataset.shape, dataset.type,
        {.layout = is_mapped ? hdf5::Layout::contiguous : hdf5::Layout::chunked});
    std::vector<std::byte> bytes = dataset.bytes;
    const std::string group = dataset.name.substr(0, dataset.name.rfind('/') + 1);
    if (fits_checksums && dataset.name.ends_with("checksums") && bytes.size() == 8) {
      const bool is_mask = dataset.name.ends_with("mask_checksums");
      const std::uint64_t sum = checksum_of(bytes_of(group + (is_mask ? "loss_mask" : "tokens")));
      std::memcpy(bytes.data(), &sum, sizeof(sum));
    }
    if (dataset.shape.numel() > 0) made.write(bytes.data());
    if (is_mapped) made.set_attribute("xxh3", checksum_text(checksum_of(dataset.bytes)));
  }
}

void read_all(const std::string& path) {
  const TokenFile file(path);
  for (const Split split : {Split::train, Split::valid}) {
    const std::vector<std::int64_t> offsets = file.document_offsets(split);
    if (offsets.back() != file.num_tokens(split) || !std::ranges::is_sorted(offsets)) std::abort();
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.num_tokens(split)));
    std::vector<std::uint8_t> mask(tokens.size());
    file.read(split, 0, tokens);
    for (const std::int32_t token : tokens)
      if (token < 0 || token >= file.vocab_size()) std::abort();
    file.read_mask(split, 0, mask);
  }
  file.verify();
}

}  // namespace

// All zeros would leave out a dataset; these change a byte to what it is, and numbers to others.
std::vector<std::string> switchyard::fuzz::seeds() {
  return {std::string(1, '\0'), std::string("\1\3\7\0\0\0\0\0\0\0\0\0\0", 13),
          std::string("\1\1\2\14\0\2\7\1\1\5\0\0\0\0\0\0\0", 17),
          std::string("\0\0\5\0\2\0\0\0\0\0\0\1\3\4\4", 15)};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Contents whole = make_contents();
  Contents contents = whole;
  Input input(data, size);
  const bool fits_checksums = input.take<std::uint8_t>() % 2 == 1;
  for (int i = 0; i < 8 && !input.is_empty(); ++i) change(contents, input);
  const std::filesystem::path folder = std::filesystem::exists("/dev/shm") ? "/dev/shm" : "/tmp";
  const std::string path =
      (folder / ("switchyard-fuzz-" + std::to_string(getpid()) + ".h5")).string();
  write(contents, fits_checksums, path);
  try {
    read_all(path);
  } catch (const Error&) {
  }
  std::filesystem::remove(path);
  return 0;
}
