// Fields whose type is an enum of choices (tensor/choice.hpp), as the schema sees them: without the
// type, a value being its number among the names.
#pragma once

#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/choice.hpp"

namespace switchyard {

struct Config;

// One field of one Config. Borrows it.
class ChoiceRef {
 public:
  template <Choice Value>
  explicit ChoiceRef(Value& field)
      : field_(&field),
        names_(names_of_choices<Value>),
        get_([](const void* at) {
          return static_cast<std::size_t>(*static_cast<const Value*>(at));
        }),
        set_([](void* at, std::size_t value) {
          *static_cast<Value*>(at) = static_cast<Value>(value);
        }) {}

  std::size_t get() const { return get_(field_); }
  void set(std::size_t value) const { set_(field_, value); }
  std::span<const std::string_view> names() const { return names_; }
  const void* address() const { return field_; }
  bool operator==(const ChoiceRef& other) const { return get() == other.get(); }

 private:
  void* field_;
  std::span<const std::string_view> names_;
  std::size_t (*get_)(const void*);
  void (*set_)(void*, std::size_t);
};

// The same of a list.
class ChoiceListRef {
 public:
  using List = std::vector<std::size_t>;

  template <Choice Value>
  explicit ChoiceListRef(std::vector<Value>& field)
      : field_(&field),
        names_(names_of_choices<Value>),
        get_([](const void* at) {
          List list;
          for (const Value value : *static_cast<const std::vector<Value>*>(at))
            list.push_back(static_cast<std::size_t>(value));
          return list;
        }),
        set_([](void* at, const List& list) {
          std::vector<Value> values;
          for (const std::size_t value : list) values.push_back(static_cast<Value>(value));
          *static_cast<std::vector<Value>*>(at) = std::move(values);
        }) {}

  List get() const { return get_(field_); }
  void set(const List& list) const { set_(field_, list); }
  std::span<const std::string_view> names() const { return names_; }
  const void* address() const { return field_; }
  bool operator==(const ChoiceListRef& other) const { return get() == other.get(); }

 private:
  void* field_;
  std::span<const std::string_view> names_;
  List (*get_)(const void*);
  void (*set_)(void*, const List&);
};

// How to reach it in any Config, and the names of its choices.
template <class Ref>
struct AccessChoice {
  Ref (*reach)(Config&);
  std::span<const std::string_view> names;

  Ref operator()(Config& config) const { return reach(config); }
};

}  // namespace switchyard
