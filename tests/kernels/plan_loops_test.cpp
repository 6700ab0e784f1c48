// On the plan device the kernels touch no memory and record their work.
#include <gtest/gtest.h>

#include "kernels/attention/block_choice.hpp"
#include "kernels/attention/chosen_attention.hpp"
#include "kernels/attention/gated_sum.hpp"
#include "kernels/attention/hash_classes.hpp"
#include "kernels/attention/key_ranges.hpp"
#include "kernels/recurrence/decay_gates.hpp"
#include "kernels/recurrence/feature_map.hpp"
#include "kernels/recurrence/gated_norm.hpp"
#include "kernels/recurrence/linear_recurrence.hpp"
#include "kernels/recurrence/memory_gate.hpp"
#include "kernels/recurrence/random_features.hpp"
#include "kernels/recurrence/short_convolution.hpp"
#include "kernels/recurrence/span_convolution.hpp"
#include "kernels/routing/arrival.hpp"
#include "kernels/routing/balance.hpp"
#include "kernels/routing/choice_counts.hpp"
#include "kernels/routing/group_offsets.hpp"
#include "kernels/routing/noisy_load.hpp"
#include "kernels/routing/permute.hpp"
#include "kernels/routing/place_choices.hpp"
#include "kernels/routing/router_noise.hpp"
#include "kernels/routing/routing_figures.hpp"
#include "kernels/routing/score.hpp"
#include "kernels/routing/select.hpp"
#include "kernels/routing/select_fixed.hpp"
#include "kernels/routing/select_sequences.hpp"
#include "kernels/routing/weigh.hpp"
#include "kernels/rows/clamped_swiglu.hpp"
#include "kernels/rows/clip.hpp"
#include "kernels/rows/cross_entropy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "kernels/rows/embedding.hpp"
#include "kernels/rows/group_bias.hpp"
#include "kernels/rows/right_answers.hpp"
#include "kernels/rows/rms_norm.hpp"
#include "kernels/rows/rope.hpp"
#include "kernels/rows/swiglu.hpp"
#include "kernels/sums/adamw.hpp"
#include "kernels/sums/step_figures.hpp"
#include "kernels/sums/sums.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels {
namespace {

class PlanLoops : public testing::Test {
 protected:
  Tensor make(DType dtype, Shape shape) {
    return Tensor(*device_, Purpose::workspace, dtype, shape);
  }
  // Bytes that `kernel` records; it must record something.
  template <class Kernel>
  double bytes_of(Kernel&& kernel) {
    device_->profile().reset();
    kernel();
    return device_->profile().total_work().bytes;
  }

 private:
  std::unique_ptr<Device> device_ = make_plan_device();

