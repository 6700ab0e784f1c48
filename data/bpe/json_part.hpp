// A part of a JSON file and where it stands in it, so that every complaint names its place. Borrows
// the parsed file and the name of its source. DataError for what is not as it must be.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::bpe {

class JsonPart {
 public:
  using Names = std::initializer_list<std::string_view>;

  JsonPart(const nlohmann::json& value, std::string place, std::string_view source);

  [[noreturn]] void refuse(std::string_view what) const;
  [[noreturn]] void refuse_type(Names known) const;
  const nlohmann::json& value() const { return value_; }
  std::string_view source() const { return source_; }
  bool is_null() const;

  JsonPart operator[](const char* key) const;  // null where there is no such key
  std::vector<JsonPart> elements() const;      // of a list
  std::string text() const;
  bool flag(bool absent) const;  // `absent` if it is null
  std::int64_t number() const;   // of at most 31 bits
  std::string type() const { return (*this)["type"].text(); }
  // Refuses other keys than these: they might change what these mean.
  void expect_keys(Names names) const;

 private:
  const nlohmann::json& value_;
  std::string place_;
  std::string_view source_;
};

}  // namespace switchyard::bpe
