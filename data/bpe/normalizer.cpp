#include "data/bpe/normalizer.hpp"

#include <fmt/core.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard::bpe {

namespace {

utf8proc_option_t options_of(UnicodeForm form) {
  const bool composes = form == UnicodeForm::nfc || form == UnicodeForm::nfkc;
  const bool is_compatible = form == UnicodeForm::nfkc || form == UnicodeForm::nfkd;
  return static_cast<utf8proc_option_t>(UTF8PROC_STABLE |
                                        (composes ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                                        (is_compatible ? UTF8PROC_COMPAT : 0));
}

std::string apply(UnicodeForm form, std::string text) {
  // ASCII has all normal forms.
  if (std::ranges::all_of(text, [](char c) { return static_cast<signed char>(c) >= 0; }))
    return text;
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &mapped, options_of(form));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
  if (length < 0)
    throw DataError(fmt::format("a text of {} bytes cannot be normalised: {}", text.size(),
                                utf8proc_errmsg(length)));
  return {reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(length)};
}

std::string apply(const Prepend& prepend, std::string text) {
  return prepend.text + text;
}

std::string apply(const Replace& replace, std::string text) {
  std::string result;
  std::size_t done = 0;
  replace.pattern.for_each_match(text, [&](std::size_t begin, std::size_t end) {
    result.append(text, done, begin - done);
    result += replace.by;
    done = end;
  });
  return result.append(text, done);
}

}  // namespace

std::string Normalizer::operator()(std::string_view text) const {
  std::string result(text);
  for (const NormalizerStep& step : steps_) {
    if (result.empty()) break;
    result = std::visit([&](const auto& kind) { return apply(kind, std::move(result)); }, step);
  }
  return result;
}

}  // namespace switchyard::bpe
