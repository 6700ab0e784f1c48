#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "bench/kernel_cases.hpp"
#include "bench/machine_rates.hpp"
#include "bench/rate_tables.hpp"
#include "kernels/peak.hpp"
#include "kernels/products/grouped_linear.hpp"
#include "kernels/threads.hpp"
#include "tensor/error.hpp"
#include "tensor/work_record.hpp"

namespace switchyard::bench {

namespace {

using Sizes = std::vector<std::int64_t>;

// The points of the tables.
struct Grids {
  Sizes rows, out, in;                           // of products
  Sizes rows_of_group, grouped_out, grouped_in;  // of grouped ones
  // Of attention; every window is at most half of every long length, or the
  // record would not take it for one.
  Sizes lengths, windows, long_lengths, keys;
  Sizes head_dims, groups;  // likewise
  Sizes loop_rows;
};

Grids grids_of(bool quick) {
  if (quick)
    return {.rows = {16, 1024},
            .out = {16, 512},
            .in = {64, 512},
            .rows_of_group = {16, 256},
            .grouped_out = {64, 512},
            .grouped_in = {64, 512},
            .lengths = {64, 512},
            .windows = {64},
            .long_lengths = {512},
            .keys = {512},
            .head_dims = {64},
            .groups = {2},
            .loop_rows = {4, 256, 8192}};
  return {.rows = {1, 16, 64, 256, 1024, 4096},
          .out = {2, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192},
          .in = {16, 64, 128, 256, 512, 1024, 2048, 4096},
          .rows_of_group = {1, 8, 32, 128, 512},
          .grouped_out = {32, 128, 256, 512, 1024, 2048},
          .grouped_in = {32, 128, 256, 512, 1024, 2048},
          .lengths = {32, 128, 512, 2048, 8192},
          .windows = {32, 128, 512},
          .long_lengths = {1024, 2048, 4096},
          .keys = {128, 512, 2048},
          .head_dims = {16, 32, 64, 128},
          .groups = {1, 2, 8},
          .loop_rows = {1, 16, 256, 1024, 4096, 16384, 65536}};
}

std::vector<double> axis_of(const Sizes& sizes) {
  return {sizes.begin(), sizes.end()};
}

void measure_products(RateTables& tables, const Grids& grids, DType dtype) {
  const std::vector<std::vector<double>> axes = {axis_of(grids.rows), axis_of(grids.out),
                                                 axis_of(grids.in)};
  for (const std::int64_t rows : grids.rows)
    for (const std::int64_t out : grids.out)
      for (const std::int64_t in : grids.in)
        tables.measure_point(axes, grids.out.size() * grids.in.size(), [=](Device& device) {
          return product_calls(device, rows, out, in, dtype);
        });
}

void measure_grouped(RateTables& tables, const Grids& grids, DType dtype) {
  // Experts take so many rows at once (experts/expert_bank.hpp), for gradients of weights more.
  const std::int64_t block = kernels::block_rows(tables.device());
  const std::int64_t chunk = std::max(block, 2 * kernels::gradient_chunk_rows);
  const auto groups_in = [](std::int64_t num_rows, std::int64_t rows_of_group) {
    constexpr std::int64_t most = 8;
    return std::clamp<std::int64_t>(num_rows / rows_of_group, 1, most);
  };
  const std::vector<std::vector<double>> axes = {
      axis_of(grids.rows_of_group), axis_of(grids.grouped_out), axis_of(grids.grouped_in)};
  for (const std::int64_t rows : grids.rows_of_group)
    for (const std::int64_t out : grids.grouped_out)
      for (const std::int64_t in : grids.grouped_in) {
        const GroupedCase which{.groups = groups_in(block, rows),
                                .groups_of_weights = groups_in(chunk, rows),
                                .rows_of_group = rows,
                                .out = out,
                                .in = in};
        tables.measure_point(axes, grids.grouped_out.size() * grids.grouped_in.size(),
                             [=](Device& device) { return grouped_calls(device, which, dtype); });
      }
}

// Keys that a query sees in the mean, where each sees the last `window` of those before it.
double mean_keys(std::int64_t length, std::int64_t window) {
  const auto n = static_cast<double>(length), w = static_cast<double>(window);
  return w - w * (w - 1) / (2 * n);
}

void measure_attention(RateTables& tables, const Grids& grids, DType dtype) {
  const std::vector<double> dims = axis_of(grids.head_dims), groups = axis_of(grids.groups);
  const std::size_t back = dims.size() * groups.size();
  const auto measure = [&](std::vector<std::vector<double>> axes, AttentionCase which) {
    axes.insert(axes.end(), {dims, groups});
    for (which.head_dim = 0; const std::int64_t head_dim : grids.head_dims)
      for (const std::int64_t group : grids.groups) {
        which.head_dim = head_dim;
        which.group = group;
        tables.measure_point(axes, back,
                             [=](Device& device) { return attention_calls(device, which, dtype); });
      }
  };
  std::vector<double> causal;
  for (const std::int64_t length : grids.lengths) causal.push_back(mean_keys(length, length));
  // As many tokens as a micro-batch has, where that makes more than one sequence.
  constexpr std::int64_t tokens = 2048, most_sequences = 16;
  for (const std::int64_t length : grids.lengths)
    measure({causal},
            {.num_sequences = std::clamp<std::int64_t>(tokens / length, 1, most_sequences),
             .query_length = length,
             .key_length = length});
  for (const std::int64_t keys : grids.keys)
    measure({axis_of(grids.keys)}, {.query_length = 512, .key_length = keys, .is_causal = false});
  // By window, since the mean number of keys is smaller in a short sequence.
  for (const std::int64_t window : grids.windows)
    for (const std::int64_t length : grids.long_lengths)
      measure({axis_of(grids.windows), axis_of(grids.long_lengths)},
              {.query_length = length, .key_length = length, .window = window});
}

}  // namespace

void measure_kernels(Group& world, const MachineOptions& options, MachineSetting& setting) {
  const Grids grids = grids_of(options.quick);
  RateTables tables(world, options.quick, setting);
  const std::unique_ptr<Device> device = make_cpu_device();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const double peak = bench::measure_products(world, *device, dtype);
    setting.peak_flops_per_second[dtype] = peak / world.size();
    options.note(fmt::format("products in {}", name_of(dtype)));
    measure_products(tables, grids, dtype);
    options.note(fmt::format("grouped products in {}", name_of(dtype)));
    measure_grouped(tables, grids, dtype);
    options.note(fmt::format("attention in {}", name_of(dtype)));
    measure_attention(tables, grids, dtype);
    options.note(fmt::format("once more what stands out, in {}", name_of(dtype)));
    tables.measure_outliers_again();
  }
  options.note("kernels that go by their bytes");
  for (const LoopCase& loop : loop_cases())
    for (const DType dtype : {DType::f32, DType::bf16})
      if (dtype == DType::f32 || loop.has_bf16) tables.measure_loop(loop, dtype, grids.loop_rows);
}

}  // namespace switchyard::bench
