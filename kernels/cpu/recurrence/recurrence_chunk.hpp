// One chunk of one head of kernels/recurrence/linear_recurrence.hpp as dense fp32 blocks, and its
// formulas. Legend: n tokens, d_k, w = d_v'.
#pragma once

#include <cstddef>

#include "kernels/cpu/attention/attention_blocks.hpp"
#include "kernels/cpu/products/block_product.hpp"
#include "kernels/recurrence/linear_recurrence.hpp"

namespace switchyard::kernels::cpu {

// Tokens that follow each other in one document: rows of the tensors.
struct Span {
  std::int64_t run = 0;
  std::int64_t row = 0;  // the first, of all sequences' rows
  std::int64_t count = 0;
  std::int64_t position = 0;  // of the first
  bool begins = false;        // a document, so that the state is empty before
};
// Of one sequence, in order; no run is without.
std::vector<Span> spans_of(const RecurrenceShape& shape, std::int64_t sequence);

// Columns begin ... begin + cols - 1 of consecutive rows of a tensor.
struct BlockPlace {
  std::int64_t row = 0;
  std::int64_t count = 0;
  std::int64_t begin = 0;
  std::int64_t cols = 0;
};
// To a block whose rows lie `step` elements apart, times a factor, and back.
void load_block(const TensorView& from, const BlockPlace& place, float factor, float* block,
                std::int64_t step);
void store_block(const float* block, std::int64_t step, float factor, const TensorView& to,
                 const BlockPlace& place);

// In how many parts the heads of a group are differentiated, where sequences and groups are too few
// for several threads: sums over a group's heads are then made part by part, and added up. A
// function of sizes alone.
std::int64_t parts_of_group(const RecurrenceShape& shape);

// Scratch of one thread. Blocks are overwritten by each chunk.
struct ChunkScratch {
  ChunkScratch(Carver& carver, const RecurrenceShape& shape);
  static std::int64_t bytes(const RecurrenceShape& shape);

  float *q, *k;     // [n, d_k]
  float* k_turned;  // [d_k, n]
  float* v;         // [n, w]: as the recurrence takes it
  float* raw_v;     // [n, w]: as it is in memory, and 0 behind; where there are steps or a skip
  float* steps;     // [n]
  float *sums, *grow, *fade;  // [n]: G, E, F
  float* betas;               // [n]
  float *pairs, *lower;       // [n, n]: (Q K^T) D; M
  float *x, *u;               // [n, w]: V - E (K S); U
  float* out;                 // [n, w]
  float* faded;               // [n, max(d_k, w)]: rows times a factor
  // Backward.
  float *dout, *du, *dx;    // [n, w]
  float* u_turned;          // [w, n]
  float* state_turned;      // [w, d_k]
  float* d_state_turned;    // [w, d_k]
  float *dpairs, *dlower;   // [n, n]
  float *dq, *dk, *dk_add;  // [n, d_k]: what subtracts from the gates' gradients, and what adds
  float* by_keys;           // [n, d_k]
  float* by_values;         // [n, w]
  float* wide;              // [n, d_k]: U of a transition
  float *dgates, *dbetas;   // [n]
  float *by_token, *more_by_token;  // [n]
  float *of_reading, *of_writing;   // [n]: to dgates, see finish_gates()
  float* state;                     // [d_k, max(d_k, w)]: one that runs along
  float* d_state;                   // [d_k, w]
  float* group_dq;                  // [n, d_k] of all rows of a sequence, where heads share keys
  float* group_dk;
  float* states;  // [chunks of a sequence + 1, d_k, w]
  // Of the delta rule, from one pass over a sequence's chunks for the next: X and U of all rows, M
  // of all chunks.
  float *kept_x, *kept_u;  // [rows of a sequence, w]
  float* kept_lower;       // [chunks of a sequence, n, n]

  // With x, u and lower where those of a chunk are kept: its first row in the span, and its number.
  ChunkScratch of_chunk(const RecurrenceShape& shape, std::int64_t row, std::int64_t number) const;
};

class Chunk {
 public:
  Chunk(const RecurrenceShape& shape, const RecurrenceInputs& inputs, std::int64_t head,
        const ChunkScratch& scratch)
      : shape_(shape), inputs_(inputs), head_(head), s_(scratch) {}

  // Loads rows row ... row + count - 1 of the tensors.
  void load_keys(std::int64_t row, std::int64_t count);
  void load_queries();
  void load_values();
  // (I + M), of the delta rule: from the keys.
  void make_lower();

  // U and X of the delta rule, from the state [d_k, w] before the chunk; nothing without it.
  void correct(const float* state);
  // The state before the chunk becomes that behind it, from the values or U.
  void move(float* state);
  void advance(float* state);  // both
  // As advance() for a state [d_k, d_k] and values of 0: what the chunk makes of any state.
  void advance_transition(float* state);
  // Fills `pairs`; nothing where tokens of a chunk do not see each other.
  void make_pairs();
  // O from the state before the chunk, and U.
  void read(const float* state);

  // Backward. d_state [d_k, w]: of the state behind the chunk; becomes that of the state before it.
  // From dout alone, without the gradients of anything else: reads q, k, pairs and the lower.
  void retreat(float* d_state);
  // With all gradients: fills dq (of scaled queries), dk and dk_add, dv(), dgates and dbetas
  // of the scratch. state: before the chunk.
  void differentiate(const float* state, float* d_state);
  const float* dv() const { return shape_.delta ? s_.dx : s_.du; }

  std::int64_t row() const { return row_; }
  std::int64_t count() const { return n_; }
  std::int64_t group() const { return head_ / (shape_.num_heads / shape_.num_groups); }
  float gate_of_chunk() const;  // e^{G_C}

 private:
  struct Factors {
    bool a_transposed = false;
    Into into = Into::replace;
    Triangle triangle = Triangle::none;
  };
  // c [m, cols] = a b, or as `factors` say; dense.
  void product(std::int64_t m, std::int64_t cols, std::int64_t k, const float* a, const float* b,
               float* c, Factors factors) const;
  const float* keys_turned();
  const float* sums() const { return inputs_.gates.empty() ? nullptr : s_.sums; }
  void prepare_values(const float* state, std::int64_t cols, const float* v, float* x, float* u);
  void move_state(float* state, std::int64_t cols, const float* u);
  void make_du(const float* d_state);
  void add_across(const float* dpairs, const float* pairs, float factor);
  void finish_gates(float of_state);

  const RecurrenceShape& shape_;
  const RecurrenceInputs& inputs_;
  std::int64_t head_;
  const ChunkScratch& s_;
  std::int64_t row_ = 0;
  std::int64_t n_ = 0;
  bool has_turned_keys_ = false;
};

}  // namespace switchyard::kernels::cpu
