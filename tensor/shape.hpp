// The dims of a tensor: up to four counts, outermost first. A plain value.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace switchyard {

class Shape {
 public:
  static constexpr int max_dims = 4;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims);  // InternalError: negative, or more than four

  int num_dims() const { return num_dims_; }
  std::int64_t operator[](int dim) const { return dims_[static_cast<std::size_t>(dim)]; }
  std::int64_t numel() const;        // product of the dims; 1 for no dims; MemoryError on overflow
  std::int64_t inner_numel() const;  // product of all dims but the first
  Shape with_dim(int dim, std::int64_t n) const;  // the same shape with another count
  Shape with_dim0(std::int64_t n) const { return with_dim(0, n); }  // the outermost
  std::string to_string() const;                                    // "[8, 512]"

  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::array<std::int64_t, max_dims> dims_{};
  int num_dims_ = 0;
};

// Sizes come from users' configurations: one that overflows is their mistake. Throws MemoryError.
[[noreturn]] void refuse_size(const Shape& shape);

}  // namespace switchyard