 protected:
  Device& device() { return *device_; }
};

// Chunks of 16 tokens, keys of 8 and values of 5, 6 heads: by the formulas of the header.
TEST_F(PlanLoops, LinearRecurrence) {
  const PositionRange run{0, 64};
  for (const bool delta : {false, true}) {
    const RecurrenceShape shape{.num_sequences = 2,
                                .runs = {&run, 1},
                                .num_heads = 6,
                                .num_groups = 3,
                                .key_width = 8,
                                .value_width = 5,
                                .chunk = 16,
                                .delta = delta};
    const Tensor q = make(DType::bf16, {128, 24}), k = make(DType::bf16, {128, 24});
    const Tensor v = make(DType::bf16, {128, 30}), out = make(DType::bf16, {128, 30});
    const Tensor betas = make(DType::f32, {128, 6}), dbetas = make(DType::f32, {128, 6});
    const Tensor workspace =
        make(DType::u8, {recurrence_workspace_bytes(shape, device().target())});
    const RecurrenceInputs inputs{
        .q = q, .k = k, .v = v, .betas = delta ? betas.view() : TensorView{}};
    const double pairs = 16 * (8 + 5), state = 8 * 5;
    const double token_bytes = delta ? 128 * 6 * 4 : 0, rows = 128 * (24 + 24 + 30) * 2;
    EXPECT_EQ(bytes_of([&] { recurrence_forward(shape, inputs, {}, {.out = out}, {}, workspace); }),
              rows + 128 * 30 * 2 + token_bytes);
    EXPECT_DOUBLE_EQ(
        device().profile().total_work().flops,
        2 * 64 * 6 * (4 * state + pairs + (delta ? 2 * state + pairs + 16.0 * 16 / 3 : 0)));
    EXPECT_EQ(bytes_of([&] {
                recurrence_backward(
                    shape, inputs, {}, {.out = out}, out, {},
                    {.dq = q, .dk = k, .dv = v, .dbetas = delta ? dbetas.view() : TensorView{}}, {},
                    workspace);
              }),
              2 * rows + 128 * 30 * 2 + 2 * token_bytes);
    EXPECT_DOUBLE_EQ(
        device().profile().total_work().flops,
        2 * 64 * 6 * (delta ? 16 * state + 5.5 * pairs : 10 * state + 16 * (3 * 8 + 2 * 5)));
    if (delta) continue;
    RecurrenceShape exclusive = shape;  // no pairs of a chunk
    exclusive.exclusive = true;
    device().profile().reset();
    recurrence_forward(exclusive, inputs, {}, {.out = out}, {}, workspace);
    EXPECT_DOUBLE_EQ(device().profile().total_work().flops, 2 * 64 * 6 * 4 * state);
  }
}

TEST_F(PlanLoops, LoopsOfRecurrentMixers) {
  const PositionRange rows{0, 8};
  const Tensor x = make(DType::bf16, {16, 12}), dx = make(DType::f32, {16, 12});
  const Tensor weight = make(DType::f32, {12, 4}), dweight = make(DType::f32, {12, 4});
  const ConvolutionShape shape{
      .num_sequences = 2, .held = {&rows, 1}, .read = {&rows, 1}, .channels = 12, .width = 4};
  EXPECT_EQ(bytes_of([&] { short_convolution_forward(shape, x, weight, {}, x); }), 2 * 16 * 12 * 2);
  EXPECT_EQ(device().profile().total_work().flops, 2 * 4 * 16 * 12);
  EXPECT_EQ(bytes_of([&] { short_convolution_backward(shape, x, x, weight, dx, dweight, {}); }),
            2 * 16 * 12 * 2 + 16 * 12 * 4);
  EXPECT_EQ(bytes_of([&] { feature_map_forward(FeatureMap::silu, x, 6, x); }), 2 * 16 * 12 * 2);
  EXPECT_EQ(bytes_of([&] { feature_map_backward(FeatureMap::silu, x, x, 6, x); }), 3 * 16 * 12 * 2);
  // 5 features of each of 2 heads of 6.
  const Tensor directions = make(DType::f32, {5, 6}), features = make(DType::bf16, {16, 10});
  const Tensor room = make(DType::u8, {random_features_workspace_bytes(6, 5, device().target())});
  EXPECT_EQ(
      bytes_of([&] { random_features_forward(FeatureSide::keys, x, directions, features, room); }),
      16 * 12 * 2 + 5 * 6 * 4 + 16 * 10 * 2);
  EXPECT_EQ(device().profile().total_work().flops, (2 * 6 + 20) * 16 * 10);
  EXPECT_EQ(bytes_of([&] {
              random_features_backward(FeatureSide::keys, features, x, directions, x, room);
            }),
            2 * 16 * 12 * 2 + 5 * 6 * 4 + 16 * 10 * 2);
  const GatedNorm norm{.width = 6, .gate = GateFunction::silu};
  const Tensor gain = make(DType::f32, {6}), dgain = make(DType::f32, {6});
  const Tensor workspace = make(DType::u8, {gated_norm_workspace_bytes(6)});
  EXPECT_EQ(bytes_of([&] { gated_norm_forward(norm, x, x, gain, x); }), 3 * 16 * 12 * 2);
  EXPECT_EQ(bytes_of([&] { gated_norm_backward(norm, x, x, x, gain, x, x, dgain, workspace); }),
            5 * 16 * 12 * 2);
  const Tensor heads = make(DType::f32, {12});
  EXPECT_EQ(bytes_of([&] { memory_gate_forward(x, x, heads, x); }), 3 * 16 * 12 * 2);
  EXPECT_EQ(bytes_of([&] { memory_gate_backward(x, x, x, heads, x, x, heads); }), 5 * 16 * 12 * 2);
  EXPECT_GT(bytes_of([&] { decay_gates_forward(x, heads, heads, dx, dx); }), 0);
  EXPECT_GT(bytes_of([&] { decay_gates_backward(dx, dx, x, heads, heads, x, heads, heads); }), 0);
  EXPECT_GT(bytes_of([&] { beta_gates_forward(x, 1, dx); }), 0);
  EXPECT_GT(bytes_of([&] { beta_gates_backward(dx, dx, 1, x); }), 0);
}

TEST_F(PlanLoops, KeyRangesAndPositions) {
  const std::vector<PositionRange> rows = {{0, 8}};
  const VisibleKeys visible{.queries = rows, .keys = rows, .num_sequences = 2};
  const Tensor first = make(DType::i32, {16}), end = make(DType::i32, {16});
  const Tensor begins = make(DType::i32, {2, 8});
  device().profile().reset();
  fill_key_ranges(visible, {}, first, end);
  EXPECT_EQ(device().profile().total_work().bytes, 0) << "made once a run";
  EXPECT_EQ(bytes_of([&] { fill_key_ranges(visible, begins, first, end); }), 2 * 16 * 4);
  EXPECT_EQ(bytes_of([&] { restart_positions(first, begins, end); }), 3 * 16 * 4);
}

TEST_F(PlanLoops, ChoicesOfBlocks) {
  const std::vector<PositionRange> rows = {{0, 8}};
  KeyPattern pattern(4);
  pattern.block = 2;
  pattern.chosen_blocks = 2;
  const BlockQueries asking{pattern, rows, 2};
  const Tensor x = make(DType::bf16, {16, 12}), dx = make(DType::f32, {16, 12});
  const Tensor q = make(DType::bf16, {16, 24}), pooled = make(DType::f32, {8, 12});
  const Tensor chosen = make(DType::i32, {16, 6});
  const Tensor weights = make(DType::f32, {3, 2}), sums = make(DType::f32, {24, 12});
  EXPECT_EQ(bytes_of([&] { block_mean(x, 2, 2, pooled); }), 16 * 12 * 2 + 8 * 12 * 4);
  EXPECT_EQ(bytes_of([&] { block_mean_backward(pooled, 2, 2, dx); }), 16 * 12 * 4 + 8 * 12 * 4);
  EXPECT_EQ(bytes_of([&] { block_sums(x, 2, weights, sums); }), 16 * 12 * 2 + 24 * 12 * 4);
  EXPECT_EQ(device().profile().total_work().flops, 2 * 16 * 12 * 3);
  EXPECT_GT(bytes_of([&] { block_sums_backward(sums, x, 2, weights, dx, weights); }), 0);
  EXPECT_EQ(bytes_of([&] { choose_blocks(asking, 4, q, pooled, chosen); }),
            16 * 24 * 2 + 8 * 12 * 4 + 16 * 6 * 4);
  EXPECT_EQ(device().profile().total_work().flops, 4 * 16 * 12)
      << "of four blocks, half are before";
  const AttentionShape shape{.num_sequences = 2,
                             .query_length = 8,
                             .key_length = 8,
                             .num_heads = 6,
                             .num_kv_heads = 3,
                             .head_dim = 4};
  const Tensor out = make(DType::f32, {16, 24}), lse = make(DType::f32, {16, 6});
  const Tensor workspace =
      make(DType::u8,
           {chosen_attention_workspace_bytes(shape, 2, 2, DType::bf16, true, device().target())});
  const ChosenBlocks blocks{chosen, 2, 40};
  EXPECT_EQ(bytes_of([&] {
              chosen_attention_forward(shape, q, x, x, blocks, out, lse, Merge::with_before,
                                       workspace);
            }),
            (16 * 24 + 2 * 16 * 12) * 2 + 16 * 24 * 4 + 16 * 6 * 4);
  EXPECT_EQ(device().profile().total_work().flops, 4 * 40 * 6 * 4);
  EXPECT_GT(bytes_of([&] {
              chosen_attention_backward(shape, q, x, x, blocks, lse, lse, q, out, dx, dx,
                                        workspace);
            }),
            0);
  EXPECT_EQ(device().profile().total_work().flops, 8 * 40 * 6 * 4);
}

TEST_F(PlanLoops, ClassesOfKeys) {
  KeyPattern pattern;
  pattern.hash_rounds = 2;
  pattern.num_buckets = 4;
  pattern.class_window = 3;
  const std::vector<PositionRange> rows = {{4, 6}};
  const Tensor keys = make(DType::bf16, {10, 24}), directions = make(DType::f32, {4, 8});
  const Tensor buckets = make(DType::i32, {10, 6}), of_rows = make(DType::i32, {6});
  const Tensor of_keys = make(DType::i32, {10});
  EXPECT_EQ(bytes_of([&] { hash_keys(keys, 8, directions, 4, buckets); }),
            10 * 24 * 2 + 4 * 8 * 4 + 10 * 6 * 4);
  EXPECT_EQ(device().profile().total_work().flops, 2 * 10 * 24 * 4);
  EXPECT_EQ(bytes_of([&] {
              sort_classes({pattern, rows, 0, 3}, buckets, 1, {of_rows, of_keys, of_rows, of_rows});
            }),
            (3 * 6 + 2 * 10) * 4);
  EXPECT_EQ(count_class_pairs(pattern, rows, 2), 2 * (1 + 1 + 1 + 1 + 2 + 2));
}

TEST_F(PlanLoops, ConvolutionsByTokens) {
  const std::vector<PositionRange> held = {{0, 8}};
  const ConvolutionShape shape{
      .num_sequences = 2, .held = held, .read = held, .channels = 12, .width = 3};
  const Tensor x = make(DType::bf16, {16, 12}), dx = make(DType::f32, {16, 12});
  const Tensor logits = make(DType::f32, {16, 6});
  EXPECT_EQ(bytes_of([&] { span_convolution_forward(shape, x, logits, x); }),
            2 * 16 * 12 * 2 + 16 * 6 * 4);
  EXPECT_EQ(bytes_of([&] { span_convolution_backward(shape, x, x, logits, dx, logits); }),
            2 * 16 * 12 * 2 + 2 * 16 * 6 * 4 + 16 * 12 * 4);
  EXPECT_EQ(bytes_of([&] { multiply_elements(x, x, x); }), 3 * 16 * 12 * 2);
}

TEST_F(PlanLoops, GatedBranches) {
  const Tensor branches = make(DType::bf16, {24, 12}), out = make(DType::bf16, {8, 12});
  const Tensor gates = make(DType::f32, {8, 9});
  EXPECT_EQ(bytes_of([&] { gated_sum(branches, gates, 3, out); }),
            (24 * 12 + 8 * 12) * 2 + 8 * 9 * 4);
  EXPECT_EQ(device().profile().total_work().flops, 2 * 24 * 12);
}

TEST_F(PlanLoops, RowKernels) {
  const Tensor x = make(DType::bf16, {8, 32}), wide = make(DType::bf16, {8, 64});
  const Tensor weight = make(DType::f32, {32}), rstd = make(DType::f32, {8});
  const Tensor scratch = make(DType::u8, {rms_norm_workspace_bytes(device(), 32)});
  const double once = 8 * 32 * 2;
  EXPECT_EQ(bytes_of([&] { rms_norm_forward(x, weight, 1e-5f, x, rstd); }), 2 * once);
  EXPECT_EQ(bytes_of([&] { add_rms_norm_forward(x, x, weight, 1e-5f, x, x, rstd); }), 4 * once);
  EXPECT_EQ(bytes_of([&] { rms_norm_backward(x, x, weight, rstd, x, x, weight, scratch); }),
            4 * once);
  const RopeTable table(device(), 8, 16, {});
  const Tensor positions = make(DType::i32, {8});
  EXPECT_EQ(bytes_of([&] { rope(x, table, positions, 16, Rotation::forward); }), 2 * once);
  EXPECT_EQ(bytes_of([&] { swiglu_forward(wide, x); }), 3 * once);
  EXPECT_EQ(bytes_of([&] { swiglu_backward(x, wide, wide, x); }), 6 * once);
  EXPECT_EQ(bytes_of([&] { clamped_swiglu_forward(wide, {}, x); }), 3 * once);
  EXPECT_EQ(bytes_of([&] { clamped_swiglu_backward(x, wide, {}, wide, x); }), 6 * once);
  const Tensor inside = make(DType::u8, {8, 32}), bias = make(DType::bf16, {2, 32});
  const Tensor offsets = make(DType::i32, {3});
  EXPECT_EQ(bytes_of([&] { clip_forward(x, 1.0f, inside); }), 2 * once + 8 * 32);
  EXPECT_EQ(bytes_of([&] { clip_forward(x, 1.0f, TensorView{}); }), 2 * once);
  EXPECT_EQ(bytes_of([&] { clip_backward(x, inside); }), 2 * once + 8 * 32);
  EXPECT_EQ(bytes_of([&] { add_group_bias(bias, offsets, x); }), 2 * once + once / 4);
  EXPECT_EQ(bytes_of([&] { sigmoid_forward(rstd, rstd); }), 2 * 8 * 4);
  EXPECT_EQ(bytes_of([&] { sigmoid_backward(rstd, rstd, rstd); }), 3 * 8 * 4);
  EXPECT_EQ(bytes_of([&] { add(x, x, x); }), 3 * once);
  EXPECT_EQ(bytes_of([&] { copy(x, x); }), 2 * once);
  EXPECT_EQ(bytes_of([&] { fill_zero(x); }), once);
  const Tensor ids = make(DType::i64, {2});
  EXPECT_EQ(
      bytes_of([&] { dropout(x, 0.5f, {.sequence_length = 4, .positions = positions}, ids); }),
      2 * once);
}

TEST_F(PlanLoops, LossAndOptimizer) {
  const Tensor logits = make(DType::f32, {8, 100}), targets = make(DType::i32, {8}),
               losses = make(DType::f32, {8});
  EXPECT_EQ(bytes_of([&] { softmax_cross_entropy(logits, targets, 90, 1, losses, {}); }), 3200);
  EXPECT_EQ(bytes_of([&] { softmax_cross_entropy(logits, targets, 90, 1, losses, logits); }), 9600);
  EXPECT_EQ(bytes_of([&] { softmax_cross_entropy(logits, targets, 90, 1, losses, {}, losses); }),
            3200 + losses->num_bytes());
  EXPECT_EQ(bytes_of([&] { right_answers(logits, targets, 90, {}, losses); }), 3200);
  const std::vector<AdamWTensor> tensors(2, {logits, logits, logits, logits});
  const Tensor decision = make(DType::f32, {2});
  EXPECT_EQ(bytes_of([&] { adamw(tensors, {}, decision); }), 2 * 7 * 3200);
  EXPECT_EQ(bytes_of([&] { scale(logits, 2); }), 2 * 3200);
  const Tensor figures = make(DType::f64, {3, 7}), sum = make(DType::f64, {1});
  EXPECT_EQ(bytes_of([&] { add_sum(logits, 1, sum); }), 3200);
  const std::vector<TensorView> squared(2, logits);
  EXPECT_EQ(bytes_of([&] { add_sum_of_squares(squared, sum); }), 2 * 3200);
  EXPECT_EQ(device().profile().total_work().flops, 2 * 1600);
  EXPECT_EQ(bytes_of([&] { add_quotients(sum, 1, sum); }), 3 * 8);
  const TensorView row = figures->slice_rows(0, 1);
  EXPECT_EQ(bytes_of([&] { write_figures(std::vector<double>(7), row); }), 56);
  EXPECT_EQ(bytes_of([&] { combine_figures(figures, 2, row); }), 168);
  EXPECT_EQ(bytes_of([&] { decide_update(row, {}, row.slice_cols(0, 2), decision); }), 56);
  const Tensor table = make(DType::f32, {50, 16}), rows = make(DType::bf16, {8, 16});
  EXPECT_EQ(bytes_of([&] { embedding_forward(targets, table, rows); }), 8 * 16 * 6);
  EXPECT_EQ(bytes_of([&] { embedding_backward(targets, rows, table); }), 8 * 16 * 10);
}

TEST_F(PlanLoops, Routing) {
  const Tensor logits = make(DType::f32, {8, 4}), choice = make(DType::i32, {8, 2}),
               weight = make(DType::f32, {8, 2});
  const Tensor lse = make(DType::f32, {8}), slopes = make(DType::f32, {2, 4}),
               counts = make(DType::i32, {2, 4});
  const Tensor totals = make(DType::i32, {4}), order = make(DType::i32, {16}),
               offsets = make(DType::i32, {17});
  const Tensor rows = make(DType::bf16, {16, 32}), tokens = make(DType::bf16, {8, 32});
  EXPECT_EQ(bytes_of([&] { score_softmax(logits, logits, lse); }), 2 * 128);
  EXPECT_EQ(bytes_of([&] { select_top_k(logits, choice); }), 128 + 64);
  EXPECT_EQ(bytes_of([&] { score_sigmoid(logits, logits, lse); }), 2 * 128);
  EXPECT_EQ(bytes_of([&] { divide_by_row_sums(logits, logits); }), 2 * 128);
  EXPECT_EQ(bytes_of([&] {
              score_sigmoid_backward(weight, choice, slopes, 0, logits, logits, lse, logits);
            }),
            3 * 128);
  EXPECT_EQ(bytes_of([&] { sinkhorn_plan(logits, 4, logits); }), 2 * 101 * 128);
  EXPECT_EQ(bytes_of([&] { select_balanced(logits, 4, choice); }), 128 + 64);
  EXPECT_EQ(bytes_of([&] { select_by_experts(logits, 4, 2, choice); }), 128 + 64);
  const Tensor ids = make(DType::i64, {2}), positions = make(DType::i32, {8});
  EXPECT_EQ(bytes_of([&] { select_by_hash(positions, {}, 4, choice); }), 64);
  EXPECT_EQ(bytes_of([&] { select_in_turn({4, 4, positions, ids}, 4, choice); }), 64);
  const DropoutSite site{.sequence_length = 4, .positions = positions};
  EXPECT_EQ(bytes_of([&] { add_router_noise(logits, site, ids, logits); }), 3 * 128);
  const Tensor sums = make(DType::f64, {1, logits->cols()});
  EXPECT_EQ(bytes_of([&] { sum_noisy_load({logits, logits, site, ids, 1}, {}, sums); }), 2 * 128);
  EXPECT_EQ(bytes_of([&] { pool_rows(sums); }), 8 * logits->cols());
  EXPECT_EQ(bytes_of([&] { router_noise_backward(logits, logits, site, ids, logits); }), 3 * 128);
  EXPECT_EQ(bytes_of([&] { jitter(logits, 0, 0.1f, site, ids); }), 2 * 128);
  EXPECT_EQ(bytes_of([&] { give_up_second(weight, site, ids, choice); }), 2 * 64);
  EXPECT_EQ(bytes_of([&] { weigh(logits, choice, {true}, weight); }), 2 * 64);
  EXPECT_EQ(bytes_of([&] { weigh_backward(weight, logits, choice, {true}, weight); }), 3 * 64);
  EXPECT_GT(
      bytes_of([&] { score_softmax_backward(weight, choice, slopes, 0, logits, lse, logits); }), 0);
  EXPECT_GT(bytes_of([&] { balance_statistics(logits, choice, 4, counts, slopes); }), 0);
  EXPECT_GT(bytes_of([&] { sort_by_expert(choice, {}, totals, choice, order); }), 0);
  const Tensor losses = make(DType::f64, {2});
  EXPECT_EQ(bytes_of([&] {
              add_auxiliary_losses(counts, slopes, lse, {2, 4}, losses);
            }),
            2 * 32 + 32);
  EXPECT_EQ(bytes_of([&] { balance_slopes(counts, 2, 4, 1, slopes); }), 2 * 32);
  const Tensor load = make(DType::i64, {5});
  EXPECT_EQ(bytes_of([&] { add_expert_load(totals, 16, load); }), 2 * 40 + 20);
  const Tensor chosen = make(DType::i64, {4}), bias = make(DType::f32, {4}),
               decision = make(DType::f32, {2});
  EXPECT_EQ(bytes_of([&] { sum_counts(counts, chosen); }), 32 + 32);
  EXPECT_EQ(bytes_of([&] { add_counts(chosen, chosen); }), 3 * 32);
  EXPECT_EQ(bytes_of([&] { add_entropy(logits, chosen->slice_rows(0, 1)); }), 128);
  EXPECT_EQ(bytes_of([&] { add_marked(totals, totals, chosen->slice_rows(0, 1)); }), 2 * 16);
  EXPECT_EQ(bytes_of([&] { spread_counts(chosen, counts); }), 32);
  EXPECT_EQ(bytes_of([&] { move_selection_bias(chosen, decision, 0.1f, bias); }), 4 * 16);
  EXPECT_EQ(bytes_of([&] { place_choices(choice, {}, ids, 1, choice); }), 2 * 64);
  EXPECT_EQ(bytes_of([&] { arrival_order(counts, {}, {}, order); }), 64);
  EXPECT_EQ(bytes_of([&] { arrival_order(counts, order, {0, 2}, order); }), 2 * 64);
  EXPECT_EQ(bytes_of([&] { group_offsets(order, offsets); }), 64 + 68);
  EXPECT_EQ(bytes_of([&] { iota(order); }), 64);
  EXPECT_EQ(bytes_of([&] { gather_rows(tokens, order, rows); }), 2 * 1024);
  EXPECT_EQ(bytes_of([&] { scatter_rows(rows, order, rows); }), 2 * 1024);
  EXPECT_EQ(bytes_of([&] { combine_rows(rows, choice, weight, tokens); }), 1024 + 512);
  EXPECT_EQ(bytes_of([&] { combine_rows_backward(tokens, rows, choice, weight, rows, weight); }),
            512 + 2048);
  EXPECT_EQ(bytes_of([&] { sum_rows(rows, choice, tokens); }), 1024 + 512);
}

TEST_F(PlanLoops, WrongShapesAreRefusedHereToo) {
  const Tensor x = make(DType::bf16, {8, 32}), narrow = make(DType::bf16, {8, 31});
  EXPECT_THROW(add(x, narrow, x), InternalError);
  EXPECT_THROW(swiglu_forward(x, narrow), InternalError);
}

}  // namespace
}  // namespace switchyard::kernels
