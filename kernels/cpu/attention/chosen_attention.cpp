#include "kernels/cpu/attention/chosen_attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/cpu/attention/chosen_tiles.hpp"

namespace switchyard::kernels::cpu {

void sort_by_block(const TensorView& chosen, const ChoiceCut& cut, const HeadGroup& g,
                   const Range& queries, const ChoicesByBlock& to) {
  const auto choices_of = [&](std::int64_t i) {
    return chosen.row<std::int32_t>(g.sequence * cut.num_queries + i) + g.kv_head * cut.num_choices;
  };
  // First begins[b + 1] counts block b, then begins[b] is where its next one goes.
  std::fill_n(to.begins, cut.num_blocks + 1, 0);
  for (std::int64_t i = queries.begin; i < queries.end(); ++i)
    for (std::int64_t j = 0; j < cut.num_choices; ++j)
      if (const std::int32_t b = choices_of(i)[j]; b >= 0) ++to.begins[b + 1];
  for (std::int64_t b = 1; b <= cut.num_blocks; ++b) to.begins[b] += to.begins[b - 1];
  for (std::int64_t i = queries.begin; i < queries.end(); ++i)
    for (std::int64_t j = 0; j < cut.num_choices; ++j)
      if (const std::int32_t b = choices_of(i)[j]; b >= 0)
        to.choices[to.begins[b]++] = static_cast<std::int32_t>(i * cut.num_choices + j);
  for (std::int64_t b = cut.num_blocks; b > 0; --b) to.begins[b] = to.begins[b - 1];
  to.begins[0] = 0;
}

namespace {

// One thread's: a chunk of queries.
struct ForwardScratch {
  ForwardScratch(Carver& carver, const AttentionBlocks& b, const ChoiceCut& cut)
      : choices(carver, cut, cut.chunk),
        tile(carver, b, cut),
        tile_max(carver.take<float>(cut.tile_rows)),
        tile_sum(carver.take<float>(cut.tile_rows)),
        max(carver.take<float>(cut.chunk * b.group())),
        sum(carver.take<float>(cut.chunk * b.group())) {}
  ChoicesByBlock choices;
  ChoiceScratch tile;
  float* tile_max;  // [R], to base 2
  float* tile_sum;  // [R]
  float* max;       // [chunk, group], of what the rows of out have so far
  float* sum;       // likewise; 0: nothing
};

struct ForwardTask {
  const AttentionBlocks& b;
  const ChoiceCut& cut;
  const TensorView& q;
  const TensorView& k;
  const TensorView& v;
  const ChosenBlocks& blocks;
  const TensorView& out;
  const TensorView& lse;
  Merge merge;

  void attend(const HeadGroup& g, const Range& queries, const ForwardScratch& s,
              const Poll& poll) const;

