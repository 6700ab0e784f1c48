// The gradients of attention, a key block at a time. Short sequences: a thread takes a kv head of a
// sequence for itself. Long ones: all threads work on one kv head together. The query blocks that
// see a key block are divided over lanes; a lane has its own sum for dk and dv, and its queries'
// rows of dq are no other lane's. Lanes depend on shapes and ranges alone and are added in their
// order, and dq over key blocks in theirs, so no sum depends on the number of threads.
#include "kernels/cpu/attention/attention_backward.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/cpu/attention/attention.hpp"
#include "kernels/cpu/attention/attention_backward_scratch.hpp"
#include "kernels/cpu/attention/attention_output.hpp"
#include "kernels/cpu/parallel.hpp"

namespace switchyard::kernels::cpu {

namespace {

struct BackwardTask {
  const AttentionBlocks& blocks;
  const TensorView& q;
  const TensorView& k;
  const TensorView& v;
  const TensorView& lse;
  const TensorView& delta;
  const TensorView& dout;
  const AttentionGradients& gradients;
  const Poll& poll;  // empty for all threads but the calling one
};

std::byte* bytes_of(float* values) {
  return reinterpret_cast<std::byte*>(values);
}

// One query block as the products read it.
struct QueryOperands {
  std::byte* q;
  std::byte* dout;
  float* lse;
  float* delta;
};
QueryOperands stacked_at(const AttentionBlocks& b, std::int64_t place, const LaneScratch& s) {
  const std::int64_t row = place * b.max_rows();
  const std::int64_t element = row * b.head_dim();
  return {s.q + b.operand_bytes(element), s.dout + b.operand_bytes(element), s.lse + row,
          s.delta + row};
}

void stack_queries(const BackwardTask& task, const HeadGroup& g, std::int64_t block,
                   const QueryOperands& to) {
  const AttentionBlocks& b = task.blocks;
  const Range queries = b.query_block(block);
  b.gather_queries(task.q, g, queries, to.q);
  b.gather_queries(task.dout, g, queries, to.dout);
  const std::int64_t rows = b.padded_rows(queries.count);
  std::fill_n(to.lse, rows, 0.0f);
  std::fill_n(to.delta, rows, 0.0f);
  std::int64_t row = 0;
  for (std::int64_t h = 0; h < b.group(); ++h)
    for (std::int64_t i = queries.begin; i < queries.end(); ++i, ++row) {
      if (!b.holds_query(i)) continue;
      to.lse[row] = *b.value_at(task.lse, g, h, i) * std::numbers::log2e_v<float>;
      to.delta[row] = *b.value_at(task.delta, g, h, i);
    }
}

// Of a short sequence all query blocks are stacked from the start, of a long one the one in use.
QueryOperands queries_of(const BackwardTask& task, const HeadGroup& g, std::int64_t block,
                         const LaneScratch& s) {
  if (!is_long(task.blocks)) return stacked_at(task.blocks, block, s);
  const QueryOperands operands = stacked_at(task.blocks, 0, s);
  stack_queries(task, g, block, operands);
  return operands;
}

// A row that saw nothing altogether gives no gradient.
void hide_rows_without_keys(const float* lse, std::int64_t rows, const LaneScratch& s) {
  for (std::int64_t r = 0; r < rows; ++r)
    if (std::isinf(lse[r]) && lse[r] < 0) s.to[r] = s.from[r];
}

// A part of a key block, and where its gradients are summed.
struct KeyPart {
  Range keys;
  const std::byte* k;
  const std::byte* v;
  float* dk;
  float* dv;
  float* dr;  // of the lane; null: there are no keys of distances
};

// dv += P^T dout, dk += dS^T q, dq += dS k for one query block and what it sees of a key block.
void add_block(const BackwardTask& task, const HeadGroup& g, std::int64_t set, std::int64_t block,
               const KeyPart& part, const GroupScratch& sums, const LaneScratch& s) {
  const AttentionBlocks& b = task.blocks;
  const Range queries = b.query_block(block);
  const QueryOperands of_queries = queries_of(task, g, block, s);
  const std::int64_t rows = b.padded_rows(queries.count);
  const std::int64_t cols = AttentionBlocks::padded_keys(part.keys.count);
  const std::int64_t dim = b.head_dim();

  const Product rows_by_keys{.m = rows,
                             .n = cols,
                             .k = dim,
                             .operands = b.operands(),
                             .result = DType::f32,
                             .lda = dim,
                             .ldb = dim,
                             .ldc = cols,
                             .b_transposed = true};
  multiply(rows_by_keys, of_queries.q, part.k, bytes_of(s.scores), s.scratchpad);
  multiply(rows_by_keys, of_queries.dout, part.v, bytes_of(s.dprobs), s.scratchpad);
  const AttentionDistances distances(b);
  distances.add_scores(g, queries, part.keys, s.scores, *s.distances);
  b.add_by_distance(g, queries, part.keys, s.scores);
  b.find_visible(set, g.sequence, queries, part.keys, s.from, s.to);
  hide_rows_without_keys(of_queries.lse, rows, s);
  softmax_block_backward({.scores = s.scores,
                          .rows = rows,
                          .cols = cols,
                          .from = s.from,
                          .to = s.to,
                          .scale = b.scale_log2(),
                          .store = b.store_as()},
                         s.dprobs, of_queries.lse, of_queries.delta, s.probs, s.dscores);

  const Product keys_by_dim{.m = cols,
                            .n = dim,
                            .k = rows,
                            .operands = b.operands(),
                            .result = DType::f32,
                            .lda = cols,
                            .ldb = dim,
                            .ldc = dim,
                            .a_transposed = true,
                            .accumulate = true};
  if (task.gradients.has_dkv()) {
    multiply(keys_by_dim, s.probs, of_queries.dout, bytes_of(part.dv), s.scratchpad);
    multiply(keys_by_dim, s.dscores, of_queries.q, bytes_of(part.dk), s.scratchpad);
  }
  if (!task.gradients.has_dq()) return;
  multiply({.m = rows,
            .n = dim,
            .k = cols,
            .operands = b.operands(),
            .result = DType::f32,
            .lda = cols,
            .ldb = dim,
            .ldc = dim,
            .accumulate = true},
           s.dscores, part.k, bytes_of(sums.dq + block * b.max_rows() * dim), s.scratchpad);
  if (part.dr != nullptr)
    distances.add_gradients(g, queries, part.keys, s.dscores, sums.dp + block * b.max_rows() * dim,
                            part.dr, *s.distances);
  if (task.gradients.has_dbias())
    b.add_bias_gradient(g, queries, part.keys, s.dscores, s.from, s.to,
                        sums.dbias + block * b.max_rows() * num_parameters(b));
}

// A lane's share of the query blocks that see a key block.
Range share_of(const Range& query_blocks, std::int64_t lane, std::int64_t lanes) {
  const std::int64_t begin = query_blocks.count * lane / lanes;
  const std::int64_t end = query_blocks.count * (lane + 1) / lanes;
  return {query_blocks.begin + begin, end - begin};
}

// Sums the lane's dk and dv of key block j, and adds to dq.
void add_lane(const BackwardTask& task, const HeadGroup& g, std::int64_t j, std::int64_t lane,
              const Range& query_blocks, const GroupScratch& sums, const LaneScratch& s) {
  const AttentionBlocks& b = task.blocks;
  const Range block = b.key_block(j);
  const std::int64_t dim = b.head_dim();
  const std::int64_t numel = AttentionBlocks::padded_keys(block.count) * dim;
  float* dk = sums.dk + lane * b.max_keys() * dim;
  float* dv = sums.dv + lane * b.max_keys() * dim;
  float* dr = sums.dr == nullptr ? nullptr : sums.dr + lane * num_distances(b) * dim;
  std::fill_n(dk, numel, 0.0f);
  std::fill_n(dv, numel, 0.0f);
  b.gather_keys(task.k, g, block, s.k);
  b.gather_keys(task.v, g, block, s.v);
  for (std::int64_t i = query_blocks.begin; i < query_blocks.end(); ++i) {
    if (!b.holds_queries(b.query_block(i))) continue;
    for (std::int64_t set = 0; set < b.num_sets(); ++set) {
      const Range keys = b.key_block(j, set, g.sequence, b.query_block(i));
      if (keys.count == 0) continue;
      const std::int64_t first = (keys.begin - block.begin) * dim;  // element of the block
      const std::int64_t first_byte = b.operand_bytes(first);
      add_block(task, g, set, i,
                {keys, s.k + first_byte, s.v + first_byte, dk + first, dv + first, dr}, sums, s);
      if (task.poll) task.poll();
    }
  }
}

// The lanes' sums of one key, in their order, into the first lane's.
void add_lanes(float* lanes_sum, std::int64_t lanes, std::int64_t distance, std::int64_t n) {
  for (std::int64_t lane = 1; lane < lanes; ++lane) {
    const float* other = lanes_sum + lane * distance;
    for (std::int64_t i = 0; i < n; ++i) lanes_sum[i] += other[i];
  }
}

void write_key_gradients(const BackwardTask& task, const HeadGroup& g, const Range& block,
                         std::int64_t i, std::int64_t lanes, const GroupScratch& sums) {
  const AttentionBlocks& b = task.blocks;
  if (!task.gradients.has_dkv() || !b.holds_key(block.begin + i)) return;
  const AttentionGradients& to = task.gradients;
  const std::int64_t dim = b.head_dim();
  float* dk = sums.dk + i * dim;
  float* dv = sums.dv + i * dim;
  add_lanes(dk, lanes, b.max_keys() * dim, dim);
  add_lanes(dv, lanes, b.max_keys() * dim, dim);
  const std::int64_t key = block.begin + i;
  write_gradient_row(dk, b.shape().scale, dim, to.dkv_merge, to.dk.dtype, b.key_at(to.dk, g, key));
  write_gradient_row(dv, 1.0f, dim, to.dkv_merge, to.dv.dtype, b.key_at(to.dv, g, key));
}

void clear_query_gradients(const AttentionBlocks& b, std::int64_t block, const GroupScratch& sums) {
  const std::int64_t numel = b.max_rows() * b.head_dim();
  std::fill_n(sums.dq + block * numel, numel, 0.0f);
  if (sums.dp != nullptr) std::fill_n(sums.dp + block * numel, numel, 0.0f);
  const std::int64_t of_bias = b.max_rows() * num_parameters(b);
  std::fill_n(sums.dbias + block * of_bias, of_bias, 0.0f);
}

// A block's sums [R, D] as rows of `to`.
void write_query_rows(const BackwardTask& task, const HeadGroup& g, std::int64_t block,
                      const float* sums, const TensorView& to) {
  const AttentionBlocks& b = task.blocks;
  const Range queries = b.query_block(block);
  const float* row = sums + block * b.max_rows() * b.head_dim();
  for (std::int64_t h = 0; h < b.group(); ++h)
    for (std::int64_t i = queries.begin; i < queries.end(); ++i, row += b.head_dim())
      if (b.holds_query(i))
        write_gradient_row(row, b.shape().scale, b.head_dim(), task.gradients.dq_merge, to.dtype,
                           b.query_at(to, g, h, i));
}

void write_query_gradients(const BackwardTask& task, const HeadGroup& g, std::int64_t block,
                           const GroupScratch& sums) {
  const AttentionBlocks& b = task.blocks;
  if (!task.gradients.has_dq()) return;
  write_query_rows(task, g, block, sums.dq, task.gradients.dq);
  if (sums.dp != nullptr) write_query_rows(task, g, block, sums.dp, task.gradients.dp);
  const Range queries = b.query_block(block);
  if (!task.gradients.has_dbias()) return;
  const float* dbias = sums.dbias + block * b.max_rows() * num_parameters(b);
  for (std::int64_t h = 0; h < b.group(); ++h)
    for (std::int64_t i = queries.begin; i < queries.end(); ++i, dbias += num_parameters(b))
      if (b.holds_query(i))
        write_gradient_row(dbias, 1.0f, num_parameters(b), task.gradients.dq_merge, DType::f32,
                           reinterpret_cast<std::byte*>(b.bias_at(task.gradients.dbias, g, h, i)));
}

// The lanes' sums of the keys of distances, in their order, added to what earlier sequences gave.
void add_distance_gradients(const BackwardTask& task, const HeadGroup& g,
                            const GroupScratch& sums) {
  const AttentionBlocks& b = task.blocks;
  const std::int64_t dim = b.head_dim();
  const std::int64_t lane = num_distances(b) * dim;
  parallel_rows(num_distances(b), dim, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t d = begin; d < end; ++d) {
      add_lanes(sums.dr + d * dim, max_lanes(b), lane, dim);
      write_gradient_row(
          sums.dr + d * dim, b.shape().scale, dim, Merge::with_before, DType::f32,
          reinterpret_cast<std::byte*>(task.gradients.dr.row<float>(d) + g.kv_head * dim));
    }
  });
}

