#include "kernels/cpu/attention/attention.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "kernels/cpu/attention/attention_backward.hpp"
#include "kernels/cpu/attention/attention_blocks.hpp"
#include "kernels/cpu/attention/attention_distances.hpp"
#include "kernels/cpu/attention/attention_output.hpp"
#include "kernels/threads.hpp"

namespace switchyard::kernels::cpu {

namespace {

// One thread's scratch. R rows of a query block, N keys of a key block, D head_dim.
struct ForwardScratch {
  ForwardScratch(Carver& carver, const AttentionBlocks& b) {
    const std::int64_t rows = b.max_rows();
    const std::int64_t keys = b.max_keys();
    q = carver.take<std::byte>(b.operand_bytes(rows * b.head_dim()));
    k = carver.take<std::byte>(b.operand_bytes(keys * b.head_dim()));
    v = carver.take<std::byte>(b.operand_bytes(keys * b.head_dim()));
    scores = carver.take<float>(rows * keys);
    probs = carver.take<std::byte>(b.operand_bytes(rows * keys));
    out = carver.take<float>(rows * b.head_dim());
    max = carver.take<float>(rows);
    sum = carver.take<float>(rows);
    from = carver.take<std::int32_t>(rows);
    to = carver.take<std::int32_t>(rows);
    part_from = carver.take<std::int32_t>(rows);
    part_to = carver.take<std::int32_t>(rows);
    scratchpad = carver.take<std::byte>(scratchpad_bytes);
    distances.emplace(carver, b, false);
  }
  std::optional<DistanceScratch> distances;
  std::byte* q;             // [R, D]
  std::byte* k;             // [N, D]
  std::byte* v;             // [N, D]
  float* scores;            // [R, N]
  std::byte* probs;         // [R, N]
  float* out;               // [R, D]
  float* max;               // [R]
  float* sum;               // [R]
  std::int32_t* from;       // [R], visible keys of the block
  std::int32_t* to;         // [R]
  std::int32_t* part_from;  // [R], of a part of it
  std::int32_t* part_to;    // [R]
  std::byte* scratchpad;
};

struct ForwardTask {
  const AttentionBlocks& blocks;
  const TensorView& q;
  const TensorView& k;
  const TensorView& v;
  const TensorView& out;
  const TensorView& lse;
  Merge merge;
  const Poll& poll;  // empty for all threads but the calling one
};

// What a query block attends to at once: keys of one range, or of several that follow each other
// so that each query still sees one range of them all. Patterns of blocks have many short ranges.
class KeyTile {
 public:
  KeyTile(const AttentionBlocks& blocks, const HeadGroup& g, const Range& queries,
          const ForwardScratch& scratch)
      : blocks_(blocks), g_(g), queries_(queries), s_(scratch) {}

  // False: they do not fit behind what is there.
  bool add(std::int64_t set, const Range& keys) {
    blocks_.find_seen(set, g_.sequence, queries_, keys, s_.part_from, s_.part_to);
    if (num_parts_ > 0 && !fits(keys)) return false;
    const auto before = static_cast<std::int32_t>(num_keys_);
    for (std::int64_t i = 0; i < queries_.count; ++i) {
      if (num_parts_ > 0 && s_.part_from[i] == s_.part_to[i]) continue;
      if (num_parts_ == 0 || s_.from[i] == s_.to[i]) s_.from[i] = before + s_.part_from[i];
      s_.to[i] = before + s_.part_to[i];
    }
    parts_[static_cast<std::size_t>(num_parts_++)] = keys;
    num_keys_ += keys.count;
    return true;
  }
  void clear() { num_parts_ = num_keys_ = 0; }
  std::int64_t num_keys() const { return num_keys_; }
  const Range& first_keys() const { return parts_.front(); }
  // Rows of queries as softmax_block reads them; no more is added then.
  void show_to_rows() const { blocks_.spread_to_rows(queries_, s_.from, s_.to); }
  void gather(const TensorView& from, std::byte* block) const {
    std::int64_t row = 0;
    for (std::int64_t p = 0; p < num_parts_; ++p) {
      const Range& keys = parts_[static_cast<std::size_t>(p)];
      blocks_.copy_keys(from, g_, keys, block + blocks_.operand_bytes(row * blocks_.head_dim()));
      row += keys.count;
    }
    blocks_.pad_keys(num_keys_, block);
  }

 private:
  static constexpr std::int64_t max_parts = 16;
  bool fits(const Range& keys) const {
    const AttentionShape& shape = blocks_.shape();  // what goes by distance takes one range
    if (!shape.slopes.empty() || !shape.bias.values.empty() || shape.num_distances > 0)
      return false;
    if (num_parts_ == max_parts || num_keys_ + keys.count > blocks_.max_keys()) return false;
    for (std::int64_t i = 0; i < queries_.count; ++i) {
      if (s_.part_from[i] == s_.part_to[i] || s_.from[i] == s_.to[i]) continue;
      if (s_.to[i] != num_keys_ || s_.part_from[i] != 0) return false;
    }
    return true;
  }

