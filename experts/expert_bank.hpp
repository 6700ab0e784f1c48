// SwiGLU feed-forward networks over row ranges: expert e of the bank takes the rows
// [offsets[e], offsets[e + 1]).
//   y = down (silu(gate x) * (up x)),   gate and up as one product
// with another activation or biases of both products, if asked for.
// A dense feed-forward layer is a bank of one expert. On processors with caches rows are taken in
// blocks, of several experts where these have few, whose intermediate stays there; elsewhere all at
// once (kernels/products/grouped_linear.hpp). A row's bits depend neither on the ranks nor on the
// threads that share the work. The bank owns parameters. Its backward reads the rows it got and the
// product gate_up of each; who has not kept the product (an empty view) lets the backward compute
// it again, block by block, with the same bits. Everything else is in BankScratch.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "experts/expert_bias.hpp"
#include "experts/row_capacity.hpp"
#include "kernels/products/grouped_linear.hpp"
#include "kernels/rows/clamped_swiglu.hpp"
#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"

namespace switchyard {

struct BankSpec {
  std::string prefix;  // of the parameters' names
  std::string keys;    // of the configuration, that decide the parameters' shapes
  std::int64_t hidden = 0;
  std::int64_t intermediate = 0;
  DType compute = DType::f32;
  // Experts of all ranks: weights [E, 2 I, H] and [E, H, I]. 0: a dense feed-forward layer, one
  // network with weights [2 I, H] and [H, I].
  std::int64_t num_experts = 0;
  // Of them held by this rank, in the order of their row ranges; may be none.
  std::vector<std::int64_t> local_experts = {0};
  std::vector<SharedIndex> shared = {};  // experts that several ranks hold
  bool moves = false;                    // whether experts change places between steps
  Axis replicas = Axis::dense_replica;
  float initial_std = 0.02f;                       // of gate_up
  float output_std = 0.02f;                        // of down, which writes to the residual
  std::optional<kernels::SwigluClamp> clamp = {};  // none: plain SwiGLU
  bool has_bias = false;                           // of both products
};

// The units of exact sums (kernels/gradient_sum.hpp) of each expert's rows; none by default.
struct BankUnits {
  std::int64_t number = 0;
  std::int64_t rows = 0;  // of each, if the only expert takes all rows
  // Of a bank of one expert that takes num_rows rows, in units of unit_rows, or none if that is 0.
  static BankUnits of_all_rows(std::int64_t num_rows, std::int64_t unit_rows) {
    return unit_rows > 0 ? BankUnits{num_rows / unit_rows, unit_rows} : BankUnits{};
  }
};

// Rows of which a call takes those of some neighbouring experts.
struct BankRows {
  TensorView offsets;       // i32 [experts + 1] on the device, from 0 on; TensorView{} if the only
                            // expert takes all rows
  TensorView unit_offsets;  // of the backward pass, see there
  std::int64_t first_expert = 0;
  std::int64_t num_experts = 0;
};

class BankScratch {
 public:
  // num_experts: of the bank. For the number of threads that the kernels have now. Where all rows
  // are taken at once, the buffers follow the capacity's rows; without one they have max_rows.
  // delays_weights: whether there is room for what the gradients of weights need of all rows, which
  // follows the capacity. has_bias: of the bank.
  BankScratch(Device& device, std::int64_t max_rows, std::int64_t num_experts,
              std::int64_t intermediate, DType compute, RowCapacity* capacity = nullptr,
              const BankUnits& units = {}, bool delays_weights = false, bool has_bias = false);
  // A capacity knows where the buffers are.
  BankScratch(const BankScratch&) = delete;
  BankScratch& operator=(const BankScratch&) = delete;

 private:
  friend class ExpertBank;
  void add_units(Device& device, std::int64_t num_experts);
  // Rows of a weight gradient's products, at least: then fp32 gradients are seldom read again.
  static constexpr std::int64_t min_chunk_rows = 2 * kernels::gradient_chunk_rows;

  std::int64_t block_rows_;  // taken at once
  std::int64_t chunk_rows_;  // a block or several, whose weight gradients are taken at once
  Tensor block_offsets_;     // i32 [experts + 1]: of the block at hand, and of the chunk
  Tensor chunk_offsets_;
  Tensor unit_block_offsets_;  // i32 [experts * units + 1]: of the chunk by unit, as it is cut, and
  Tensor chunk_unit_offsets_;  // for whole experts; with exact sums only
  BankUnits units_;
  Tensor whole_unit_offsets_;  // i32 [units + 1]: of all rows, if they are one expert's
  Tensor gate_up_;             // compute type [block, 2 I]: where the caller keeps none
  Tensor act_;                 // compute type [chunk, I], or of all rows
  Tensor d_act_;               // compute type [block, I]
  Tensor d_gate_up_;           // compute type [chunk, 2 I], or of all rows
  Tensor ones_;                // compute type [chunk, 1], or of all rows: of biases
  Tensor half_;                // compute type [1, 1]: 0.5
};

class ExpertBank {
 public:
  // Registers `prefix`.gate_up.weight (gate rows first) and `prefix`.down.weight, with biases
  // `prefix`.gate_up.bias and `prefix`.down.bias.
  ExpertBank(ParameterStore& store, const BankSpec& spec);

