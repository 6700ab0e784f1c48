#include "kernels/cpu/attention/attention_output.hpp"
#include "kernels/cpu/attention/chosen_attention.hpp"
#include "kernels/cpu/attention/chosen_tiles.hpp"
#include "kernels/cpu/parallel.hpp"

#include <numbers>

namespace switchyard::kernels::cpu {

namespace {

// One thread's: a block of keys.
struct BackwardScratch {
  BackwardScratch(Carver& carver, const AttentionBlocks& b, const ChoiceCut& cut)
      : tile(carver, b, cut),
        dout(carver.take<std::byte>(b.operand_bytes(cut.tile_rows * b.head_dim()))),
        dprobs(carver.take<float>(cut.tile_rows * cut.part_cols)),
        dscores(carver.take<std::byte>(b.operand_bytes(cut.tile_rows * cut.part_cols))),
        lse(carver.take<float>(cut.tile_rows)),
        delta(carver.take<float>(cut.tile_rows)),
        dk(carver.take<float>(cut.part_cols * b.head_dim())),
        dv(carver.take<float>(cut.part_cols * b.head_dim())) {}
  ChoiceScratch tile;
  std::byte* dout;     // [R, D]
  float* dprobs;       // [R, N]
  std::byte* dscores;  // [R, N]
  float* lse;          // [R], to base 2
  float* delta;        // [R]
  float* dk;           // [N, D]
  float* dv;           // [N, D]
};

// All threads': a kv head of a sequence.
struct SharedScratch {
  SharedScratch(Carver& carver, const AttentionBlocks& b, const ChoiceCut& cut)
      : choices(carver, cut, cut.num_queries),
        partial(carver.take<float>(cut.num_queries * cut.num_choices * b.group() * b.head_dim())) {}
  ChoicesByBlock choices;
  float* partial;  // [n t, group, D]: gradients of queries
};

struct BackwardTask {
  const AttentionBlocks& b;
  const ChoiceCut& cut;
  const TensorView& q;
  const TensorView& k;
  const TensorView& v;
  const TensorView& lse;
  const TensorView& delta;
  const TensorView& dout;
  const TensorView& dk;
  const TensorView& dv;

  // Of one block of keys.
  void differentiate(const HeadGroup& g, std::int64_t number, const SharedScratch& shared,
                     const BackwardScratch& s) const;