  const AttentionBlocks& blocks_;
  const HeadGroup& g_;
  const Range& queries_;
  const ForwardScratch& s_;
  std::array<Range, max_parts> parts_;
  std::int64_t num_parts_ = 0, num_keys_ = 0;
};

// Scores of one tile, softmax over what has been seen so far, and its share of the output.
void attend_to_keys(const ForwardTask& task, const HeadGroup& g, const Range& queries,
                    const KeyTile& tile, bool is_first, const ForwardScratch& s) {
  const AttentionBlocks& b = task.blocks;
  const std::int64_t rows = b.padded_rows(queries.count);
  const std::int64_t cols = AttentionBlocks::padded_keys(tile.num_keys());
  const std::int64_t dim = b.head_dim();
  tile.gather(task.k, s.k);
  tile.gather(task.v, s.v);
  multiply({.m = rows,
            .n = cols,
            .k = dim,
            .operands = b.operands(),
            .result = DType::f32,
            .lda = dim,
            .ldb = dim,
            .ldc = cols,
            .b_transposed = true},
           s.q, s.k, reinterpret_cast<std::byte*>(s.scores), s.scratchpad);
  AttentionDistances(b).add_scores(g, queries, tile.first_keys(), s.scores, *s.distances);
  b.add_by_distance(g, queries, tile.first_keys(), s.scores);
  tile.show_to_rows();
  softmax_block({.scores = s.scores,
                 .rows = rows,
                 .cols = cols,
                 .from = s.from,
                 .to = s.to,
                 .scale = b.scale_log2(),
                 .store = b.store_as()},
                {.max = s.max, .sum = s.sum, .out = s.out, .head_dim = dim}, s.probs);
  multiply({.m = rows,
            .n = dim,
            .k = cols,
            .operands = b.operands(),
            .result = DType::f32,
            .lda = cols,
            .ldb = dim,
            .ldc = dim,
            .accumulate = !is_first},
           s.probs, s.v, reinterpret_cast<std::byte*>(s.out), s.scratchpad);
}

void write_output(const ForwardTask& task, const HeadGroup& g, const Range& queries,
                  const ForwardScratch& s) {
  const AttentionBlocks& b = task.blocks;
  std::int64_t row = 0;
  for (std::int64_t h = 0; h < b.group(); ++h)
    for (std::int64_t i = queries.begin; i < queries.end(); ++i, ++row) {
      if (!b.holds_query(i)) continue;
      write_output_row({.out = s.out + row * b.head_dim(), .max = s.max[row], .sum = s.sum[row]},
                       b.head_dim(), task.merge, task.out.dtype, b.query_at(task.out, g, h, i),
                       *b.value_at(task.lse, g, h, i));
    }
}

void attend(const ForwardTask& task, const HeadGroup& g, const Range& queries,
            const ForwardScratch& s) {
  const AttentionBlocks& b = task.blocks;
  if (!b.holds_queries(queries)) return;
  std::fill_n(s.sum, b.max_rows(), 0.0f);
  b.gather_queries(task.q, g, queries, s.q);
  bool is_first = true;
  KeyTile tile(b, g, queries, s);
  const auto attend_to_tile = [&] {
    if (tile.num_keys() == 0) return;
    attend_to_keys(task, g, queries, tile, is_first, s);
    is_first = false;
    tile.clear();
    if (task.poll) task.poll();
  };
  for (std::int64_t set = 0; set < b.num_sets(); ++set) {
    const Range key_blocks = b.key_blocks_of(set, g.sequence, queries);
    for (std::int64_t j = key_blocks.begin; j < key_blocks.end(); ++j) {
      const Range keys = b.key_block(j, set, g.sequence, queries);
      if (keys.count == 0 || tile.add(set, keys)) continue;
      attend_to_tile();
      tile.add(set, keys);
    }
  }
  attend_to_tile();
  write_output(task, g, queries, s);
}

std::int64_t forward_bytes(const AttentionBlocks& blocks) {
  Carver carver(nullptr);
  const ForwardScratch counted(carver, blocks);
  return carver.bytes_from_null();
}

}  // namespace

WorkspaceSizes attention_workspace_sizes(const AttentionBlocks& blocks) {
  const AttentionBlocks widest = blocks.with_widest_operands();
  const WorkspaceSizes backward = attention_backward_sizes(widest);
  return {backward.shared, std::max(forward_bytes(widest), backward.per_thread)};
}

std::int64_t attention_workspace_bytes(const AttentionShape& shape, DType dtype, int num_threads) {
  const WorkspaceSizes sizes = attention_workspace_sizes(AttentionBlocks(shape, dtype));
  return sizes.shared + sizes.per_thread * num_threads;
}

int attention_threads(const AttentionBlocks& blocks, const TensorView& workspace,
                      std::int64_t num_tasks) {
  const WorkspaceSizes sizes = attention_workspace_sizes(blocks);
  const std::int64_t places = (workspace.num_bytes() - sizes.shared) / sizes.per_thread;
  return static_cast<int>(std::max<std::int64_t>(
      1, std::min({static_cast<std::int64_t>(num_threads()), places, num_tasks})));
}

void attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                       const TensorView& v, const KeyRanges& ranges, const TensorView& out,
                       const TensorView& lse, Merge merge, const TensorView& workspace,
                       const Poll& poll) {
  const AttentionBlocks blocks(shape, q.dtype, ranges);
  const std::int64_t num_blocks = blocks.num_query_blocks();
  const std::int64_t num_tasks = blocks.num_groups() * num_blocks;
  const WorkspaceSizes sizes = attention_workspace_sizes(blocks);
  const int threads = attention_threads(blocks, workspace, num_tasks);
  const Poll no_poll;
  const auto attend_to = [&](std::int64_t t, int thread) {
    Carver carver(workspace.kernel_bytes() + sizes.shared + thread * sizes.per_thread);
    const ForwardScratch scratch(carver, blocks);
    const ForwardTask task{blocks, q, k, v, out, lse, merge, thread == 0 ? poll : no_poll};
    attend(task, blocks.head_group(t / num_blocks),  // the blocks that see most keys come first
           blocks.query_block(num_blocks - 1 - t % num_blocks), scratch);
  };
  for_each_piece(num_tasks, attend_to, threads);
  if (poll) poll();  // the others may have taken all tasks
}

}  // namespace switchyard::kernels::cpu
