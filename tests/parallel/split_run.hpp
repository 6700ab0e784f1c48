// One micro-batch through ContextAttention on this rank's part of a problem, and what came out
// beside the oracle's rows.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <string>

#include "parallel/context/context_attention.hpp"
#include "tests/parallel/dense_attention.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {

struct SplitCase {
  std::int64_t ring = 1;
  std::int64_t ulysses = 1;
  ContextMethod method = ContextMethod::ring;
  SequenceLayout layout = SequenceLayout::zigzag;
  bool pad = false;
  Progress progress = Progress::poll;
  bool exact = false;

  std::string text() const {
    return "ring " + std::to_string(ring) + " x ulysses " + std::to_string(ulysses) + ", " +
           std::string(name_of(method)) + ", " + std::string(name_of(layout)) +
           (pad ? ", padded" : "") + (exact ? ", exact" : "");
  }
};

inline ParallelConfig config_of(const SplitCase& split_case) {
  ParallelConfig config;
  config.context = split_case.ring * split_case.ulysses;
  config.context_split.ring = split_case.ring;
  config.context_split.ulysses = split_case.ulysses;
  config.context_split.method = split_case.method;
  config.context_split.exact = split_case.exact;
  return config;
}

// Squared norms, of the difference, of what is right, and of the sums of absolute values that what
// is right is made of.
struct Deviation {
  double difference = 0;
  double norm = 0;
  double terms = 0;
  double relative() const {
    return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
  }
  double relative_to_terms() const { return std::sqrt(difference / terms); }
};

class SplitRun {
 public:
  // Borrows the mesh and the oracle.
  SplitRun(const Mesh& mesh, const DenseAttention& dense, const SplitCase& split_case)
      : dense_(dense),
        p_(dense.p),
        pattern_(p_.pattern.value_or(p_.window)),
        device_(make_tested_device()),
        mesh_(mesh),
        split_(p_.length, split_case.ring, split_case.ulysses, split_case.layout, split_case.pad),
        positions_(split_.positions(mesh_.index(Axis::context))),
        compute_(p_.is_bf16 ? DType::bf16 : DType::f32),
        attention_(*device_, mesh_, sizes(), compute_, split_, {&pattern_, 1},
                   split_case.progress) {
    const std::int64_t rows = p_.num_sequences * std::ssize(positions_);
    const std::int64_t query_cols = p_.num_heads * p_.head_dim;
    const std::int64_t key_cols = p_.num_kv_heads * p_.head_dim;
    const auto make = [&](DType dtype, std::int64_t num_rows, std::int64_t cols) {
      return Tensor(*device_, Purpose::activation, dtype, {num_rows, cols});
    };
    qkv_ = make(compute_, rows, query_cols + 2 * key_cols);
    dqkv_ = make(compute_, rows, query_cols + 2 * key_cols);
    out_ = make(compute_, rows, query_cols);
    dout_ = make(compute_, rows, query_cols);
    lse_ = make(DType::f32, rows, p_.num_heads);
    if (pattern_.chosen_blocks > 0)
      chosen_ = make(DType::i32, rows, p_.num_kv_heads * pattern_.chosen_blocks);
    if (p_.num_sinks > 0) {
      sinks_ = make(DType::f32, p_.num_heads, p_.num_sinks);
      dsinks_ = make(DType::f32, p_.num_heads, p_.num_sinks);
    }
    put(q(qkv_), dense.q);
    put(k(qkv_), dense.k);
    put(v(qkv_), dense.v);
    put(dout_, dense.dout);
    for (std::size_t i = 0; i < dense.sinks.size(); ++i)
      sinks_->as<float>()[i] = static_cast<float>(dense.sinks[i]);
  }

  void run() {
    attention_.begin(p_.document_starts);
    const auto poll = [this] { ++num_polls_; };
    AttentionInputs inputs{q(qkv_), k(qkv_), v(qkv_)};
    if (!chosen_.empty()) inputs.chosen = chosen_;
    attention_.forward(pattern_, sinks_, inputs, out_, lse_, poll);
    attention_.backward(pattern_, sinks_, dsinks_, inputs, out_, lse_, dout_,
                        {q(dqkv_), k(dqkv_), v(dqkv_)}, poll);
  }

