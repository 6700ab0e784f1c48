// What the exchange of states sends, by the plan: the formula of the header, whatever the length.
// That its states are right, tests of whole steps show (tests/end_to_end/context_test.cpp).
#include "parallel/context/context_scan.hpp"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

struct Sent {
  double forward = 0, backward = 0;
};

// Of rank 1 of 4.
Sent sent_by_plan(std::int64_t length, SequenceLayout layout, bool delta) {
  const auto device = make_plan_device();
  const auto group = make_plan_group("context", 1, 4, *device);
  const SequenceSplit split(length, 4, 1, layout, false);
  const std::vector<PositionRange> runs = split.segments(1);
  const kernels::RecurrenceShape shape{.num_sequences = 3,
                                       .runs = runs,
                                       .num_heads = 6,
                                       .num_groups = 2,
                                       .key_width = 8,
                                       .value_width = 5,
                                       .delta = delta};
  const auto make = [&](std::int64_t rows, std::int64_t cols) {
    return Tensor(*device, Purpose::workspace, DType::f32, {rows, cols});
  };
  const std::int64_t rows = 3 * num_positions(runs);
  const Tensor q = make(rows, 16), k = make(rows, 16), v = make(rows, 30), betas = make(rows, 6);
  const Tensor workspace(*device, Purpose::workspace, DType::u8,
                         {kernels::recurrence_workspace_bytes(shape, device->target())});
  const kernels::RecurrenceInputs inputs{
      .q = q, .k = k, .v = v, .betas = delta ? betas.view() : TensorView{}};
  ExchangeProgress progress(Progress::poll, device->compute_stream());
  ContextScan scan(*device, *group, split, layout == SequenceLayout::zigzag ? 2 : 1, shape,
                   progress);
  const Tensor states = make(shape.num_runs() * 18, 40);
  const Tensor transitions = make(scan.num_maps(), shape.transition_size());
  const auto bytes_of = [&](auto&& exchange) {
    device->profile().reset();
    exchange();
    return device->profile().total_work().wire_bytes;
  };
  return {
      .forward = bytes_of([&] { scan.forward(shape, inputs, states, transitions, workspace, {}); }),
      .backward = bytes_of(
          [&] { scan.backward(shape, inputs, {.out = v}, v, transitions, states, workspace, {}); }),
  };
}

TEST(ContextScan, SendsStatesAndNoTokens) {
  for (const bool delta : {false, true})
    for (const SequenceLayout layout : {SequenceLayout::zigzag, SequenceLayout::contiguous})
      for (const std::int64_t length : {64, 8192}) {
        const Sent sent = sent_by_plan(length, layout, delta);
        const double runs = layout == SequenceLayout::zigzag ? 2 : 1;
        const double transition = delta ? 64 : 1;
        EXPECT_EQ(sent.forward, 3 * runs * 18 * (40 + transition) * 4) << length;
        EXPECT_EQ(sent.backward, 3 * runs * 18 * 40 * 4) << length;
      }
}

}  // namespace
}  // namespace switchyard
