// The assignment of a sequence's tokens to experts of kernels/routing/select_sequences.hpp: a flow
// of the least cost, found by adding one (token, choice) after the other along the shortest path of
// the residual network. Its nodes are the experts: a step from e to f takes a token from e to f, at
// the price of what its score loses. Scores are whole numbers, so no rounding closes a cycle.
//
// Every expert has room for floor(L k / E) tokens, and L k mod E of them for one more. An expert
// that wants this extra place of another one takes it over at no price; that one then passes a
// token on.
#pragma once

#include <cstdint>
#include <vector>

namespace switchyard::kernels::cpu {

class BalancedAssignment {
 public:
  BalancedAssignment(std::int64_t num_tokens, std::int64_t num_experts, std::int64_t top_k);

  void set_scores(std::int64_t token, const float* scores);
  void solve();
  // top_k experts, highest score first, ties to the lower expert.
  void write_experts(std::int64_t token, std::int32_t* experts) const;

 private:
  struct Step {
    std::int64_t price = 0;   // what the sum of scores loses
    std::int32_t token = -1;  // that moves; -1: none does
  };

  std::int64_t score(std::int64_t token, std::int64_t expert) const {
    return scores_[static_cast<std::size_t>(token * num_experts_ + expert)];
  }
  bool has(std::int64_t token, std::int64_t expert) const {
    return has_[static_cast<std::size_t>(token * num_experts_ + expert)] != 0;
  }
  void assign(std::int64_t token, std::int64_t expert, bool value);
  Step& step(std::int64_t from, std::int64_t to) {
    return steps_[static_cast<std::size_t>(from * num_experts_ + to)];
  }
  // The cheapest token of `from` for each other expert, again after `from` or a token of it
  // changed.
  void find_steps(std::int64_t from);
  void add_choice(std::int64_t token);
  void find_paths(std::int64_t token);
  bool takes_over(std::int64_t from, std::int64_t to) const;
  bool has_room(std::int64_t expert) const;

  std::int64_t num_tokens_, num_experts_, top_k_;
  std::int64_t share_;      // floor(L k / E)
  std::int64_t num_extra_;  // experts that may have one more
  std::int64_t extra_used_ = 0;
  std::vector<std::int64_t> scores_;               // [L, E]
  std::vector<std::uint8_t> has_;                  // [L, E]
  std::vector<std::vector<std::int32_t>> tokens_;  // [E]: of each expert, ascending
  std::vector<Step> steps_;                        // [E, E]
  std::vector<std::int64_t> distance_;             // [E]: of a path from the token that is added
  std::vector<std::int64_t> before_;               // [E]: the expert before it there; -1: the token
};

}  // namespace switchyard::kernels::cpu