// One thread, one kv head of a sequence.
void differentiate_short(const BackwardTask& task, const HeadGroup& g, const GroupScratch& sums,
                         const LaneScratch& s) {
  const AttentionBlocks& b = task.blocks;
  for (std::int64_t i = 0; i < b.num_query_blocks(); ++i) {
    clear_query_gradients(b, i, sums);
    stack_queries(task, g, i, stacked_at(b, i, s));
  }
  for (std::int64_t j = 0; j < b.num_key_blocks(); ++j) {
    const Range block = b.key_block(j);
    if (!b.holds_keys(block)) continue;
    add_lane(task, g, j, 0, b.query_blocks_of(g.sequence, block), sums, s);
    for (std::int64_t i = 0; i < block.count; ++i) write_key_gradients(task, g, block, i, 1, sums);
  }
  for (std::int64_t i = 0; i < b.num_query_blocks(); ++i) write_query_gradients(task, g, i, sums);
}

// Keys whose gradients one thread writes at a time.
constexpr std::int64_t keys_of_piece = 32;

// All threads, one kv head of a sequence: `of_thread` gives each its scratch and poll.
template <class OfThread>
void differentiate_together(const BackwardTask& task, const HeadGroup& g, const GroupScratch& sums,
                            int threads, const OfThread& of_thread) {
  const AttentionBlocks& b = task.blocks;
  for_each_piece(
      b.num_query_blocks(), [&](std::int64_t i, int) { clear_query_gradients(b, i, sums); },
      threads);
  if (sums.dr != nullptr)
    std::fill_n(sums.dr, max_lanes(b) * num_distances(b) * b.head_dim(), 0.0f);
  for (std::int64_t j = 0; j < b.num_key_blocks(); ++j) {
    const Range block = b.key_block(j);
    if (!b.holds_keys(block)) continue;
    const Range query_blocks = b.query_blocks_of(g.sequence, block);
    const std::int64_t lanes = num_lanes(b, query_blocks);
    for_each_piece(
        lanes,
        [&](std::int64_t lane, int thread) {
          of_thread(thread, [&](const BackwardTask& of_lane, const LaneScratch& s) {
            add_lane(of_lane, g, j, lane, share_of(query_blocks, lane, lanes), sums, s);
          });
        },
        threads);
    parallel_blocks(block.count, keys_of_piece, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        write_key_gradients(task, g, block, i, lanes, sums);
    });
  }
  for_each_piece(
      b.num_query_blocks(), [&](std::int64_t i, int) { write_query_gradients(task, g, i, sums); },
      threads);
  if (sums.dr != nullptr) add_distance_gradients(task, g, sums);
}

