// One move-only owner for each family of HDF5 identifiers. The identifier is kept as a plain 64-bit
// integer, so that hdf5.h stays inside data/*.cpp; the matching H5?close runs in the destructor,
// which never throws (close() reports an error instead). Used by data/hdf5.hpp; other folders work
// with File and Dataset.
#pragma once

#include <cstdint>
#include <utility>

namespace switchyard::hdf5 {

enum class Family : std::uint8_t {
  file,
  group,
  dataset,
  dataspace,
  datatype,
  property_list,
  attribute,
  object
};

// Returns false when HDF5 reports an error.
bool close_identifier(Family family, std::int64_t id) noexcept;

template <Family family>
class Handle {
 public:
  Handle() = default;
  explicit Handle(std::int64_t id) : id_(id) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, none)) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      close();
      id_ = std::exchange(other.id_, none);
    }
    return *this;
  }
  ~Handle() { close(); }

  std::int64_t id() const { return id_; }
  bool is_open() const { return id_ >= 0; }
  bool close() noexcept { return id_ < 0 || close_identifier(family, std::exchange(id_, none)); }

 private:
  static constexpr std::int64_t none = -1;
  std::int64_t id_ = none;
};

}  // namespace switchyard::hdf5
