// Enums whose values have names: the choices of a configuration key or of an option. Beside such an
// enum stand the names, in the order of its values:
//     enum class Precision : std::uint8_t { fp32, bf16 };
//     constexpr std::array<std::string_view, 2> choice_names(Precision) {
//       return {"fp32", "bf16"};
//     }
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

namespace switchyard {

template <class Value>
concept Choice = std::is_enum_v<Value> && requires(Value value) {
  choice_names(value).size();
};

template <Choice Value>
constexpr std::string_view name_of(Value value) {
  return choice_names(value)[static_cast<std::size_t>(value)];
}

// All names, where they stay.
template <Choice Value>
inline constexpr auto names_of_choices = choice_names(Value{});

// The value of that name, or nothing.
template <Choice Value>
constexpr std::optional<Value> choice_of(std::string_view name) {
  constexpr const auto& names = names_of_choices<Value>;
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return static_cast<Value>(i);
  return std::nullopt;
}

}  // namespace switchyard
