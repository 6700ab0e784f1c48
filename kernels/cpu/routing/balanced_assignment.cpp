#include "kernels/cpu/routing/balanced_assignment.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace switchyard::kernels::cpu {

namespace {

constexpr std::int64_t unreachable = std::numeric_limits<std::int64_t>::max() / 4;
constexpr float score_limit = 0x1p20f;
constexpr float score_unit = 0x1p24f;

std::size_t place(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

std::int64_t rounded(float score) {
  const float bounded =
      std::isnan(score) ? -score_limit : std::clamp(score, -score_limit, score_limit);
  return std::llround(static_cast<double>(bounded) * static_cast<double>(score_unit));
}

}  // namespace

BalancedAssignment::BalancedAssignment(std::int64_t num_tokens, std::int64_t num_experts,
                                       std::int64_t top_k)
    : num_tokens_(num_tokens),
      num_experts_(num_experts),
      top_k_(top_k),
      share_(num_tokens * top_k / num_experts),
      num_extra_(num_tokens * top_k % num_experts),
      scores_(place(num_tokens * num_experts)),
      has_(place(num_tokens * num_experts), 0),
      tokens_(place(num_experts)),
      steps_(place(num_experts * num_experts)),
      distance_(place(num_experts)),
      before_(place(num_experts)) {}

void BalancedAssignment::set_scores(std::int64_t token, const float* scores) {
  for (std::int64_t e = 0; e < num_experts_; ++e)
    scores_[place(token * num_experts_ + e)] = rounded(scores[e]);
}

void BalancedAssignment::solve() {
  for (std::int64_t e = 0; e < num_experts_; ++e) find_steps(e);
  for (std::int64_t token = 0; token < num_tokens_; ++token)
    for (std::int64_t j = 0; j < top_k_; ++j) add_choice(token);
}

void BalancedAssignment::write_experts(std::int64_t token, std::int32_t* experts) const {
  std::int32_t* end = experts;
  for (std::int64_t e = 0; e < num_experts_; ++e)
    if (has(token, e)) *end++ = static_cast<std::int32_t>(e);
  std::stable_sort(experts, end, [&](std::int32_t a, std::int32_t b) {
    return score(token, a) > score(token, b);
  });
}

void BalancedAssignment::assign(std::int64_t token, std::int64_t expert, bool value) {
  has_[place(token * num_experts_ + expert)] = value ? 1 : 0;
  std::vector<std::int32_t>& tokens = tokens_[place(expert)];
  const auto number = static_cast<std::int32_t>(token);
  const auto at = std::lower_bound(tokens.begin(), tokens.end(), number);
  if (value)
    tokens.insert(at, number);
  else
    tokens.erase(at);
}

void BalancedAssignment::find_steps(std::int64_t from) {
  for (std::int64_t to = 0; to < num_experts_; ++to) step(from, to) = {unreachable, -1};
  for (const std::int32_t token : tokens_[place(from)])
    for (std::int64_t to = 0; to < num_experts_; ++to) {
      if (has(token, to)) continue;
      const std::int64_t price = score(token, from) - score(token, to);
      if (price < step(from, to).price) step(from, to) = {price, token};
    }
}

bool BalancedAssignment::takes_over(std::int64_t from, std::int64_t to) const {
  return std::ssize(tokens_[place(from)]) == share_ && std::ssize(tokens_[place(to)]) == share_ + 1;
}

bool BalancedAssignment::has_room(std::int64_t expert) const {
  const std::int64_t count = std::ssize(tokens_[place(expert)]);
  return count < share_ || (count == share_ && extra_used_ < num_extra_);
}

// Bellman and Ford: prices may be negative, and few rounds change anything.
void BalancedAssignment::find_paths(std::int64_t token) {
  for (std::int64_t e = 0; e < num_experts_; ++e) {
    distance_[place(e)] = has(token, e) ? unreachable : -score(token, e);
    before_[place(e)] = -1;
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (std::int64_t from = 0; from < num_experts_; ++from) {
      if (distance_[place(from)] == unreachable) continue;
      for (std::int64_t to = 0; to < num_experts_; ++to) {
        const Step& taken = step(from, to);
        std::int64_t price = taken.token < 0 ? unreachable : taken.price;
        if (takes_over(from, to)) price = std::min<std::int64_t>(price, 0);
        if (price == unreachable || distance_[place(from)] + price >= distance_[place(to)])
          continue;
        distance_[place(to)] = distance_[place(from)] + price;
        before_[place(to)] = from;
        changed = true;
      }
    }
  }
}

void BalancedAssignment::add_choice(std::int64_t token) {
  find_paths(token);
  std::int64_t end = -1;
  for (std::int64_t e = 0; e < num_experts_; ++e)
    if (has_room(e) && distance_[place(e)] < unreachable &&
        (end < 0 || distance_[place(e)] < distance_[place(end)]))
      end = e;
  if (std::ssize(tokens_[place(end)]) == share_) ++extra_used_;
  std::vector<std::int64_t> path{end};
  while (before_[place(path.back())] >= 0) path.push_back(before_[place(path.back())]);
  // Which tokens move is decided before any does: the steps are those that the path was found with.
  struct Move {
    std::int32_t token;
    std::int64_t from, to;
  };
  std::vector<Move> moves;
  for (std::size_t i = 0; i + 1 < path.size(); ++i) {
    const std::int64_t to = path[i], from = path[i + 1];
    const Step& taken = step(from, to);
    const bool no_token_moves = takes_over(from, to) && (taken.token < 0 || taken.price >= 0);
    if (!no_token_moves) moves.push_back({taken.token, from, to});
  }
  for (const Move& move : moves) assign(move.token, move.from, false);
  for (const Move& move : moves) assign(move.token, move.to, true);
  assign(token, path.back(), true);
  // The steps of an expert are those of its tokens, and change with where else these are.
  moves.push_back({static_cast<std::int32_t>(token), end, path.back()});
  for (std::int64_t e = 0; e < num_experts_; ++e)
    if (std::any_of(moves.begin(), moves.end(),
                    [&](const Move& move) { return e == move.from || has(move.token, e); }))
      find_steps(e);
}

}  // namespace switchyard::kernels::cpu
