#include "data/safetensors/header.hpp"

#include <fmt/core.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard::safetensors {

namespace {

using Json = nlohmann::json;

[[noreturn]] void refuse(const std::string& path, std::string_view error, const std::string& why) {
  throw DataError(fmt::format(
      "{}: not a sound safetensors file ({}): {}; copy or download it again", path, error, why));
}

// Names from files may hold anything.
std::string name_text(std::string_view name) {
  constexpr std::size_t most = 200;
  return Json(std::string(name.substr(0, most)))
      .dump(-1, ' ', true, Json::error_handler_t::replace);
}

// Reads the header as its JSON is parsed, so that no tree of values is built and a key that comes
// twice is seen.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderReader(std::string path) : path_(std::move(path)) {}

  Header take() { return std::move(header_); }

  bool null() override { return unexpected("null"); }
  bool boolean(bool /*value*/) override { return unexpected("true or false"); }
  bool number_integer(number_integer_t /*value*/) override {
    return unexpected("a negative number");
  }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override {
    return unexpected("a number that is not whole");
  }
  bool binary(binary_t& /*value*/) override { return unexpected("bytes"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::shape && place_ != Place::offsets) return unexpected("a number");
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      refuse(path_, "ValidationOverflow",
             fmt::format("tensor {} has a number of {}", name_text(tensor_.name), value));
    (place_ == Place::shape ? tensor_.shape : offsets_).push_back(static_cast<std::int64_t>(value));
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) {
      header_.metadata[key_] = value;
    } else if (place_ == Place::tensor && key_ == "dtype") {
      const std::optional<ElementType> type = choice_of<ElementType>(value);
      if (!type)
        refuse(path_, "InvalidHeaderDeserialization",
               fmt::format("tensor {} has dtype {}, which is none", name_text(tensor_.name),
                           name_text(value)));
      tensor_.type = *type;
    } else {
      return unexpected("a text");
    }
    return true;
  }

  bool start_object(std::size_t /*elements*/) override {
    if (place_ == Place::outside) {
      place_ = Place::names;
    } else if (place_ == Place::names) {
      place_ = key_ == "__metadata__" ? Place::metadata : Place::tensor;
      tensor_ = {};
      tensor_.name = key_;
      offsets_.clear();
    } else {
      return unexpected("an object");
    }
    keys_.clear();
    return true;
  }

  bool key(string_t& value) override {
    key_ = value;
    if (!(place_ == Place::names ? names_ : keys_).insert(value).second)
      refuse(path_, "InvalidHeaderDeserialization",
             fmt::format("{} comes twice", name_text(value)));
    if (place_ == Place::tensor && value != "dtype" && value != "shape" && value != "data_offsets")
      refuse(path_, "InvalidHeaderDeserialization",
             fmt::format("tensor {} has a key {}, which is none", name_text(tensor_.name),
                         name_text(value)));
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor) add_tensor();
    place_ = place_ == Place::names ? Place::end : Place::names;
    return true;
  }

  bool start_array(std::size_t /*elements*/) override {
    if (place_ != Place::tensor || key_ == "dtype") return unexpected("a list");
    place_ = key_ == "shape" ? Place::shape : Place::offsets;
    return true;
  }
  bool end_array() override {
    place_ = Place::tensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const Json::exception& /*error*/) override {
    refuse(path_, "InvalidHeaderDeserialization",
           fmt::format("its header is no JSON, at byte {}", position));
  }

 private:
  enum class Place : std::uint8_t { outside, names, metadata, tensor, shape, offsets, end };

  bool unexpected(std::string_view what) const {
    refuse(path_, "InvalidHeaderDeserialization",
           fmt::format("its header has {} in a wrong place, behind {}", what, name_text(key_)));
  }

  void add_tensor() {
    if (keys_.size() != 3)
      refuse(path_, "InvalidHeaderDeserialization",
             fmt::format("tensor {} needs dtype, shape and data_offsets", name_text(tensor_.name)));
    if (offsets_.size() != 2 || offsets_[0] > offsets_[1])
      refuse(path_, "InvalidOffset",
             fmt::format("tensor {} needs two data_offsets that ascend", name_text(tensor_.name)));
    tensor_.begin = offsets_[0];
    tensor_.end = offsets_[1];
    header_.tensors.push_back(std::move(tensor_));
  }

  std::string path_;
  Header header_;
  Place place_ = Place::outside;
  TensorInfo tensor_;
  std::vector<std::int64_t> offsets_;
  std::string key_;
  std::set<std::string> names_, keys_;
};

