#include "kernels/routing/arrival.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/routing/arrival.hpp"
#include "kernels/cuda/routing/arrival.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void arrival_order(const TensorView& counts, const TensorView& numbers,
                   const SharingSources& sharing, const TensorView& arrival_of_row,
                   std::int64_t rows_of_count) {
  if (arrival_of_row.empty()) return;
  const std::int64_t num_rows = arrival_of_row.numel();
  expect_vector(counts, DType::i32, counts.numel(), "counts i32 [P, experts]");
  expect_vector(arrival_of_row, DType::i32, num_rows, "arrival_of_row i32 [R]");
  expect(sharing.first >= 0 && sharing.size >= 1, "sources that share sequences, or one alone");
  if (sharing.size > 1) expect_vector(numbers, DType::i32, num_rows, "numbers i32 [R]");
  const bool is_padded = rows_of_count > 0;
  if (is_padded)
    expect(sharing.size == 1 && num_rows == counts.numel() * rows_of_count,
           "as many rows for each count, of sources that do not share sequences");
  dispatch(
      *arrival_of_row.device,
      [&] {
        if (is_padded)
          cpu::arrival_order_of_padded(counts, rows_of_count, arrival_of_row);
        else
          cpu::arrival_order(counts, numbers, sharing, arrival_of_row);
      },
      [&] { plan::arrival_order(numbers, arrival_of_row); },
      [&] {
        if (is_padded) no_padding_on_cards();
        cuda::arrival_order(counts, numbers, sharing, arrival_of_row);
      });
}

}  // namespace switchyard::kernels