 private:
  float* out_at(const HeadGroup& g, std::int64_t h, std::int64_t query) const {
    return reinterpret_cast<float*>(b.query_at(out, g, h, query));
  }
  void attend_to_tile(const ChoiceTile& tile, std::int64_t number, const ForwardScratch& s) const;
  void join(const ChoiceTile& tile, const Range& queries, const ForwardScratch& s) const;
};

void ForwardTask::attend_to_tile(const ChoiceTile& tile, std::int64_t number,
                                 const ForwardScratch& s) const {
  const ChoiceScratch& t = s.tile;
  tile.gather(q, t.q);
  std::fill_n(s.tile_sum, tile.padded_rows(), 0.0f);
  for (std::int64_t first = 0; first < cut.block; first += cut.part) {
    const Range keys = cut.keys_of(number, first);
    if (cut.part < cut.block) {  // else they are there
      b.gather_keys(k, tile.g, keys, t.k);
      b.gather_keys(v, tile.g, keys, t.v);
    }
    multiply(tile.rows_by_keys(keys.count), t.q, t.k, bytes_of(t.scores), t.scratchpad);
    tile.show(keys.count, t);
    softmax_block(tile.scores(keys.count, t),
                  {.max = s.tile_max, .sum = s.tile_sum, .out = t.rows, .head_dim = b.head_dim()},
                  t.probs);
    multiply(tile.rows_by_dim(keys.count, first > 0), t.probs, t.v, bytes_of(t.rows), t.scratchpad);
  }
}

void ForwardTask::join(const ChoiceTile& tile, const Range& queries,
                       const ForwardScratch& s) const {
  const std::int64_t dim = b.head_dim();
  tile.for_each_row([&](std::int64_t row, std::int64_t h, std::int64_t i) {
    const std::int64_t query = tile.query(i);
    const std::int64_t at = (query - queries.begin) * b.group() + h;
    const float other = s.tile_max[row];
    const float most = s.sum[at] == 0 ? other : std::max(s.max[at], other);
    const float own_factor = s.sum[at] == 0 ? 0 : std::exp2(s.max[at] - most);
    const float other_factor = std::exp2(other - most);
    float* target = out_at(tile.g, h, query);
    const float* joining = s.tile.rows + row * dim;
    for (std::int64_t d = 0; d < dim; ++d)
      target[d] = own_factor * target[d] + other_factor * joining[d];
    s.sum[at] = own_factor * s.sum[at] + other_factor * s.tile_sum[row];
    s.max[at] = most;
  });
}

void ForwardTask::attend(const HeadGroup& g, const Range& queries, const ForwardScratch& s,
                         const Poll& poll) const {
  sort_by_block(blocks.chosen, cut, g, queries, s.choices);
  const auto for_each_query = [&](const auto& each) {
    std::int64_t at = 0;
    for (std::int64_t i = queries.begin; i < queries.end(); ++i)
      for (std::int64_t h = 0; h < b.group(); ++h, ++at)
        each(at, out_at(g, h, i), *b.value_at(lse, g, h, i));
  };
  for_each_query([&](std::int64_t at, float* row, float& log_sum) {
    if (merge == Merge::replace) {
      log_sum = -std::numeric_limits<float>::infinity();
      std::fill_n(row, b.head_dim(), 0.0f);
    }
    s.sum[at] = std::isinf(log_sum) ? 0.0f : 1.0f;
    s.max[at] = log_sum * std::numbers::log2e_v<float>;
  });
  for (std::int64_t number = 0; number < cut.num_blocks; ++number) {
    if (s.choices.begins[number] == s.choices.begins[number + 1]) continue;
    if (cut.part == cut.block) {
      b.gather_keys(k, g, cut.keys_of(number, 0), s.tile.k);
      b.gather_keys(v, g, cut.keys_of(number, 0), s.tile.v);
    }
    for_each_tile(cut, s.choices, number, [&](const std::int32_t* first, std::int64_t count) {
      const ChoiceTile tile{b, cut, g, first, count};
      attend_to_tile(tile, number, s);
      join(tile, queries, s);
    });
    if (poll) poll();
  }
  for_each_query([&](std::int64_t at, float* row, float& log_sum) {
    if (s.sum[at] == 0) return;
    const float share = 1 / s.sum[at];
    for (std::int64_t d = 0; d < b.head_dim(); ++d) row[d] *= share;
    log_sum = s.max[at] * std::numbers::ln2_v<float> + std::log(s.sum[at]);
  });
}

}  // namespace

WorkspaceSizes chosen_forward_sizes(const AttentionBlocks& blocks, const ChoiceCut& cut) {
  return {0, bytes_for<ForwardScratch>(blocks.with_widest_operands(), cut)};
}

std::int64_t chosen_attention_workspace_bytes(const AttentionShape& shape, std::int64_t block,
                                              std::int64_t num_choices, DType dtype,
                                              bool has_backward, int num_threads) {
  const AttentionBlocks blocks(shape, dtype);
  const ChoiceCut cut(blocks, block, num_choices);
  const WorkspaceSizes forward = chosen_forward_sizes(blocks, cut);
  if (!has_backward) return forward.per_thread * num_threads;
  const WorkspaceSizes backward = chosen_backward_sizes(blocks, cut);
  return backward.shared + std::max(forward.per_thread, backward.per_thread) * num_threads;
}

void chosen_attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                              const TensorView& v, const ChosenBlocks& blocks,
                              const TensorView& out, const TensorView& lse, Merge merge,
                              const TensorView& workspace, const Poll& poll) {
  const AttentionBlocks b(shape, q.dtype);
  const ChoiceCut cut(b, blocks.block, blocks.chosen.cols() / shape.num_kv_heads);
  const ForwardTask task{b, cut, q, k, v, blocks, out, lse, merge};
  const WorkspaceSizes sizes = chosen_forward_sizes(b, cut);
  const Poll no_poll;
  const auto attend = [&](std::int64_t piece, int thread) {
    Carver carver(workspace.kernel_bytes() + thread * sizes.per_thread);
    const ForwardScratch scratch(carver, b, cut);
    task.attend(b.head_group(piece / cut.num_chunks()), cut.queries_of(piece % cut.num_chunks()),
                scratch, thread == 0 ? poll : no_poll);
  };
  for_each_piece(b.num_groups() * cut.num_chunks(), attend, threads_for(sizes, workspace));
  if (poll) poll();
}

}  // namespace switchyard::kernels::cpu
