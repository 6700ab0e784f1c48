#include "kernels/cpu/routing/select_fixed.hpp"

#include <algorithm>
#include <array>

#include "kernels/cpu/parallel.hpp"

namespace switchyard::kernels::cpu {

namespace {

// 2^32 divided by the golden ratio: multiples of it fill the circle of 2^32 evenly (Weyl).
constexpr std::uint32_t golden = 2654435769u;

// Rows cost little each.
constexpr std::int64_t cost_of_row = 64;

class Numbers {
 public:
  explicit Numbers(const TokenNumbers& numbers)
      : numbers_(numbers),
        ids_(numbers.sequence_ids.as<std::int64_t>()),
        positions_(numbers.positions.as<std::int32_t>()) {}
  std::uint64_t operator[](std::int64_t t) const {
    return static_cast<std::uint64_t>(
        ids_[t / numbers_.rows_of_sequence] * numbers_.sequence_length + positions_[t]);
  }

 private:
  const TokenNumbers& numbers_;
  const std::int64_t* ids_;
  const std::int32_t* positions_;
};

// The `number`-th of the experts that are not among the first `count` of `chosen`.
std::int32_t left_over(std::int32_t number, const std::int32_t* chosen, std::int64_t count) {
  std::int32_t expert = number;
  for (bool moved = true; moved;) {
    const auto before =
        std::count_if(chosen, chosen + count, [&](std::int32_t other) { return other <= expert; });
    moved = expert != number + static_cast<std::int32_t>(before);
    expert = number + static_cast<std::int32_t>(before);
  }
  return expert;
}

}  // namespace

void select_by_hash(const TensorView& tokens, RandomKey key, std::int64_t num_experts,
                    const TensorView& indices) {
  const std::int32_t* token = tokens.as<std::int32_t>();
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  parallel_rows(indices.rows(), cost_of_row, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      std::array<std::uint32_t, 4> words{};
      for (std::int64_t j = 0; j < indices.cols(); ++j) {
        if (j % 4 == 0)
          words = random_words(key, static_cast<std::uint64_t>(token[t]),
                               static_cast<std::uint64_t>(j / 4));
        const std::uint64_t word = words[static_cast<std::size_t>(j % 4)];
        const auto number =
            static_cast<std::int32_t>(word * static_cast<std::uint64_t>(num_experts - j) >> 32);
        index[t][j] = left_over(number, index[t], j);
      }
    }
  });
}

void select_by_shares(const TokenNumbers& numbers, std::span<const std::int64_t> ends,
                      const TensorView& indices) {
  const Numbers number(numbers);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  parallel_rows(indices.rows(), cost_of_row, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t first = static_cast<std::uint32_t>(number[t]) * golden;
      for (std::int64_t j = 0; j < indices.cols(); ++j) {
        const std::int64_t point = first + (j << 32);
        const auto end_after = std::upper_bound(ends.begin(), ends.end(), point);
        index[t][j] = static_cast<std::int32_t>(end_after - ends.begin());
      }
    }
  });
}

void select_in_turn(const TokenNumbers& numbers, std::int64_t num_experts,
                    const TensorView& indices) {
  const Numbers number(numbers);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  const auto top_k = static_cast<std::uint64_t>(indices.cols());
  parallel_rows(indices.rows(), cost_of_row, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t)
      for (std::uint64_t j = 0; j < top_k; ++j)
        index[t][j] = static_cast<std::int32_t>((number[t] * top_k + j) %
                                                static_cast<std::uint64_t>(num_experts));
  });
}

}  // namespace switchyard::kernels::cpu
