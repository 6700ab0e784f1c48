#include "kernels/cpu/routing/select_sequences.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/routing/balanced_assignment.hpp"

namespace switchyard::kernels::cpu {

namespace {

// body(first row) for each sequence.
template <class Body>
void for_each_sequence(const TensorView& rows, std::int64_t sequence_length, Body body) {
  parallel_blocks(rows.rows(), sequence_length,
                  [&](std::int64_t begin, std::int64_t) { body(begin); });
}

constexpr int most_turns = 100;
constexpr double small_change = 1e-4;

// A matrix exp(logits) of which rows and columns are scaled by turns; the matrix is kept in `plan`.
class Sinkhorn {
 public:
  Sinkhorn(Rows<float> plan, std::int64_t first, std::int64_t length, std::int64_t num_experts)
      : plan_(plan),
        first_(first),
        length_(length),
        num_experts_(num_experts),
        of_row_(static_cast<std::size_t>(length), 1.0),
        of_column_(static_cast<std::size_t>(num_experts), 1.0) {}

  void run(Rows<float> logits) {
    for (std::int64_t t = 0; t < length_; ++t) exponentiate(logits[first_ + t], plan_[first_ + t]);
    for (int turn = 0; turn < most_turns; ++turn) {
      scale_rows();
      if (scale_columns() <= small_change) break;
    }
    scale_rows();
    for (std::int64_t t = 0; t < length_; ++t)
      for (std::int64_t e = 0; e < num_experts_; ++e)
        plan_[first_ + t][e] =
            static_cast<float>(of_row_[place(t)] * plan_[first_ + t][e] * of_column_[place(e)]);
  }

 private:
  static std::size_t place(std::int64_t i) { return static_cast<std::size_t>(i); }

  // Row by row relative to the largest; what would be 0 stays a number, so no column is empty.
  void exponentiate(const float* logits, float* out) const {
    const float largest = *std::max_element(logits, logits + num_experts_);
    for (std::int64_t e = 0; e < num_experts_; ++e)
      out[e] = std::max(std::exp(logits[e] - largest), std::numeric_limits<float>::min());
  }

  void scale_rows() {
    for (std::int64_t t = 0; t < length_; ++t) {
      double sum = 0;
      for (std::int64_t e = 0; e < num_experts_; ++e)
        sum += plan_[first_ + t][e] * of_column_[place(e)];
      of_row_[place(t)] = 1 / sum;
    }
  }

  // The largest relative change.
  double scale_columns() {
    std::vector<double> sums(place(num_experts_), 0.0);
    for (std::int64_t t = 0; t < length_; ++t)
      for (std::int64_t e = 0; e < num_experts_; ++e)
        sums[place(e)] += of_row_[place(t)] * plan_[first_ + t][e];
    double change = 0;
    for (std::int64_t e = 0; e < num_experts_; ++e) {
      const double scale =
          static_cast<double>(length_) / static_cast<double>(num_experts_) / sums[place(e)];
      change = std::max(change, std::abs(scale / of_column_[place(e)] - 1));
      of_column_[place(e)] = scale;
    }
    return change;
  }

  Rows<float> plan_;
  std::int64_t first_, length_, num_experts_;
  std::vector<double> of_row_, of_column_;
};

float or_lowest(float score) {
  return std::isnan(score) ? -std::numeric_limits<float>::infinity() : score;
}

// Of one sequence.
class ExpertChoice {
 public:
  ExpertChoice(Rows<float> scores, std::int64_t first, std::int64_t length,
               std::int64_t num_experts)
      : scores_(scores),
        first_(first),
        num_experts_(num_experts),
        experts_of_(static_cast<std::size_t>(length)),
        order_(static_cast<std::size_t>(length)) {}

  void choose(std::int64_t tokens_of_expert) {
    for (std::int64_t e = 0; e < num_experts_; ++e) {
      std::iota(order_.begin(), order_.end(), std::int64_t{0});
      const auto end = order_.begin() + tokens_of_expert;
      std::partial_sort(order_.begin(), end, order_.end(), [&](std::int64_t a, std::int64_t b) {
        const float of_a = score(a, e), of_b = score(b, e);
        return of_a != of_b ? of_a > of_b : a < b;
      });
      std::for_each(order_.begin(), end, [&](std::int64_t t) {
        experts_of_[static_cast<std::size_t>(t)].push_back(static_cast<std::int32_t>(e));
      });
    }
  }

