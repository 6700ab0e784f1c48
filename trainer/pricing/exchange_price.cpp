#include "trainer/pricing/exchange_price.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

bool is_ring_step(std::string_view kind) {
  return kind == "send_receive";
}

const LinkRate& rate_of(const WorkUnit& exchange, LinkClass link, const MachineProfile& profile,
                        const MachineSetting& setting) {
  const auto& rates = setting.links[static_cast<std::size_t>(link)];
  if (const auto own = rates.find(exchange.kind); own != rates.end()) return own->second;
  if (const auto any = rates.find(std::string_view("any")); any != rates.end()) return any->second;
  throw ConfigError(fmt::format(
      "{}: it has no rate of {} {}; measure it with `switchyard bench machine` under mpirun{}",
      profile.path, exchange.kind,
      link == LinkClass::within_host ? "within a host" : "between hosts",
      link == LinkClass::within_host ? "" : ", on several hosts"));
}

}  // namespace

int num_on_host(const ExchangeRanks& ranks, std::int64_t ranks_per_host) {
  const std::int64_t host = ranks.rank / ranks_per_host;
  const std::int64_t begin = host * ranks_per_host, end = begin + ranks_per_host;
  // first + i * stride in [begin, end)
  const auto count_below = [&](std::int64_t bound) {
    const std::int64_t distance = bound - ranks.first;
    if (distance <= 0) return std::int64_t{0};
    return std::min<std::int64_t>(ranks.size, (distance + ranks.stride - 1) / ranks.stride);
  };
  return static_cast<int>(std::max<std::int64_t>(1, count_below(end) - count_below(begin)));
}

double num_messages(std::string_view kind, int size, DeviceKind device) {
  if (is_ring_step(kind)) return 1;
  const auto rounds =
      static_cast<double>(std::bit_width(static_cast<std::uint32_t>(std::max(size - 1, 0))));
  const bool is_direct = device != DeviceKind::cuda && kind != "values" && kind != "broadcast";
  const double once = is_direct ? size - 1 : rounds;
  return kind == "all_reduce" ? 2 * once : once;
}

LinkBytes link_bytes(const WorkUnit& exchange, std::int64_t ranks_per_host, DeviceKind device) {
  const ExchangeRanks& ranks = exchange.ranks;
  const int on_host = num_on_host(ranks, ranks_per_host);
  LinkBytes result;
  if (on_host == ranks.size) {
    result.bytes[0] = exchange.wire_bytes;
    return result;
  }
  const auto groups = static_cast<double>(ranks_per_host) / on_host;  // that cross at once
  const bool is_direct =
      exchange.kind == "all_to_all" || (device != DeviceKind::cuda && !is_ring_step(exchange.kind));
  if (is_direct) {
    const double away = static_cast<double>(ranks.size - on_host) / (ranks.size - 1);
    result.bytes = {(1 - away) * exchange.wire_bytes, away * exchange.wire_bytes};
    result.of_host = static_cast<double>(ranks_per_host) * result.bytes[1];
  } else {  // one of the group's ranks on this host sends on to the next host
    result.bytes = {exchange.wire_bytes * (on_host - 1) / on_host, exchange.wire_bytes / on_host};
    result.of_host = groups * exchange.wire_bytes;
  }
  return result;
}

double exchange_seconds(const WorkUnit& exchange, const MachineProfile& profile,
                        const MachineSetting& setting) {
  const LinkBytes bytes = link_bytes(exchange, setting.ranks_per_host, profile.device);
  const double messages = num_messages(exchange.kind, exchange.ranks.size, profile.device);
  const bool stays = num_on_host(exchange.ranks, setting.ranks_per_host) == exchange.ranks.size;
  if (stays) {
    const LinkRate& rate = rate_of(exchange, LinkClass::within_host, profile, setting);
    return messages * rate.latency + exchange.wire_bytes / rate.bytes_per_second;
  }
  const LinkRate& away = rate_of(exchange, LinkClass::between_hosts, profile, setting);
  double seconds = bytes.of_host / away.bytes_per_second;
  if (bytes.bytes[0] > 0) {
    const LinkRate& here = rate_of(exchange, LinkClass::within_host, profile, setting);
    seconds = std::max(seconds, bytes.bytes[0] / here.bytes_per_second);
  }
  return messages * away.latency + seconds;
}

double spill_seconds(const WorkUnit& copy, const MachineProfile& profile,
                     const MachineSetting& setting, PriceGaps& gaps) {
  const double rate = copy.kind == spill_write  ? profile.disk_write_bytes_per_second
                      : copy.kind == spill_read ? profile.disk_read_bytes_per_second
                                                : 0;
  if (rate > 0) return static_cast<double>(setting.ranks_per_host) * copy.bytes / rate;
  WorkUnit in_memory = copy;
  in_memory.bytes = 2 * copy.bytes;  // read and written
  if (copy.kind == spill_copy) in_memory.kind = "copy";
  return kernel_seconds(in_memory, profile, setting, gaps);
}

}  // namespace switchyard
