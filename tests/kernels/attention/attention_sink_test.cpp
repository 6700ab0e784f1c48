// Learned sinks against their formulas in double. That they are right behind attention is tested
// with it (attention_ranges_test.cpp).
#include "kernels/attention/attention_sink.hpp"

#include <cmath>
#include <limits>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// log sum exp of a head's sinks.
double sink_lse(const Doubles& sinks, std::size_t head, std::size_t num_sinks) {
  return reference::log_sum_exp(&sinks[head * num_sinks], num_sinks);
}

TEST(AttentionSink, ScalesTheOutputAndJoinsTheLogSumExp) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const std::int64_t heads : {1, 4, 6})
      for (const std::int64_t head_dim : {5, 64})
        for (const std::int64_t num_sinks : {1, 3})
          for (const std::int64_t gap : {0, 3}) {
            SCOPED_TRACE(testing::Message() << name_of(dtype) << " " << heads << " heads of "
                                            << head_dim << ", " << num_sinks << " sinks");
            const std::int64_t rows = 131;
            const Operand sinks(DType::f32, heads, num_sinks, 1);
            const Operand out(dtype, rows, heads * head_dim, 2, gap);
            const Operand lse(DType::f32, rows, heads, 3, gap);
            Doubles logs = lse.values(), values = out.values();
            for (double& log : logs) log *= 10;
            logs[0] = -infinity;  // a row that sees nothing
            lse.set(logs);
            for (std::size_t i = 0; i < logs.size(); ++i) {
              const auto head = i % static_cast<std::size_t>(heads);
              const double z = sink_lse(sinks.values(), head, static_cast<std::size_t>(num_sinks));
              const auto width = static_cast<std::size_t>(head_dim);
              for (std::size_t c = i * width; c < (i + 1) * width; ++c)
                values[c] *= 1 / (1 + std::exp(z - logs[i]));
              const double larger = std::max(z, logs[i]);
              logs[i] = larger + std::log(std::exp(z - larger) + std::exp(logs[i] - larger));
            }
            kernels::attention_sink_forward(sinks, head_dim, out, lse);
            expect_close(out, values, tolerance_of(dtype));
            expect_close(lse, logs, 1e-6);
          }
}

TEST(AttentionSink, BackwardAddsTheSumOverTheRows) {
  for (const std::int64_t rows : {1, 37, 2500})
    for (const std::int64_t num_sinks : {1, 3}) {
      const std::int64_t heads = 5;
      const Operand sinks(DType::f32, heads, num_sinks, 1), dsinks(DType::f32, heads, num_sinks, 2);
      const Operand lse(DType::f32, rows, heads, 3, 2), delta(DType::f32, rows, heads, 4, 1);
      Doubles wanted = dsinks.values();
      const Doubles logits = sinks.values(), logs = lse.values(), deltas = delta.values();
      for (std::size_t i = 0; i < wanted.size(); ++i)
        for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
          const std::size_t at = row * 5 + i / static_cast<std::size_t>(num_sinks);
          wanted[i] -= std::exp(logits[i] - logs[at]) * deltas[at];
        }
      kernels::attention_sink_backward(sinks, lse, delta, dsinks);
      expect_close(dsinks, wanted, 1e-5);
    }
}

}  // namespace
}  // namespace switchyard::test
