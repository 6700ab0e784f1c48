// Work of which a plan need not see every repetition: sequences, or blocks of rows, that are alike
// but for where they lie. On the plan device the first stands for all, so a plan of 2^31 tokens
// takes no longer than one of a thousand.
#pragma once

#include <cstdint>

#include "tensor/device.hpp"

namespace switchyard {

// Calls visit(i) for i = 0 ... count - 1; on the plan device visit(0), recorded `count` times.
template <class Visit>
void for_each_alike(Device& device, std::int64_t count, Visit&& visit) {
  if (!device.is_plan()) {
    for (std::int64_t i = 0; i < count; ++i) visit(i);
    return;
  }
  if (count == 0) return;
  const Profile::Repeat repeat(device.profile(), count);
  visit(std::int64_t{0});
}

// Calls visit(begin, end) for consecutive pieces of `size` rows; the last may be shorter.
template <class Visit>
void for_each_row_piece(Device& device, std::int64_t num_rows, std::int64_t size, Visit&& visit) {
  const std::int64_t num_whole = num_rows / size;
  for_each_alike(device, num_whole, [&](std::int64_t i) { visit(i * size, (i + 1) * size); });
  if (num_whole * size < num_rows) visit(num_whole * size, num_rows);
}

}  // namespace switchyard
