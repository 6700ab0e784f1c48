#include "trainer/checkpoint/arithmetic_record.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "data/files/checksum.hpp"
#include "kernels/isa.hpp"
#include "tensor/error.hpp"
#include "trainer/agreement.hpp"

namespace switchyard {

namespace {

using kernels::Isa;

// By rank: a number of each.
std::vector<std::int64_t> of_all_ranks(Group& world, std::int64_t mine) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(world.size()));
  world.all_gather_values({&mine, 1}, all);
  return all;
}

// The first rank that has another number than rank 0; 0 if all are alike.
std::int64_t first_other(const std::vector<std::int64_t>& numbers) {
  const auto other =
      std::ranges::find_if(numbers, [&](std::int64_t n) { return n != numbers.front(); });
  return other == numbers.end() ? 0 : other - numbers.begin();
}

}  // namespace

ArithmeticRecord arithmetic_record(Group& world) {
  const Isa isa = kernels::active_isa();
  std::uint64_t build = 0;
  run_together(world, [&] { build = checksum_of_file("/proc/self/exe"); });
  const std::vector<std::int64_t> isas = of_all_ranks(world, static_cast<std::int64_t>(isa));
  const std::vector<std::int64_t> builds = of_all_ranks(world, std::bit_cast<std::int64_t>(build));
  if (const std::int64_t rank = first_other(isas); rank > 0) {
    const auto name = [&](std::int64_t of) {
      return kernels::name_of(static_cast<Isa>(isas[static_cast<std::size_t>(of)]));
    };
    const Isa lowest = static_cast<Isa>(*std::ranges::min_element(isas));
    throw ConfigError(fmt::format(
        "numerics.exact: rank 0 computes with {} and rank {} with {}, whose last bits differ; set "
        "SWITCHYARD_MAX_ISA={} for all ranks",
        name(0), rank, name(rank), kernels::name_of(lowest)));
  }
  if (const std::int64_t rank = first_other(builds); rank > 0)
    throw ConfigError(
        fmt::format("numerics.exact: rank 0 and rank {} run different builds of the program, whose "
                    "last bits may differ; start the same file everywhere",
                    rank));
  return {std::string(kernels::name_of(isa)), checksum_text(build)};
}

std::string changed_arithmetic(const ArithmeticRecord& saved, const ArithmeticRecord& now) {
  if (saved == now || saved == ArithmeticRecord{}) return {};
  const std::string what =
      saved.isa != now.isa
          ? fmt::format("with the instruction set {}; here it is {}", saved.isa, now.isa)
          : fmt::format("by another build of the program ({}; here it is {})", saved.build,
                        now.build);
  return fmt::format(
      "the checkpoint was trained {}: the last bits of this run may be other than those of an "
      "unbroken one",
      what);
}

}  // namespace switchyard