// None if it is beyond 63 bits.
std::optional<std::int64_t> bytes_of(const TensorInfo& tensor) {
  std::int64_t bytes = size_of(tensor.type);
  for (const std::int64_t dim : tensor.shape)
    if (__builtin_mul_overflow(bytes, dim, &bytes)) return std::nullopt;
  return bytes;
}

void check_tensors(Header& header, std::int64_t data_bytes, const std::string& path) {
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const TensorInfo& a, const TensorInfo& b) {
                     return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
                   });
  std::int64_t end = 0;
  for (const TensorInfo& tensor : header.tensors) {
    const std::optional<std::int64_t> bytes = bytes_of(tensor);
    if (!bytes)
      refuse(path, "ValidationOverflow",
             fmt::format("tensor {} of shape {} has more bytes than can be counted",
                         name_text(tensor.name), shape_text(tensor.shape)));
    if (*bytes != tensor.num_bytes())
      refuse(path, "TensorInvalidInfo",
             fmt::format("tensor {} of type {} and shape {} has {} bytes, and its place has {}",
                         name_text(tensor.name), name_of(tensor.type), shape_text(tensor.shape),
                         *bytes, tensor.num_bytes()));
    if (tensor.begin != end)
      refuse(path, "InvalidOffset",
             fmt::format("tensor {} begins at byte {} of the data, and the one before ends at {}",
                         name_text(tensor.name), tensor.begin, end));
    end = tensor.end;
  }
  if (end != data_bytes)
    refuse(path, "MetadataIncompleteBuffer",
           fmt::format("its tensors have {} bytes, and the file has {} for them", end, data_bytes));
}

}  // namespace

std::int64_t size_of(ElementType type) {
  switch (type) {
    case ElementType::boolean:
    case ElementType::u8:
    case ElementType::i8:
    case ElementType::f8_e4m3:
    case ElementType::f8_e5m2:
    case ElementType::f8_e8m0:
      return 1;
    case ElementType::i16:
    case ElementType::u16:
    case ElementType::f16:
    case ElementType::bf16:
      return 2;
    case ElementType::i32:
    case ElementType::u32:
    case ElementType::f32:
      return 4;
    case ElementType::i64:
    case ElementType::u64:
    case ElementType::f64:
      return 8;
  }
  return 1;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::int64_t header_bytes(std::string_view beginning, std::int64_t file_bytes,
                          const std::string& path) {
  if (file_bytes < length_bytes || std::ssize(beginning) < length_bytes)
    refuse(path, "HeaderTooSmall",
           fmt::format("it has {} bytes, and a header needs 8 and more", file_bytes));
  std::uint64_t bytes = 0;
  for (std::size_t i = 8; i-- > 0;) bytes = bytes << 8 | static_cast<unsigned char>(beginning[i]);
  if (bytes > static_cast<std::uint64_t>(most_header_bytes))
    refuse(path, "HeaderTooLarge",
           fmt::format("its header is to have {} bytes, and {} are the most", bytes,
                       most_header_bytes));
  const auto length = static_cast<std::int64_t>(bytes);
  if (length > file_bytes - length_bytes)
    refuse(path, "InvalidHeaderLength",
           fmt::format("its header is to have {} bytes, and the file has {}", length, file_bytes));
  return length;
}

Header parse_header(std::string_view json, std::int64_t data_bytes, const std::string& path) {
  if (json.empty() || json.front() != '{')
    refuse(path, "InvalidHeaderStart", "its header does not begin with '{'");
  HeaderReader reader(path);
  Json::sax_parse(json.begin(), json.end(), &reader);
  Header header = reader.take();
  check_tensors(header, data_bytes, path);
  return header;
}

std::string write_header(std::vector<TensorInfo>& tensors,
                         const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) text += "\"__metadata__\":" + Json(metadata).dump();
  std::set<std::string_view> names;
  std::int64_t at = 0;
  for (TensorInfo& tensor : tensors) {
    const std::optional<std::int64_t> bytes = bytes_of(tensor);
    expect(bytes.has_value(), "a tensor of countable size");
    expect(names.insert(tensor.name).second, "every name once");
    tensor.begin = at;
    tensor.end = at += *bytes;
    text += fmt::format(R"({}{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                        text.size() > 1 ? "," : "", Json(tensor.name).dump(), name_of(tensor.type),
                        fmt::join(tensor.shape, ","), tensor.begin, tensor.end);
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string length;
  for (std::uint64_t rest = text.size(); length.size() < 8; rest >>= 8)
    length.push_back(static_cast<char>(rest & 0xff));
  return length + text;
}

}  // namespace switchyard::safetensors
