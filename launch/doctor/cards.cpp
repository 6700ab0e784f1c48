// Cards of the hosts, for `run.device: cuda`.
#include <fmt/core.h>

#include "cmake/built_with.hpp"
#include "launch/doctor/doctor.hpp"
#include "tensor/cuda/cuda_device.hpp"

namespace switchyard::doctor {

namespace {

struct CardsHere {
  int count = 0;
  std::string text;     // "2 cards, the first NVIDIA H200 with 139.8 GiB"
  std::string trouble;  // what keeps this host from using any, and the remedy
};

CardsHere cards_here() {
  CardsHere here;
  if constexpr (built_with_cuda) {
    here.trouble = why_no_cuda_card();
    if (!here.trouble.empty()) return here;
    here.count = num_cuda_cards();
    const CudaCard first = current_card();
    here.text = fmt::format("{}, the first {} with {} ({} free)", count_text(here.count, "card"),
                            first.name, size_text(first.total_bytes), size_text(first.free_bytes));
  }
  return here;
}

}  // namespace

void check_cards(Group& world, Diagnosis& diagnosis) {
  if constexpr (!built_with_cuda) {
    diagnosis.add(Grade::ok, "cards", "this build has no CUDA: runs compute on the CPU");
    return;
  }
  const Topology& topology = world.topology();
  const CardsHere here = cards_here();
  std::vector<std::int64_t> counts(static_cast<std::size_t>(world.size()));
  const std::int64_t mine = here.count;
  world.all_gather_values({&mine, 1}, counts);
  const std::vector<std::string> texts =
      texts_of(world, first_ranks(topology), here.count > 0 ? here.text : here.trouble);
  for (int host = 0; host < topology.num_hosts(); ++host) {
    const std::int64_t cards = counts[static_cast<std::size_t>(topology.ranks_of(host).front())];
    const auto ranks = static_cast<std::int64_t>(topology.ranks_of(host).size());
    const std::string text =
        fmt::format("host {}: {}", topology.name_of(host), texts[static_cast<std::size_t>(host)]);
    if (cards == 0)
      diagnosis.add(Grade::ok, "cards", text + "; runs compute on the CPU here");
    else if (cards < ranks)
      diagnosis.add(Grade::warn, "cards", fmt::format("{} for {} ranks", text, ranks),
                    "start one rank a card, or let ranks share: parallel.share_devices: true");
    else
      diagnosis.add(Grade::ok, "cards", text);
  }
}

}  // namespace switchyard::doctor
