#include "trainer/families/config_json.hpp"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard {

using Json = nlohmann::ordered_json;

struct ConfigJson::Content {
  Json json = Json::object();
  mutable std::set<std::string, std::less<>> read;

  // Null if there is none.
  const Json* find(std::string_view key) const {
    read.emplace(key);
    const auto found = json.find(std::string(key));
    return found == json.end() || found->is_null() ? nullptr : &*found;
  }
};

namespace {

[[noreturn]] void refuse_type(const std::string& path, std::string_view key,
                              std::string_view what) {
  throw DataError(fmt::format("{}: {} must be {}", path, key, what));
}

template <class Value>
Value missing(const std::string& path, std::string_view key, const std::optional<Value>& fallback) {
  if (!fallback) throw DataError(fmt::format("{}: {} is missing", path, key));
  return *fallback;
}

}  // namespace

ConfigJson::ConfigJson() : content_(std::make_unique<Content>()) {}

ConfigJson::ConfigJson(const std::string& text, std::string path)
    : path_(std::move(path)), content_(std::make_unique<Content>()) {
  content_->json = Json::parse(text, nullptr, false);
  if (!content_->json.is_object())
    throw DataError(fmt::format("{}: is no JSON object; copy or download it again", path_));
}

ConfigJson::ConfigJson(const ConfigJson& other)
    : path_(other.path_), content_(std::make_unique<Content>(*other.content_)) {}
ConfigJson::ConfigJson(ConfigJson&&) noexcept = default;
ConfigJson& ConfigJson::operator=(ConfigJson&&) noexcept = default;
ConfigJson::~ConfigJson() = default;

bool ConfigJson::has(std::string_view key) const {
  return content_->find(key) != nullptr;
}

bool ConfigJson::is_mentioned(std::string_view key) const {
  return content_->json.contains(std::string(key));
}

std::int64_t ConfigJson::integer(std::string_view key, std::optional<std::int64_t> fallback) const {
  const Json* value = content_->find(key);
  if (value == nullptr) return missing(path_, key, fallback);
  constexpr double most = 1e15;
  const double number = value->is_number() ? value->get<double>() : 0.5;
  if (!(number >= -most && number <= most) ||
      number != static_cast<double>(static_cast<std::int64_t>(number)))
    refuse_type(path_, key, "a whole number");
  return static_cast<std::int64_t>(number);
}

double ConfigJson::real(std::string_view key, std::optional<double> fallback) const {
  const Json* value = content_->find(key);
  if (value == nullptr) return missing(path_, key, fallback);
  if (!value->is_number()) refuse_type(path_, key, "a number");
  return value->get<double>();
}

bool ConfigJson::flag(std::string_view key, std::optional<bool> fallback) const {
  const Json* value = content_->find(key);
  if (value == nullptr) return missing(path_, key, fallback);
  if (!value->is_boolean()) refuse_type(path_, key, "true or false");
  return value->get<bool>();
}

std::string ConfigJson::text(std::string_view key, std::optional<std::string> fallback) const {
  const Json* value = content_->find(key);
  if (value == nullptr) return missing(path_, key, fallback);
  if (!value->is_string()) refuse_type(path_, key, "a text");
  return value->get<std::string>();
}

std::vector<std::int64_t> ConfigJson::integers(std::string_view key) const {
  std::vector<std::int64_t> numbers;
  const Json* value = content_->find(key);
  if (value == nullptr) return numbers;
  if (!value->is_array()) refuse_type(path_, key, "a list of whole numbers");
  for (const Json& element : *value) {
    if (!element.is_number_integer()) refuse_type(path_, key, "a list of whole numbers");
    numbers.push_back(element.get<std::int64_t>());
  }
  return numbers;
}

std::vector<std::int64_t> ConfigJson::one_or_more_integers(std::string_view key) const {
  const Json* value = content_->find(key);
  if (value != nullptr && !value->is_array()) return {integer(key)};
  return integers(key);
}

std::vector<std::string> ConfigJson::texts(std::string_view key) const {
  std::vector<std::string> words;
  const Json* value = content_->find(key);
  if (value == nullptr) return words;
  if (!value->is_array()) refuse_type(path_, key, "a list of texts");
  for (const Json& element : *value) {
    if (!element.is_string()) refuse_type(path_, key, "a list of texts");
    words.push_back(element.get<std::string>());
  }
  return words;
}

ConfigJson ConfigJson::object(std::string_view key) const {
  const Json* value = content_->find(key);
  ConfigJson child;
  child.path_ = fmt::format("{}: {}", path_, key);
  if (value == nullptr) return child;
  if (!value->is_object()) refuse_type(path_, key, "an object");
  child.content_->json = *value;
  return child;
}

void ConfigJson::refuse(std::string_view key, const std::string& why) const {
  const Json* value = content_->find(key);
  throw DataError(fmt::format("{}: {} is {}: {}", path_, key,
                              value == nullptr ? "missing" : value->dump(), why));
}

std::vector<std::string> ConfigJson::unread_keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : content_->json.items())
    if (!value.is_null() && !content_->read.contains(key)) keys.push_back(key);
  return keys;
}

void ConfigJson::set(std::string_view key, std::int64_t value) {
  content_->json[std::string(key)] = value;
}
void ConfigJson::set(std::string_view key, double value) {
  content_->json[std::string(key)] = value;
}
void ConfigJson::set_flag(std::string_view key, bool value) {
  content_->json[std::string(key)] = value;
}
void ConfigJson::set_text(std::string_view key, std::string_view value) {
  content_->json[std::string(key)] = value;
}
void ConfigJson::set_texts(std::string_view key, const std::vector<std::string>& values) {
  content_->json[std::string(key)] = values;
}
void ConfigJson::set_integers(std::string_view key, const std::vector<std::int64_t>& values) {
  content_->json[std::string(key)] = values;
}
void ConfigJson::set_object(std::string_view key, const ConfigJson& value) {
  content_->json[std::string(key)] = value.content_->json;
}
void ConfigJson::set_null(std::string_view key) {
  content_->json[std::string(key)] = nullptr;
}

void ConfigJson::copy(std::string_view key, const ConfigJson& from) {
  const auto found = from.content_->json.find(std::string(key));
  if (found != from.content_->json.end()) content_->json[std::string(key)] = *found;
}

std::string ConfigJson::dump() const {
  return content_->json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace switchyard
