// What an HDF5 file of ours holds, to be changed as a fuzzer's input says and written as a valid
// container: datasets of numbers and the file's own attributes. A file is made once; for each input
// HDF5 changes in a copy of its bytes what differs, which is several times quicker than a new one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "data/hdf5/hdf5.hpp"

namespace switchyard::fuzz {

struct StoredDataset {
  std::string name;
  Shape shape;
  hdf5::ElementType type;
  std::vector<std::byte> bytes;
  bool is_there = true;
};

struct Container {
  std::vector<StoredDataset> datasets;
  std::map<std::string, std::int64_t> integers;
  std::map<std::string, std::string> texts;
};

inline std::vector<StoredDataset> datasets_in(const hdf5::File& file) {
  std::vector<StoredDataset> datasets;
  for (const std::string& name : file.list_datasets()) {
    const hdf5::Dataset dataset = file.open_dataset(name);
    StoredDataset stored{name, dataset.shape(), dataset.type(), {}};
    stored.bytes.resize(
        static_cast<std::size_t>(dataset.shape().numel() * size_of(dataset.type())));
    dataset.read(stored.bytes.data());
    datasets.push_back(std::move(stored));
  }
  return datasets;
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

inline void reshape(StoredDataset& dataset, const Shape& shape) {
  dataset.shape = shape;
  dataset.bytes.resize(static_cast<std::size_t>(shape.numel() * size_of(dataset.type)));
}

inline std::int64_t& integer_of(Container& contents, Input& input) {
  return std::next(contents.integers.begin(),
                   input.take<std::uint8_t>() % std::ssize(contents.integers))
      ->second;
}

// One of them, or an attribute: taken away, of another type or shape, or with other numbers.
inline void change(Container& contents, Input& input) {
  StoredDataset& dataset = contents.datasets[input.take<std::uint8_t>() % contents.datasets.size()];
  switch (input.take<std::uint8_t>() % 9) {
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
    case 8: {
      const auto sizes = input.take<std::uint32_t>();
      reshape(dataset, {sizes & 7, sizes >> 8 & 7, sizes >> 16 & 7, sizes >> 24 & 7});
      break;
    }
    case 4:
      integer_of(contents, input) = input.take<std::int8_t>();
      break;
    case 5:
    case 6:
      integer_of(contents, input) = input.take<std::int64_t>();
      break;
    default: {
      const std::size_t at = input.take<std::uint8_t>() * std::size_t{input.take<std::uint8_t>()};
      const auto number = input.take<std::int64_t>();
      for (std::size_t i = 0; i < sizeof(number) && at + i < dataset.bytes.size(); ++i)
        dataset.bytes[at + i] = static_cast<std::byte>(number >> 8 * i & 0xFF);
    }
  }
}

// In memory, where the system has such a place: HDF5 opens no file without a name.
class MemoryFolder {
 public:
  MemoryFolder() {
    namespace fs = std::filesystem;
    const fs::path place = fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path();
    path_ = (place / "switchyard-XXXXXX").string();
    if (mkdtemp(path_.data()) == nullptr) std::abort();
  }
  ~MemoryFolder() { std::filesystem::remove_all(path_); }
  MemoryFolder(const MemoryFolder&) = delete;
  MemoryFolder& operator=(const MemoryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A file that holds `whole`. create(file, dataset) makes a dataset with its numbers,
// rewrite(file, dataset) gives it others.
template <class Create, class Rewrite>
class ChangedFiles {
 public:
  ChangedFiles(Container whole, Create create, Rewrite rewrite)
      : whole_(std::move(whole)), create_(std::move(create)), rewrite_(std::move(rewrite)) {
    hdf5::File file = hdf5::File::create(path());
    for (const auto& [key, value] : whole_.integers) file.set_attribute("/", key, value);
    for (const auto& [key, value] : whole_.texts) file.set_attribute("/", key, value);
    for (const StoredDataset& dataset : whole_.datasets) create_(file, dataset);
    file.close();
    std::ifstream made(path(), std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(made), {});
  }

  const Container& whole() const { return whole_; }
  std::string path() const { return folder_.path() + "/file.h5"; }

  // Into path().
  void write(const Container& contents) const {
    std::ofstream(path(), std::ios::binary) << bytes_;
    hdf5::File file = hdf5::File::open(path(), hdf5::File::Access::change);
    for (const auto& [key, value] : contents.integers)
      if (whole_.integers.at(key) != value) file.set_attribute("/", key, value);
    for (std::size_t i = 0; i < contents.datasets.size(); ++i) {
      const StoredDataset &now = contents.datasets[i], &before = whole_.datasets[i];
      const bool is_alike = now.type == before.type && now.shape == before.shape;
      if (!now.is_there || !is_alike) file.remove(now.name);
      if (now.is_there && !is_alike) create_(file, now);
      if (now.is_there && is_alike && now.bytes != before.bytes) rewrite_(file, now);
    }
    file.close();
  }

 private:
  Container whole_;
  Create create_;
  Rewrite rewrite_;
  MemoryFolder folder_;
  std::string bytes_;
};

}  // namespace switchyard::fuzz