template <class Scratch>
std::int64_t bytes_for(const AttentionBlocks& blocks) {
  Carver carver(nullptr);
  const Scratch counted(carver, blocks);
  return carver.bytes_from_null();
}

}  // namespace

WorkspaceSizes attention_backward_sizes(const AttentionBlocks& blocks) {
  const std::int64_t of_group = bytes_for<GroupScratch>(blocks);
  const std::int64_t of_lane = bytes_for<LaneScratch>(blocks);
  return is_long(blocks) ? WorkspaceSizes{of_group, of_lane}
                         : WorkspaceSizes{0, of_group + of_lane};
}

void attention_backward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                        const TensorView& v, const KeyRanges& ranges, const TensorView& lse,
                        const TensorView& delta, const TensorView& dout,
                        const AttentionGradients& gradients, const TensorView& workspace,
                        const Poll& poll) {
  const AttentionBlocks blocks(shape, q.dtype, ranges);
  const Poll no_poll;
  const WorkspaceSizes sizes = attention_workspace_sizes(blocks);
  const std::int64_t num_groups = blocks.num_groups();
  const int threads = attention_threads(blocks, workspace, num_groups * max_lanes(blocks));
  const auto task_of = [&](int thread) {
    return BackwardTask{blocks, q, k, v, lse, delta, dout, gradients, thread == 0 ? poll : no_poll};
  };
  const auto carver_of = [&](int thread) {
    return Carver(workspace.kernel_bytes() + sizes.shared + thread * sizes.per_thread);
  };
  if (is_long(blocks)) {
    Carver of_all(workspace.kernel_bytes());
    const GroupScratch sums(of_all, blocks);
    const auto of_thread = [&](int thread, const auto& compute) {
      Carver carver = carver_of(thread);
      compute(task_of(thread), LaneScratch(carver, blocks));
    };
    for (std::int64_t t = 0; t < num_groups; ++t)
      differentiate_together(task_of(0), blocks.head_group(t), sums, threads, of_thread);
  } else {
    const auto differentiate = [&](std::int64_t t, int thread) {
      Carver carver = carver_of(thread);
      const GroupScratch sums(carver, blocks);
      differentiate_short(task_of(thread), blocks.head_group(t), sums, LaneScratch(carver, blocks));
    };
    for_each_piece(num_groups, differentiate, threads);
  }
  if (poll) poll();  // the others may have taken all tasks
}

}  // namespace switchyard::kernels::cpu
