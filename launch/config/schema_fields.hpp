// How the tables of keys name a field and its legal numbers.
#pragma once

#include <type_traits>

#include "launch/config/schema.hpp"

namespace switchyard {

// What a chain of members leads to: reach<&Config::model, &ModelConfig::hidden>(config).
template <auto first, auto... rest, class Object>
auto& reach(Object& object) {
  if constexpr (sizeof...(rest) == 0) {
    return object.*first;
  } else {
    return reach<rest...>(object.*first);
  }
}

template <class Value>
inline constexpr bool is_list_of_choices = false;
template <Choice Value>
inline constexpr bool is_list_of_choices<std::vector<Value>> = true;

// A field by a function without captures from Config& to it.
template <class Reach>
Field field_at(Reach) {
  using Value = std::remove_cvref_t<decltype(Reach{}(std::declval<Config&>()))>;
  if constexpr (Choice<Value>)
    return AccessChoice<ChoiceRef>{[](Config& config) { return ChoiceRef(Reach{}(config)); },
                                   names_of_choices<Value>};
  else if constexpr (is_list_of_choices<Value>)
    return AccessChoice<ChoiceListRef>{
        [](Config& config) { return ChoiceListRef(Reach{}(config)); },
        names_of_choices<typename Value::value_type>};
  else
    return static_cast<Access<Value>>([](Config& config) -> Value& { return Reach{}(config); });
}

// field<&Config::model, &ModelConfig::hidden>(): how to reach a field in any Config.
template <auto... members>
Field field() {
  return field_at([](Config& config) -> decltype(auto) { return reach<members...>(config); });
}

inline constexpr double unlimited = std::numeric_limits<double>::infinity();
inline constexpr double million = 1e6;
inline constexpr double most_tokens = 2147483647;  // token numbers are 32-bit

inline Range from(double least, double most = unlimited) {
  return {.least = least, .most = most};
}
inline Range above(double least) {
  return {.least = least, .least_is_open = true};
}
// A share or probability: 0 is legal, 1 is not.
inline Range rate() {
  return {.least = 0, .most = 1, .most_is_open = true};
}

// Keys of the sections that describe the model and what it reads.
void add_data(std::vector<Key>& keys);
void add_model(std::vector<Key>& keys);
void add_mixer(std::vector<Key>& keys);  // of add_model
void add_experts(std::vector<Key>& keys);

// Keys of the sections of what a run does beside its steps.
void add_numerics(std::vector<Key>& keys);
void add_activations(std::vector<Key>& keys);
void add_capture(std::vector<Key>& keys);
void add_trace(std::vector<Key>& keys);
void add_profile(std::vector<Key>& keys);
void add_plan(std::vector<Key>& keys);
void add_metrics(std::vector<Key>& keys);
void add_evaluate(std::vector<Key>& keys);
void add_checkpoint(std::vector<Key>& keys);
void add_watchdog(std::vector<Key>& keys);

}  // namespace switchyard
