// What an HDF5 file of ours holds, to be changed as a fuzzer's input says and written as a valid
// container: datasets of numbers and the file's own attributes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>
#include <string>
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

template <class WriteDataset>
void write(const Container& contents, const std::string& path, const WriteDataset& write_dataset) {
  hdf5::File file = hdf5::File::create(path);
  for (const auto& [key, value] : contents.integers) file.set_attribute("/", key, value);
  for (const auto& [key, value] : contents.texts) file.set_attribute("/", key, value);
  for (const StoredDataset& dataset : contents.datasets)
    if (dataset.is_there) write_dataset(file, dataset);
}

}  // namespace switchyard::fuzz
