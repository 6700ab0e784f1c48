// Our own datasets inside a valid HDF5 container: a token file with a loss mask, some of whose
// datasets and attributes are changed as the input says (whether checksums are made anew, then one
// change after the other). One that is opened is read as a whole.

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "data/files/checksum.hpp"
#include "data/hdf5/hdf5.hpp"
#include "data/token_file.hpp"
#include "tensor/error.hpp"
#include "tests/fuzz/changed_container.hpp"
#include "tests/fuzz/fuzz_target.hpp"

namespace {

using namespace switchyard;        // NOLINT
using namespace switchyard::fuzz;  // NOLINT

Container make_contents() {
  const auto tokenizer = make_byte_tokenizer();
  const MemoryFolder folder;
  const std::string path = folder.path() + "/whole.h5";
  {
    TokenFileWriter writer(folder.path(), *tokenizer);
    for (const Split split : {Split::train, Split::valid}) {
      const std::vector<std::int32_t> tokens = {104, 101, 108, 108, 111};
      writer.add_document(split, tokens, std::vector<std::uint8_t>{0, 0, 1, 1, 1});
      writer.add_document(split, tokens);
    }
    writer.write(path, "[]");
  }
  Container contents;
  {
    const hdf5::File file = hdf5::File::open(path);
    contents.datasets = datasets_in(file);
    contents.integers = {{"version", 2},
                         {"vocab_size", file.integer_attribute("/", "vocab_size")},
                         {"end_of_document", file.integer_attribute("/", "end_of_document")}};
    contents.texts = {{"format", "switchyard tokens"}, {"tokenizer", "bytes"}};
  }
  return contents;
}

bool is_mapped(const StoredDataset& dataset) {
  return dataset.name.ends_with("/tokens") || dataset.name.ends_with("/loss_mask");
}

void put_numbers(hdf5::Dataset& made, const StoredDataset& dataset) {
  if (dataset.shape.numel() > 0) made.write(dataset.bytes.data());
  if (is_mapped(dataset)) made.set_attribute("xxh3", checksum_text(checksum_of(dataset.bytes)));
}

void create(hdf5::File& file, const StoredDataset& dataset) {
  hdf5::Dataset made = file.create_dataset(
      dataset.name, dataset.shape, dataset.type,
      {.layout = is_mapped(dataset) ? hdf5::Layout::contiguous : hdf5::Layout::chunked});
  put_numbers(made, dataset);
}

void rewrite(hdf5::File& file, const StoredDataset& dataset) {
  hdf5::Dataset made = file.open_dataset(dataset.name);
  put_numbers(made, dataset);
}

// Those of blocks, where there is one block of them.
void make_checksums_anew(Container& contents) {
  const auto bytes_of = [&](const std::string& name) -> std::span<const std::byte> {
    for (const StoredDataset& dataset : contents.datasets)
      if (dataset.name == name) return dataset.bytes;
    return {};
  };
  for (StoredDataset& dataset : contents.datasets) {
    if (!dataset.name.ends_with("checksums") || dataset.bytes.size() != 8) continue;
    const std::string group = dataset.name.substr(0, dataset.name.rfind('/') + 1);
    const bool is_mask = dataset.name.ends_with("mask_checksums");
    const std::uint64_t sum = checksum_of(bytes_of(group + (is_mask ? "loss_mask" : "tokens")));
    std::memcpy(dataset.bytes.data(), &sum, sizeof(sum));
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
  static const ChangedFiles files(make_contents(), create, rewrite);
  Container contents = files.whole();
  Input input(data, size);
  const bool fits_checksums = input.take<std::uint8_t>() % 2 == 1;
  for (int i = 0; i < 8 && !input.is_empty(); ++i) change(contents, input);
  if (fits_checksums) make_checksums_anew(contents);
  files.write(contents);
  try {
    read_all(files.path());
  } catch (const Error&) {
  }
  return 0;
}
