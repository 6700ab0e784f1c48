#include "trainer/placement/expert_moves.hpp"

#include <algorithm>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Of the elements from `at` on in a bucket: the replica that owns the first, and how many follow
// that are its own, too.
struct Owned {
  std::int64_t replica;
  std::int64_t numel;
};
Owned owned_from(std::int64_t at, const BucketPlace& place) {
  const std::int64_t replica = at / place.part;
  return {replica, (replica + 1) * place.part - at};
}

}  // namespace

std::vector<ExpertMove> moves_between(const Placement& before, const Placement& after) {
  expect(before.num_experts() == after.num_experts() && before.num_ranks() == after.num_ranks() &&
             !before.has_replicas() && !after.has_replicas(),
         "two placements of the same experts on the same ranks, without replicas");
  std::vector<ExpertMove> moves;
  for (std::int64_t expert = 0; expert < before.num_experts(); ++expert) {
    const auto e = static_cast<std::size_t>(expert);
    ExpertMove move{.expert = expert,
                    .from_rank = before.rank_of_expert(expert),
                    .to_rank = after.rank_of_expert(expert)};
    move.from_place = before.place_of_expert()[e] - before.first_place(move.from_rank);
    move.to_place = after.place_of_expert()[e] - after.first_place(move.to_rank);
    if (move.leaves_its_rank() || move.from_place != move.to_place) moves.push_back(move);
  }
  return moves;
}

std::vector<MovedRange> moved_ranges(std::span<const ExpertMove> moves, std::int64_t expert_numel,
                                     std::span<const BucketPlace> places) {
  std::vector<MovedRange> ranges;
  const auto num_ranks = static_cast<std::int64_t>(places.size());
  for (const ExpertMove& move : moves) {
    const BucketPlace& source = places[static_cast<std::size_t>(move.from_rank)];
    const BucketPlace& target = places[static_cast<std::size_t>(move.to_rank)];
    for (std::int64_t done = 0; done < expert_numel;) {
      const std::int64_t from = source.begin + move.from_place * expert_numel + done;
      const std::int64_t to = target.begin + move.to_place * expert_numel + done;
      const Owned giver = owned_from(from, source), taker = owned_from(to, target);
      const std::int64_t numel = std::min({giver.numel, taker.numel, expert_numel - done});
      ranges.push_back({static_cast<int>(giver.replica * num_ranks + move.from_rank), from,
                        static_cast<int>(taker.replica * num_ranks + move.to_rank), to, numel});
      done += numel;
    }
  }
  return ranges;
}

}  // namespace switchyard
