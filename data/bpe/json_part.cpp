#include "data/bpe/json_part.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard::bpe {

using nlohmann::json;

JsonPart::JsonPart(const json& value, std::string place, std::string_view source)
    : value_(value), place_(std::move(place)), source_(source) {}

void JsonPart::refuse(std::string_view what) const {
  throw DataError(fmt::format("{}: {}: {}", source_, place_.empty() ? "the file" : place_, what));
}

void JsonPart::refuse_type(Names known) const {
  refuse(fmt::format("is of type {}, which this program does not know; it knows {}", type(),
                     fmt::join(known, ", ")));
}

bool JsonPart::is_null() const {
  return value_.is_null();
}

JsonPart JsonPart::operator[](const char* key) const {
  static const json absent;
  const bool is_there = value_.is_object() && value_.contains(key);
  return {is_there ? value_.at(key) : absent,
          place_.empty() ? key : fmt::format("{}.{}", place_, key), source_};
}

std::vector<JsonPart> JsonPart::elements() const {
  if (!value_.is_array()) refuse("must be a list");
  std::vector<JsonPart> parts;
  for (const json& element : value_)
    parts.emplace_back(element, fmt::format("{}[{}]", place_, parts.size()), source_);
  return parts;
}

std::string JsonPart::text() const {
  if (!value_.is_string()) refuse("must be a text");
  return value_.get<std::string>();
}

bool JsonPart::flag(bool absent) const {
  if (is_null()) return absent;
  if (!value_.is_boolean()) refuse("must be true or false");
  return value_.get<bool>();
}

std::int64_t JsonPart::number() const {
  constexpr auto most = std::numeric_limits<std::int32_t>::max();
  if (!value_.is_number_integer() ||
      (value_.is_number_unsigned() && value_.get<std::uint64_t>() > most))
    refuse("must be a whole number of 31 bits");
  return value_.get<std::int64_t>();
}

void JsonPart::expect_keys(Names names) const {
  if (!value_.is_object()) refuse("must be an object");
  for (const auto& [key, ignored] : value_.items())
    if (std::ranges::find(names, key) == names.end())
      refuse(fmt::format("has the key \"{}\", which this program does not know", key));
}

}  // namespace switchyard::bpe
