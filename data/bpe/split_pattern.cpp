#include "data/bpe/split_pattern.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/core.h>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <limits>
#include <new>

#include "data/bpe/pattern_dialect.hpp"
#include "tensor/error.hpp"

namespace switchyard::bpe {

namespace {

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
template <class Object>
using Owned = std::unique_ptr<Object, Free>;

std::string reason_of(int error) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

}  // namespace

struct SplitPattern::State {
  Owned<pcre2_code> code;
  std::string pattern;
  std::string source;
};

SplitPattern::SplitPattern(std::string_view pattern, PatternDialect dialect,
                           std::string_view source)
    : state_(std::make_unique<State>()) {
  const std::string translated = pcre2_pattern(pattern, dialect, source);
  const std::uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY |
                                (dialect == PatternDialect::oniguruma ? PCRE2_MULTILINE : 0U);
  int error = 0;
  PCRE2_SIZE offset = 0;
  state_->code.reset(
      pcre2_compile(units(translated), translated.size(), options, &error, &offset, nullptr));
  if (!state_->code)
    throw DataError(fmt::format("{}: the pattern {} cannot be used: {} (byte {} of {})", source,
                                pattern, reason_of(error), offset, translated));
  state_->pattern = pattern;
  state_->source = source;
  pcre2_jit_compile(state_->code.get(), PCRE2_JIT_COMPLETE);  // interpreted where it cannot
}

SplitPattern::~SplitPattern() = default;
SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;
SplitPattern& SplitPattern::operator=(SplitPattern&&) noexcept = default;

void SplitPattern::for_each_match(std::string_view text,
                                  const std::function<void(std::size_t, std::size_t)>& take) const {
  const Owned<pcre2_match_data> data(pcre2_match_data_create(1, nullptr));
  const Owned<pcre2_match_context> context(pcre2_match_context_create(nullptr));
  if (!data || !context) throw std::bad_alloc();
  // Steps of one match: a few for each byte are usual, as after a long run of spaces.
  constexpr std::size_t least_steps = 10'000'000, steps_per_byte = 16;
  pcre2_set_match_limit(context.get(), static_cast<std::uint32_t>(std::min<std::size_t>(
                                           std::max(least_steps, text.size() * steps_per_byte),
                                           std::numeric_limits<std::uint32_t>::max())));
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
  for (std::size_t at = 0; at < text.size();) {
    int found = pcre2_match(state_->code.get(), units(text), text.size(), at, PCRE2_NO_UTF_CHECK,
                            data.get(), context.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT)
      found = pcre2_match(state_->code.get(), units(text), text.size(), at,
                          PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(), context.get());
    if (found == PCRE2_ERROR_NOMATCH) return;
    if (found < 0)
      throw DataError(
          fmt::format("{}: the pattern {} cannot be matched with a text of {} bytes: {}",
                      state_->source, state_->pattern, text.size(), reason_of(found)));
    if (range[1] > range[0]) {
      take(range[0], range[1]);
      at = range[1];
    } else {
      at = range[1] + 1;
      while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) ++at;
    }
  }
}

std::string quoted_pattern(std::string_view text) {
  constexpr std::string_view special = R"(\^$.[]|()?*+{}-#/)";
  std::string pattern;
  for (const char c : text) {
    if (special.find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace switchyard::bpe
