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
  expect(before.num_experts() == after.num_experts() && before.num_ranks() == after.num_ranks(),
         "two placements of the same experts on the same ranks");
  for (int rank = 0; rank < before.num_ranks(); ++rank)
    expect(before.num_places_of(rank) == after.num_places_of(rank), "as many places on each rank");
  std::vector<ExpertMove> moves;
  for (std::int64_t expert = 0; expert < before.num_experts(); ++expert) {
    const std::span<const std::int32_t> sources = before.places_of(expert);
    std::size_t num_given = 0;
    for (const std::int32_t place : after.places_of(expert)) {
      if (before.expert_at(place) == expert) continue;
      const int rank = after.rank_of(place);
      auto source =
          std::ranges::find(sources, rank, [&](std::int32_t held) { return before.rank_of(held); });
      if (source == sources.end())
        source = sources.begin() + static_cast<std::ptrdiff_t>(num_given++ % sources.size());
      const int from = before.rank_of(*source);
      moves.push_back({.expert = expert,
                       .from_rank = from,
                       .from_place = *source - before.first_place(from),
                       .to_rank = rank,
                       .to_place = place - after.first_place(rank)});
    }
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
