#include "kernels/cpu/products/row_pieces.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <tuple>
#include <vector>

#include "kernels/cpu/products/onednn.hpp"
#include "tensor/random.hpp"

namespace switchyard::kernels::cpu {

namespace {

constexpr std::array<std::int64_t, 6> piece_sizes = {16,           32, 48, row_piece, 2 * row_piece,
                                                     4 * row_piece};
constexpr std::int64_t pieces_of_thread = 4;

// Random numbers with a period prime to the sizes of matrices: what matters is that sums round.
constexpr std::int64_t period = 4093;

std::vector<std::byte> random_matrix(std::int64_t numel, DType dtype, std::string_view purpose) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(numel * size_of(dtype)));
  const RandomKey key = random_key(0, purpose);
  for (std::int64_t i = 0; i < numel; ++i) {
    std::byte* element = bytes.data() + i * size_of(dtype);
    if (i >= period) {
      std::memcpy(element, element - period * size_of(dtype),
                  static_cast<std::size_t>(size_of(dtype)));
      continue;
    }
    const float value = uniform(random_words(key, static_cast<std::uint64_t>(i), 0)[0]) - 0.5f;
    const BFloat16 rounded = to_bf16(value);
    if (dtype == DType::f32)
      std::memcpy(element, &value, sizeof value);
    else
      std::memcpy(element, &rounded, sizeof rounded);
  }
  return bytes;
}

bool try_short_pieces(std::int64_t k, std::int64_t n, DType operands, DType result, bool b_packed) {
  const auto x = random_matrix(piece_sizes.back() * k, operands, "row pieces x");
  const auto weight = random_matrix(k * n, DType::f32, "row pieces weight");
  std::vector<std::byte> packed(static_cast<std::size_t>(packed_bytes(k, n, operands)));
  if (b_packed)
    pack(k, n, operands, reinterpret_cast<const float*>(weight.data()), false, packed.data());
  std::vector<std::byte> scratchpad(static_cast<std::size_t>(scratchpad_bytes));
  const auto rows_of = [&](std::int64_t rows) {
    std::vector<std::byte> y(static_cast<std::size_t>(rows * n * size_of(result)));
    multiply({.m = rows,
              .n = n,
              .k = k,
              .operands = operands,
              .result = result,
              .lda = k,
              .ldb = b_packed ? 0 : n,
              .ldc = n,
              .b_packed = b_packed},
             x.data(), b_packed ? packed.data() : weight.data(), y.data(), scratchpad.data());
    return y;
  };
  const auto full = rows_of(piece_sizes.back());
  return std::ranges::all_of(piece_sizes, [&](std::int64_t rows) {
    const auto part = rows_of(rows);
    return std::memcmp(part.data(), full.data(), part.size()) == 0;
  });
}

}  // namespace

bool short_pieces_keep_bits(std::int64_t k, std::int64_t n, DType operands, DType result,
                            bool b_packed) {
  thread_local std::map<std::tuple<std::int64_t, std::int64_t, DType, DType, bool>, bool> answers;
  const auto key = std::tuple{k, n, operands, result, b_packed};
  const auto found = answers.find(key);
  if (found != answers.end()) return found->second;
  return answers.emplace(key, try_short_pieces(k, n, operands, result, b_packed)).first->second;
}

std::int64_t shared_piece(std::int64_t rows, int num_threads) {
  std::int64_t piece = piece_sizes.back();
  while (piece > row_piece && rows < pieces_of_thread * num_threads * piece) piece /= 2;
  return piece;
}

std::int64_t next_piece(std::int64_t rows) {
  std::int64_t piece = piece_sizes.front();
  for (const std::int64_t size : piece_sizes)
    if (size <= rows) piece = size;
  return piece;
}

}  // namespace switchyard::kernels::cpu