 private:
  void stack(const ChoiceTile& tile, const BackwardScratch& s) const;
  void differentiate_part(const HeadGroup& g, std::int64_t number, std::int64_t first,
                          const SharedScratch& shared, const BackwardScratch& s) const;
};

void BackwardTask::stack(const ChoiceTile& tile, const BackwardScratch& s) const {
  tile.gather(q, s.tile.q);
  tile.gather(dout, s.dout);
  std::fill_n(s.lse, tile.padded_rows(), 0.0f);
  std::fill_n(s.delta, tile.padded_rows(), 0.0f);
  tile.for_each_row([&](std::int64_t row, std::int64_t h, std::int64_t i) {
    s.lse[row] = *b.value_at(lse, tile.g, h, tile.query(i)) * std::numbers::log2e_v<float>;
    s.delta[row] = *b.value_at(delta, tile.g, h, tile.query(i));
  });
}

void BackwardTask::differentiate_part(const HeadGroup& g, std::int64_t number, std::int64_t first,
                                      const SharedScratch& shared, const BackwardScratch& s) const {
  const ChoiceScratch& t = s.tile;
  const Range keys = cut.keys_of(number, first);
  const std::int64_t cols = AttentionBlocks::padded_keys(keys.count), dim = b.head_dim();
  b.gather_keys(k, g, keys, t.k);
  b.gather_keys(v, g, keys, t.v);
  std::fill_n(s.dk, cols * dim, 0.0f);
  std::fill_n(s.dv, cols * dim, 0.0f);
  for_each_tile(cut, shared.choices, number, [&](const std::int32_t* choices, std::int64_t count) {
    const ChoiceTile tile{b, cut, g, choices, count};
    stack(tile, s);
    multiply(tile.rows_by_keys(keys.count), t.q, t.k, bytes_of(t.scores), t.scratchpad);
    multiply(tile.rows_by_keys(keys.count), s.dout, t.v, bytes_of(s.dprobs), t.scratchpad);
    tile.show(keys.count, t);
    softmax_block_backward(tile.scores(keys.count, t), s.dprobs, s.lse, s.delta, t.probs,
                           s.dscores);
    const Product keys_by_dim{.m = cols,
                              .n = dim,
                              .k = tile.padded_rows(),
                              .operands = b.operands(),
                              .result = DType::f32,
                              .lda = cols,
                              .ldb = dim,
                              .ldc = dim,
                              .a_transposed = true,
                              .accumulate = true};
    multiply(keys_by_dim, t.probs, s.dout, bytes_of(s.dv), t.scratchpad);
    multiply(keys_by_dim, s.dscores, t.q, bytes_of(s.dk), t.scratchpad);
    multiply(tile.rows_by_dim(keys.count, false), s.dscores, t.k, bytes_of(t.rows), t.scratchpad);
    const Merge merge = first == 0 ? Merge::replace : Merge::with_before;
    tile.for_each_row([&](std::int64_t row, std::int64_t h, std::int64_t i) {
      write_gradient_row(t.rows + row * dim, b.shape().scale, dim, merge, DType::f32,
                         bytes_of(shared.partial + (choices[i] * b.group() + h) * dim));
    });
  });
  for (std::int64_t i = 0; i < keys.count; ++i) {
    const std::int64_t key = keys.begin + i;
    write_gradient_row(s.dk + i * dim, b.shape().scale, dim, Merge::with_before, DType::f32,
                       b.key_at(dk, g, key));
    write_gradient_row(s.dv + i * dim, 1.0f, dim, Merge::with_before, DType::f32,
                       b.key_at(dv, g, key));
  }
}

void BackwardTask::differentiate(const HeadGroup& g, std::int64_t number,
                                 const SharedScratch& shared, const BackwardScratch& s) const {
  if (shared.choices.begins[number] == shared.choices.begins[number + 1]) return;
  for (std::int64_t first = 0; first < cut.block; first += cut.part)
    differentiate_part(g, number, first, shared, s);
}

// Adds what each row's choices have, in their order.
void add_choices(const AttentionBlocks& b, const ChoiceCut& cut, const HeadGroup& g,
                 const TensorView& chosen, const float* partial, const TensorView& dq) {
  const std::int64_t cols = b.group() * b.head_dim();
  parallel_rows(cut.num_queries, cols * cut.num_choices, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      auto* row = reinterpret_cast<float*>(b.query_at(dq, g, 0, i));
      const std::int32_t* blocks =
          chosen.row<std::int32_t>(g.sequence * cut.num_queries + i) + g.kv_head * cut.num_choices;
      for (std::int64_t j = 0; j < cut.num_choices; ++j) {
        if (blocks[j] < 0) continue;
        const float* gradient = partial + (i * cut.num_choices + j) * cols;
        for (std::int64_t c = 0; c < cols; ++c) row[c] += gradient[c];
      }
    }
  });
}

}  // namespace

WorkspaceSizes chosen_backward_sizes(const AttentionBlocks& blocks, const ChoiceCut& cut) {
  const AttentionBlocks widest = blocks.with_widest_operands();
  return {bytes_for<SharedScratch>(widest, cut), bytes_for<BackwardScratch>(widest, cut)};
}

void chosen_attention_backward(const AttentionShape& shape, const TensorView& q,
                               const TensorView& k, const TensorView& v, const ChosenBlocks& blocks,
                               const TensorView& lse, const TensorView& delta,
                               const TensorView& dout, const TensorView& dq, const TensorView& dk,
                               const TensorView& dv, const TensorView& workspace,
                               const Poll& poll) {
  const AttentionBlocks b(shape, q.dtype);
  const ChoiceCut cut(b, blocks.block, blocks.chosen.cols() / shape.num_kv_heads);
  const BackwardTask task{b, cut, q, k, v, lse, delta, dout, dk, dv};
  const WorkspaceSizes sizes = chosen_backward_sizes(b, cut);
  Carver of_all(workspace.kernel_bytes());
  const SharedScratch shared(of_all, b, cut);
  for (std::int64_t t = 0; t < b.num_groups(); ++t) {
    const HeadGroup g = b.head_group(t);
    sort_by_block(blocks.chosen, cut, g, {0, cut.num_queries}, shared.choices);
    const auto differentiate = [&](std::int64_t number, int thread) {
      Carver carver(workspace.kernel_bytes() + sizes.shared + thread * sizes.per_thread);
      task.differentiate(g, number, shared, BackwardScratch(carver, b, cut));
      if (poll && thread == 0) poll();
    };
    for_each_piece(cut.num_blocks, differentiate, threads_for(sizes, workspace));
    add_choices(b, cut, g, blocks.chosen, shared.partial, dq);
  }
  if (poll) poll();
}

}  // namespace switchyard::kernels::cpu