  // Of this rank's rows, by name. dsinks are sums over the rows of all ranks and not among them.
  std::map<std::string, Deviation> deviations() const {
    return {{"out", deviation(out_, dense_.out, dense_.out_terms)},
            {"lse", deviation(lse_, dense_.lse, dense_.lse_terms)},
            {"dq", deviation(q(dqkv_), dense_.dq, dense_.dq_terms)},
            {"dk", deviation(k(dqkv_), dense_.dk, dense_.dk_terms)},
            {"dv", deviation(v(dqkv_), dense_.dv, dense_.dv_terms)}};
  }
  const TensorView& dsinks() const { return dsinks_; }
  // Of the outputs, the rows at positions below `end`.
  std::string bits_of_outputs(std::int64_t end) const {
    std::string bits;
    for_each_row(1, [&](std::int64_t row, std::int64_t global) {
      if (global % p_.length >= end) return;
      const TensorView out = out_->slice_rows(row, row + 1);
      bits.append(reinterpret_cast<const char*>(out.data),
                  static_cast<std::size_t>(out.num_bytes()));
    });
    return bits;
  }
  // Every bit that came out.
  std::string bits() const {
    std::string bits;
    for (const Tensor* each : {&out_, &lse_, &dqkv_})
      bits.append(reinterpret_cast<const char*>((*each)->data),
                  static_cast<std::size_t>((*each)->num_bytes()));
    return bits;
  }
  // The names of results of which a row has other bits than that of the whole sequence.
  std::string other_bits_than(const SplitRun& whole) const {
    std::string names;
    const auto compare = [&](const std::string& name, const TensorView& rows,
                             const TensorView& of_whole) {
      const std::int64_t row_bytes = rows.cols() * size_of(rows.dtype);
      bool is_same = true;
      for_each_row(1, [&](std::int64_t row, std::int64_t global) {
        is_same = is_same &&
                  std::memcmp(rows.data + row * rows.row_stride * size_of(rows.dtype),
                              of_whole.data + global * of_whole.row_stride * size_of(rows.dtype),
                              static_cast<std::size_t>(row_bytes)) == 0;
      });
      if (!is_same) names += name + " ";
    };
    compare("out", out_, whole.out_);
    compare("lse", lse_, whole.lse_);
    compare("dq", q(dqkv_), q(whole.dqkv_));
    compare("dk", k(dqkv_), k(whole.dqkv_));
    compare("dv", v(dqkv_), v(whole.dqkv_));
    return names;
  }
  std::int64_t num_polls() const { return num_polls_; }

 private:
  AttentionSizes sizes() const {
    return {p_.num_sequences, p_.num_heads, p_.num_kv_heads, p_.head_dim,
            static_cast<float>(p_.scale())};
  }
  TensorView q(const TensorView& rows) const {
    return rows.slice_cols(0, p_.num_heads * p_.head_dim);
  }
  TensorView k(const TensorView& rows) const {
    const std::int64_t begin = p_.num_heads * p_.head_dim;
    return rows.slice_cols(begin, begin + p_.num_kv_heads * p_.head_dim);
  }
  TensorView v(const TensorView& rows) const {
    const std::int64_t cols = p_.num_kv_heads * p_.head_dim;
    return rows.slice_cols(rows.cols() - cols, rows.cols());
  }

  // Calls each(local row, that row's first element among the oracle's values).
  template <class Each>
  void for_each_row(std::int64_t cols, Each each) const {
    const std::int64_t num_local = std::ssize(positions_);
    for (std::int64_t s = 0; s < p_.num_sequences; ++s)
      for (std::int64_t i = 0; i < num_local; ++i)
        each(s * num_local + i, (s * p_.length + positions_[static_cast<std::size_t>(i)]) * cols);
  }

  void put(const TensorView& rows, const DenseAttention::Values& values) const {
    for_each_row(rows.cols(), [&](std::int64_t row, std::int64_t first) {
      for (std::int64_t c = 0; c < rows.cols(); ++c) {
        const auto value = static_cast<float>(values[static_cast<std::size_t>(first + c)]);
        if (compute_ == DType::bf16)
          rows.row<BFloat16>(row)[c] = to_bf16(value);
        else
          rows.row<float>(row)[c] = value;
      }
    });
  }

  Deviation deviation(const TensorView& rows, const DenseAttention::Values& values,
                      const DenseAttention::Values& terms) const {
    Deviation deviation;
    for_each_row(rows.cols(), [&](std::int64_t row, std::int64_t first) {
      for (std::int64_t c = 0; c < rows.cols(); ++c) {
        const double expected = values[static_cast<std::size_t>(first + c)];
        const double actual = rows.dtype == DType::bf16
                                  ? static_cast<double>(to_float(rows.row<BFloat16>(row)[c]))
                                  : static_cast<double>(rows.row<float>(row)[c]);
        deviation.difference += (actual - expected) * (actual - expected);
        deviation.norm += expected * expected;
        const double size = terms[static_cast<std::size_t>(first + c)];
        deviation.terms += size * size;
      }
    });
    return deviation;
  }

  const DenseAttention& dense_;
  const AttentionProblem& p_;
  kernels::KeyPattern pattern_;
  std::unique_ptr<Device> device_;
  const Mesh& mesh_;
  SequenceSplit split_;
  std::vector<std::int32_t> positions_;
  DType compute_;
  ContextAttention attention_;
  Tensor qkv_, dqkv_, out_, dout_, lse_, sinks_, dsinks_, chosen_;
  std::int64_t num_polls_ = 0;
};

}  // namespace switchyard::test
