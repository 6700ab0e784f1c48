#include <Random123/philox.h>

#include "kernels/cuda/rows/elementwise.hpp"
#include "kernels/cuda/runs.cuh"
#include "kernels/rows/dropout_counter.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels::cuda {

namespace {

struct Site {
  r123::Philox4x32::key_type key;
  std::uint32_t step;
  std::uint32_t sequence_length;
  std::uint32_t copies;
  const std::int32_t* positions;
  const std::int64_t* sequence_ids;

  // The counter of the first group of a row; word 3 lacks the group.
  __device__ r123::Philox4x32::ctr_type counter_of_row(std::uint32_t row) const {
    const std::uint32_t token = row / copies;
    const std::int64_t sequence = sequence_ids[token / sequence_length];
    const std::int32_t position = positions[token];
    expect_on_card(0 <= sequence && sequence < dropout_sequence_limit, "sequence ids in [0, 2^40)");
    expect_on_card(0 <= position && position < 1 << dropout_position_bits,
                   "positions in [0, 2^24)");
    return {{step, static_cast<std::uint32_t>(sequence),
             static_cast<std::uint32_t>(position) | static_cast<std::uint32_t>(sequence >> 32)
                                                        << dropout_position_bits,
             (row % copies) << dropout_group_bits}};
  }
};

// In [0, 1), 24 bits: tensor/random.hpp.
__device__ float uniform_of(std::uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

template <class T, int width, bool whole>
struct Drop {
  CardRows<T> x;
  Site site;
  float rate;
  float kept_scale;

  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t left) const {
    static_assert(width % dropout_group_size == 0);
    Run<T, width> run = load_run<T, width, whole>(x[row] + col, left);
    auto counter = site.counter_of_row(static_cast<std::uint32_t>(row));
    counter[3] |= static_cast<std::uint32_t>(col / dropout_group_size);
#pragma unroll
    for (int j = 0; j < width; j += dropout_group_size, ++counter[3]) {
      const auto words = r123::Philox4x32()(counter, site.key);
#pragma unroll
      for (int i = 0; i < dropout_group_size; ++i) {
        const float value = to_float(run.values[j + i]) * kept_scale;
        run.values[j + i] = from_float<T>(uniform_of(words[i]) >= rate ? value : 0.0f);
      }
    }
    store_run<T, width, whole>(x[row] + col, left, run);
  }
};

}  // namespace

void dropout(const TensorView& x, float rate, const DropoutSite& site,
             const TensorView& sequence_ids) {
  expect(0 <= site.step && site.step < std::int64_t{1} << 32, "a step below 2^32");
  expect(site.copies <= 1 << (32 - dropout_group_bits), "at most 256 copies of a token");
  expect(x.cols() <= std::int64_t{dropout_group_size} << dropout_group_bits,
         "at most 2^26 elements in a row");
  expect(x.rows() < std::int64_t{1} << 32, "fewer than 2^32 rows");  // nor is a sequence longer
  const Site on_card{{{site.key.seed, site.key.stream}},
                     static_cast<std::uint32_t>(site.step),
                     static_cast<std::uint32_t>(site.sequence_length),
                     static_cast<std::uint32_t>(site.copies),
                     pointer<std::int32_t>(site.positions),
                     pointer<std::int64_t>(sequence_ids)};
  with_float_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int width = packet_size<T>;
    const float kept_scale = 1.0f / (1.0f - rate);
    const auto launch = [&]<bool whole>() {
      for_each_run<width>(stream_of(x), x.rows(), x.cols(),
                          Drop<T, width, whole>{card_rows<T>(x), on_card, rate, kept_scale});
    };
    if (in_runs<T, width>(x))
      launch.template operator()<true>();
    else
      launch.template operator()<false>();
  });
}

}  // namespace switchyard::kernels::cuda
