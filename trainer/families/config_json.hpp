// A config.json of Hugging Face's libraries: reading keys with their defaults, and writing one.
// What was never read is remembered, so that nothing is passed over in silence. Errors are
// DataError with the file, the key and what it holds.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

class ConfigJson {
 public:
  ConfigJson();  // an empty object
  ConfigJson(const std::string& text, std::string path);
  ConfigJson(const ConfigJson& other);
  ConfigJson(ConfigJson&&) noexcept;
  ConfigJson& operator=(ConfigJson&&) noexcept;
  ~ConfigJson();

  const std::string& path() const { return path_; }
  bool has(std::string_view key) const;           // and it is not null
  bool is_mentioned(std::string_view key) const;  // be it null
  // The value; the fallback if the key is not there or null; DataError without one.
  std::int64_t integer(std::string_view key, std::optional<std::int64_t> fallback = {}) const;
  double real(std::string_view key, std::optional<double> fallback = {}) const;
  bool flag(std::string_view key, std::optional<bool> fallback = {}) const;
  std::string text(std::string_view key, std::optional<std::string> fallback = {}) const;
  std::vector<std::int64_t> integers(std::string_view key) const;              // none: empty
  std::vector<std::int64_t> one_or_more_integers(std::string_view key) const;  // none: empty
  std::vector<std::string> texts(std::string_view key) const;
  ConfigJson object(std::string_view key) const;
  // DataError: the key's value is not what this program computes.
  [[noreturn]] void refuse(std::string_view key, const std::string& why) const;
  // Keys with a value for which nobody asked.
  std::vector<std::string> unread_keys() const;

  void set(std::string_view key, std::int64_t value);
  void set(std::string_view key, double value);
  void set_flag(std::string_view key, bool value);
  void set_text(std::string_view key, std::string_view value);
  void set_texts(std::string_view key, const std::vector<std::string>& values);
  void set_integers(std::string_view key, const std::vector<std::int64_t>& values);
  void set_object(std::string_view key, const ConfigJson& value);
  void set_null(std::string_view key);
  // The value that `from` has under this key, whatever it is; nothing if it has none.
  void copy(std::string_view key, const ConfigJson& from);
  std::string dump() const;

 private:
  struct Content;
  std::string path_;
  std::unique_ptr<Content> content_;
};

}  // namespace switchyard