  void write(Rows<std::int32_t> indices, std::int64_t top_k) {
    for (std::size_t t = 0; t < experts_of_.size(); ++t) {
      std::vector<std::int32_t>& experts = experts_of_[t];
      const auto token = static_cast<std::int64_t>(t);
      std::stable_sort(experts.begin(), experts.end(), [&](std::int32_t a, std::int32_t b) {
        return score(token, a) > score(token, b);
      });
      experts.resize(static_cast<std::size_t>(top_k), -1);
      std::copy(experts.begin(), experts.end(), indices[first_ + token]);
    }
  }

 private:
  float score(std::int64_t t, std::int64_t e) const { return or_lowest(scores_[first_ + t][e]); }

  Rows<float> scores_;
  std::int64_t first_, num_experts_;
  std::vector<std::vector<std::int32_t>> experts_of_;
  std::vector<std::int64_t> order_;
};

}  // namespace

void sinkhorn_plan(const TensorView& logits, std::int64_t sequence_length, const TensorView& plan) {
  for_each_sequence(logits, sequence_length, [&](std::int64_t first) {
    Sinkhorn(rows_of<float>(plan), first, sequence_length, logits.cols())
        .run(rows_of<float>(logits));
  });
}

void select_balanced(const TensorView& scores, std::int64_t sequence_length,
                     const TensorView& indices) {
  const Rows<float> rows = rows_of<float>(scores);
  const Rows<std::int32_t> out = rows_of<std::int32_t>(indices);
  const std::int64_t top_k = indices.cols();
  for_each_sequence(scores, sequence_length, [&](std::int64_t first) {
    BalancedAssignment assignment(sequence_length, scores.cols(), top_k);
    for (std::int64_t t = 0; t < sequence_length; ++t) assignment.set_scores(t, rows[first + t]);
    assignment.solve();
    for (std::int64_t t = 0; t < sequence_length; ++t) assignment.write_experts(t, out[first + t]);
  });
}

void select_by_experts(const TensorView& scores, std::int64_t sequence_length, double capacity,
                       const TensorView& indices) {
  const std::int64_t num_experts = scores.cols();
  const std::int64_t tokens_of_expert =
      std::clamp<std::int64_t>(std::llround(capacity * static_cast<double>(sequence_length) /
                                            static_cast<double>(num_experts)),
                               1, sequence_length);
  for_each_sequence(scores, sequence_length, [&](std::int64_t first) {
    ExpertChoice choice(rows_of<float>(scores), first, sequence_length, num_experts);
    choice.choose(tokens_of_expert);
    choice.write(rows_of<std::int32_t>(indices), indices.cols());
  });
}

namespace {

// A choice of an expert: where it stands in indices, and its score.
struct Chosen {
  std::int32_t* choice;
  float score;
};

// The choices of one sequence, by expert and in the order of tokens.
std::vector<std::vector<Chosen>> choices_by_expert(Rows<float> scores, Rows<std::int32_t> indices,
                                                   std::int64_t first, std::int64_t length,
                                                   std::int64_t num_experts, std::int64_t top_k) {
  std::vector<std::vector<Chosen>> by_expert(static_cast<std::size_t>(num_experts));
  for (std::int64_t t = first; t < first + length; ++t)
    for (std::int64_t j = 0; j < top_k; ++j)
      if (const std::int32_t e = indices[t][j]; e >= 0)
        by_expert[static_cast<std::size_t>(e)].push_back({&indices[t][j], scores[t][e]});
  return by_expert;
}

}  // namespace

void drop_over_capacity(const TensorView& scores, std::int64_t sequence_length,
                        std::int64_t capacity, DropBy drop_by, const TensorView& indices) {
  for_each_sequence(scores, sequence_length, [&](std::int64_t first) {
    for (std::vector<Chosen>& chosen :
         choices_by_expert(rows_of<float>(scores), rows_of<std::int32_t>(indices), first,
                           sequence_length, scores.cols(), indices.cols())) {
      if (std::ssize(chosen) <= capacity) continue;
      if (drop_by == DropBy::score)
        std::stable_sort(chosen.begin(), chosen.end(),
                         [](const Chosen& a, const Chosen& b) { return a.score > b.score; });
      for (auto over = chosen.begin() + capacity; over != chosen.end(); ++over) *over->choice = -1;
    }
  });
}

}  // namespace switchyard::kernels::cpu