  void pack_weights();
  // x: [R, H]; offsets: i32 [num_local_experts() + 1] on the device, from 0 to R, or TensorView{}
  // if the only expert takes all rows. Written: gate_up [R, 2 I], gate in the first I columns, kept
  // for the backward unless it is TensorView{}; and y [R, H].
  void forward(const TensorView& x, const TensorView& offsets, const TensorView& gate_up,
               const TensorView& y, BankScratch& scratch, const Pass& pass) const;
  // dy: [R, H]; x and gate_up of the forward pass (TensorView{}: computed again). dx [R, H] is
  // written, the gradients of the weights are added to and reported ready, also when no rows came.
  // unit_offsets: with exact sums (kernels/gradient_sum.hpp) where the rows of each unit of each
  // expert begin, i32 [num_local_experts() * units + 1], or TensorView{} if the only expert takes
  // all rows; otherwise empty.
  void backward(const TensorView& dy, const TensorView& x, const TensorView& offsets,
                const TensorView& unit_offsets, const TensorView& gate_up, const TensorView& dx,
                BankScratch& scratch, const Pass& pass) const;

  // The same for the rows of some experts.
  void forward(const BankRows& rows, const TensorView& x, const TensorView& gate_up,
               const TensorView& y, BankScratch& scratch, const Pass& pass) const;
  // The backward pass, gradients of weights included, of the rows of some experts, or of some rows
  // of an expert: where these are cut (RowCuts) no bit changes. Reports no gradient.
  void backward_part(const BankRows& rows, const TensorView& dy, const TensorView& x,
                     const TensorView& gate_up, const TensorView& dx, BankScratch& scratch,
                     const Pass& pass) const;
  // In two halves, for who has delays_weights. The first writes dx of the rows of some experts,
  // which begin at first_row among all; the second, of all rows, adds to the gradients of the
  // weights.
  void backward_input(const BankRows& rows, std::int64_t first_row, const TensorView& dy,
                      const TensorView& x, const TensorView& gate_up, const TensorView& dx,
                      BankScratch& scratch, const Pass& pass) const;
  void backward_weights(const BankRows& rows, const TensorView& dy, const TensorView& x,
                        BankScratch& scratch, const Pass& pass) const;
  void report_gradients(const Pass& pass) const;

  std::int64_t num_local_experts() const { return std::ssize(spec_.local_experts); }

 private:
  // What the gradients of weights need beside dy and x.
  struct Inner {
    TensorView act;
    TensorView d_gate_up;
    Inner rows(std::int64_t begin, std::int64_t end) const {
      return {act.slice_rows(begin, end), d_gate_up.slice_rows(begin, end)};
    }
  };
  // Of `num_rows` rows from `first_row` on.
  static Inner inner_rows(const BankScratch& scratch, std::int64_t first_row,
                          std::int64_t num_rows);
  // Rows [begin, end) of gate_up: a part of `kept`, or room in the scratch.
  static TensorView gate_up_block(const TensorView& kept, std::int64_t begin, std::int64_t end,
                                  const BankScratch& scratch);
  BankRows all_experts(const TensorView& offsets, const TensorView& unit_offsets) const {
    return {offsets, unit_offsets, 0, num_local_experts()};
  }
  // A parameter's value or gradient with a first dim of local experts.
  TensorView by_expert(const TensorView& whole) const;
  // visit(chunk): chunks of rows whose weight gradients are taken at once, with the offsets for
  // these; groups are numbered from rows.first_expert on.
  void for_each_chunk(const BankRows& rows, const TensorView& x, BankScratch& scratch,
                      const std::function<void(const kernels::UnitBlock&)>& visit) const;
  void activate(const TensorView& gate_up, const TensorView& act) const;
  // All views hold the rows of the block, whose groups are experts from `first_expert` on.
  void input_of_chunk(const kernels::RowBlock& chunk, std::int64_t first_expert,
                      const TensorView& dy, const TensorView& x, const TensorView& gate_up,
                      const TensorView& dx, const Inner& inner, BankScratch& scratch,
                      const Pass& pass) const;
  void weights_of_chunk(const kernels::UnitBlock& chunk, std::int64_t first_expert,
                        const TensorView& dy, const TensorView& x, const Inner& inner,
                        const BankScratch& scratch, const Pass& pass) const;

  BankSpec spec_;
  Parameter& gate_up_;
  Parameter& down_;
  std::optional<ExpertBias> gate_up_bias_, down_bias_;
  // By local expert: [2 I, H] and [H, I].
  std::vector<kernels::PackedWeight> gate_up_weights_;
  std::vector<kernels::PackedWeight> down_weights_;
};

}  // namespace switchyard
