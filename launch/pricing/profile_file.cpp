#include "launch/pricing/profile_file.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "data/files/atomic_file.hpp"
#include "launch/config/map_reader.hpp"

namespace switchyard {

namespace {

constexpr double any_number = 0;
constexpr std::int64_t most = std::int64_t{1} << 50;

std::optional<DType> dtype_of(std::string_view name) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::i32, DType::i64, DType::f64, DType::u8})
    if (name_of(dtype) == name) return dtype;
  return std::nullopt;
}

class ProfileReader : public MapReader {
 public:
  MachineProfile read(const YamlNode& root) {
    MachineProfile profile;
    std::int64_t version = 0;
    std::string device = "cpu";
    read_map(
        root, "",
        {{"switchyard_profile", [&](const YamlNode& node) { version = read_version(node); }},
         {"name", text_into(profile.name, "name")},
         {"device", [&](const YamlNode& node) { profile.device = read_device(node); }},
         {"processor", text_into(profile.processor, "processor")},
         {"measured_by", text_into(profile.measured_by, "measured_by")},
         {"time", text_into(profile.time, "time")},
         {"sources",
          [&](const YamlNode& node) {
            for_each_entry(node, "sources", [&](const std::string& key, const YamlNode& value) {
              text_into(profile.sources[key], "sources." + key)(value);
            });
          }},
         {"not_measured",
          [&](const YamlNode& node) {
            for_each_element(node, "not_measured", [&](const YamlNode& element) {
              text_into(profile.not_measured.emplace_back(), "not_measured")(element);
            });
          }},
         {"memory_bytes_of_rank",
          whole_into(profile.memory_bytes_of_rank, "memory_bytes_of_rank", 1, most)},
         {"disk",
          [&](const YamlNode& node) {
            read_map(node, "disk",
                     {{"write_bytes_per_second", above_0_into(profile.disk_write_bytes_per_second,
                                                              "disk.write_bytes_per_second")},
                      {"read_bytes_per_second", above_0_into(profile.disk_read_bytes_per_second,
                                                             "disk.read_bytes_per_second")}});
          }},
         {"watts_of_rank", above_0_into(profile.watts_of_rank, "watts_of_rank")},
         {"hours_between_failures",
          above_0_into(profile.hours_between_failures, "hours_between_failures")},
         {"settings",
          [&](const YamlNode& node) {
            for_each_element(node, "settings", [&](const YamlNode& element) {
              profile.settings.push_back(read_setting(element));
            });
          }}},
        {"switchyard_profile", "name", "settings"});
    return profile;
  }

 private:
  using Visit = std::function<void(const std::string& key, const YamlNode& value)>;

  // Of a map whose keys are names of the reader's own.
  void for_each_entry(const YamlNode& node, const std::string& path, const Visit& visit) {
    if (node.kind != YamlNode::Kind::map)
      return mistake(node.place,
                     fmt::format("{}: expected keys with values, got {}", path, node.kind_name()));
    for (const auto& [key, value] : node.entries) visit(key.text, value);
  }

  Reader above_0_into(double& target, std::string path) {
    return [this, &target, path = std::move(path)](const YamlNode& node) {
      const auto value = number(node, path, any_number);
      if (value && *value > 0)
        target = *value;
      else if (value)
        mistake(node.place, fmt::format("{}: expected a number above 0, got {}", path, node.text));
    };
  }

  std::int64_t read_version(const YamlNode& node) {
    const auto version = whole(node, "switchyard_profile", 0, most);
    if (version && *version != MachineProfile::format_version)
      mistake(node.place,
              fmt::format("switchyard_profile: this program reads version {}, not {}; measure the "
                          "machine again with `switchyard bench machine`",
                          MachineProfile::format_version, *version));
    return version.value_or(0);
  }

  DeviceKind read_device(const YamlNode& node) {
    if (node.text != "cpu" && node.text != "cuda")
      mistake(node.place,
              fmt::format("device: expected cpu or cuda, got {}", for_message(node.text)));
    return node.text == "cuda" ? DeviceKind::cuda : DeviceKind::cpu;
  }

  // Numbers above 0 by type of operand.
  Reader by_type_into(std::map<DType, double>& target, const std::string& path) {
    return [this, &target, path](const YamlNode& node) {
      for_each_entry(node, path, [&](const std::string& key, const YamlNode& value) {
        const auto dtype = dtype_of(key);
        if (!dtype)
          return mistake(value.place, fmt::format("{}.{}: expected a type: f32 or bf16", path,
                                                  for_message(key)));
        above_0_into(target[*dtype], path + "." + key)(value);
      });
    };
  }

  MachineSetting read_setting(const YamlNode& node) {
    MachineSetting setting;
    const std::string path = "settings";
    read_map(
        node, path,
        {{"ranks_per_host", whole_into(setting.ranks_per_host, path + ".ranks_per_host", 1, most)},
         {"threads", whole_into(setting.threads, path + ".threads", 1, most)},
         {"overlap_slowdown", number_into(setting.overlap_slowdown, path + ".overlap_slowdown", 0)},
         {"peak_flops_per_second",
          by_type_into(setting.peak_flops_per_second, path + ".peak_flops_per_second")},
         {"plain", [&](const YamlNode& plain) { read_plain(plain, setting.plain); }},
         {"links", [&](const YamlNode& links) { read_links(links, setting); }},
         {"kernels", [&](const YamlNode& kernels) { read_kernels(kernels, setting); }}},
        {"ranks_per_host"});
    if (setting.kernels.empty() && !setting.has_plain_rates())
      mistake(node.place, path + ": expected kernels, or plain, or both");
    return setting;
  }

  void read_plain(const YamlNode& node, PlainRates& plain) {
    const std::string path = "settings.plain";
    read_map(
        node, path,
        {{"flops_per_second", by_type_into(plain.flops_per_second, path + ".flops_per_second")},
         {"bytes_per_second", above_0_into(plain.bytes_per_second, path + ".bytes_per_second")},
         {"latency", number_into(plain.latency, path + ".latency", 0)}},
        {"flops_per_second", "bytes_per_second"});
  }

  void read_links(const YamlNode& node, MachineSetting& setting) {
    Readers classes;
    for (const LinkClass link : {LinkClass::within_host, LinkClass::between_hosts})
      classes[std::string(name_of(link))] = [this, link, &setting](const YamlNode& rates) {
        const std::string path = fmt::format("settings.links.{}", name_of(link));
        for_each_entry(rates, path, [&](const std::string& collective, const YamlNode& value) {
          LinkRate& rate = setting.links[static_cast<std::size_t>(link)][collective];
          const std::string own = path + "." + collective;
          read_map(value, own,
                   {{"latency", number_into(rate.latency, own + ".latency", 0)},
                    {"bytes_per_second",
                     above_0_into(rate.bytes_per_second, own + ".bytes_per_second")}},
                   {"latency", "bytes_per_second"});
        });
      };
    read_map(node, "settings.links", classes);
  }

  void read_kernels(const YamlNode& node, MachineSetting& setting) {
    for_each_entry(node, "settings.kernels", [&](const std::string& kind, const YamlNode& types) {
      const std::string path = "settings.kernels." + kind;
      for_each_entry(types, path, [&](const std::string& type, const YamlNode& value) {
        const auto dtype = dtype_of(type);
        if (!dtype)
          return mistake(value.place, fmt::format("{}.{}: expected a type: f32, bf16 or i32", path,
                                                  for_message(type)));
        setting.kernels[kind][*dtype] = read_table(value, kind, path + "." + type);
      });
    });
  }

  RateTable read_table(const YamlNode& node, const std::string& kind, const std::string& path) {
    RateTable table;
    const auto numbers = [&](const YamlNode& list, const std::string& name,
                             std::vector<double>& target) {
      for_each_element(list, name, [&](const YamlNode& element) {
        double value = 1;
        above_0_into(value, name)(element);
        target.push_back(value);
      });
    };
    read_map(
        node, path,
        {{"axes",
          [&](const YamlNode& axes) {
            for_each_element(axes, path + ".axes", [&](const YamlNode& axis) {
              std::vector<double>& values = table.axes.emplace_back();
              numbers(axis, path + ".axes", values);
              if (std::ranges::adjacent_find(values, std::greater_equal<>()) != values.end())
                mistake(axis.place, path + ".axes: expected numbers that grow");
            });
          }},
         {"rates", [&](const YamlNode& rates) { numbers(rates, path + ".rates", table.rates); }}},
        {"axes", "rates"});
    check_grid(node, kind, path, table);
    return table;
  }

  void check_grid(const YamlNode& node, const std::string& kind, const std::string& path,
                  const RateTable& table) {
    const RateAxes wanted = axes_of(kind);
    std::size_t num_points = 1;
    for (const auto& axis : table.axes) num_points *= axis.size();
    if (table.axes.size() != wanted.names.size())
      mistake(node.place,
              fmt::format("{}.axes: expected {} ({}), got {}", path, wanted.names.size(),
                          fmt::join(wanted.names, ", "), table.axes.size()));
    else if (table.rates.size() != num_points)
      mistake(node.place, fmt::format("{}.rates: expected {} numbers, one for each point of the "
                                      "axes, got {}",
                                      path, num_points, table.rates.size()));
  }
};

std::string number_text(double value) {
  return fmt::format("{:.6g}", value);
}

std::string list_text(const std::vector<double>& values) {
  std::vector<std::string> texts;
  for (const double value : values) texts.push_back(number_text(value));
  return fmt::format("[{}]", fmt::join(texts, ", "));
}

std::string by_type_text(const std::map<DType, double>& values) {
  std::vector<std::string> texts;
  for (const auto& [dtype, value] : values)
    texts.push_back(fmt::format("{}: {}", name_of(dtype), number_text(value)));
  return fmt::format("{{{}}}", fmt::join(texts, ", "));
}

std::string links_text(const MachineSetting& setting) {
  std::string text;
  for (const LinkClass link : {LinkClass::within_host, LinkClass::between_hosts}) {
    const auto& rates = setting.links[static_cast<std::size_t>(link)];
    if (rates.empty()) continue;
    text += fmt::format("      {}:\n", name_of(link));
    for (const auto& [collective, rate] : rates)
      text += fmt::format("        {}: {{latency: {}, bytes_per_second: {}}}\n", collective,
                          number_text(rate.latency), number_text(rate.bytes_per_second));
  }
  return text.empty() ? text : "    links:\n" + text;
}

std::string kernels_text(const MachineSetting& setting) {
  if (setting.kernels.empty()) return {};
  std::string text = "    kernels:\n";
  for (const auto& [kind, by_type] : setting.kernels) {
    const RateAxes axes = axes_of(kind);
    text += fmt::format("      {}:  # {}/s by {}\n", kind, axes.of_flops ? "FLOP" : "bytes",
                        fmt::join(axes.names, ", "));
    for (const auto& [dtype, table] : by_type) {
      std::vector<std::string> lists;
      for (const auto& axis : table.axes) lists.push_back(list_text(axis));
      text += fmt::format("        {}:\n          axes: [{}]\n          rates: {}\n",
                          name_of(dtype), fmt::join(lists, ", "), list_text(table.rates));
    }
  }
  return text;
}

std::string setting_text(const MachineSetting& setting) {
  std::string text =
      fmt::format("  - ranks_per_host: {}\n    threads: {}\n    overlap_slowdown: {}\n",
                  setting.ranks_per_host, setting.threads, number_text(setting.overlap_slowdown));
  if (!setting.peak_flops_per_second.empty())
    text +=
        fmt::format("    peak_flops_per_second: {}\n", by_type_text(setting.peak_flops_per_second));
  if (setting.has_plain_rates())
    text += fmt::format("    plain: {{flops_per_second: {}, bytes_per_second: {}, latency: {}}}\n",
                        by_type_text(setting.plain.flops_per_second),
                        number_text(setting.plain.bytes_per_second),
                        number_text(setting.plain.latency));
  return text + links_text(setting) + kernels_text(setting);
}

}  // namespace

MachineProfile parse_profile(std::string_view text, const std::string& path) {
  ProfileReader reader;
  const YamlNode root = parse_yaml(text, reader.mistakes());
  MachineProfile profile;
  if (reader.mistakes().empty()) profile = reader.read(root);
  reader.throw_mistakes(path);
  profile.path = path;
  return profile;
}

MachineProfile read_profile(const std::string& path) {
  constexpr std::int64_t most_bytes = 64 << 20;
  return parse_profile(read_file(path, most_bytes), path);
}

std::string profile_text(const MachineProfile& profile) {
  std::string text =
      fmt::format("switchyard_profile: {}\nname: {}\ndevice: {}\n", MachineProfile::format_version,
                  quote_yaml(profile.name), name_of(profile.device));
  const auto add_text = [&](std::string_view key, const std::string& value) {
    if (!value.empty()) text += fmt::format("{}: {}\n", key, quote_yaml(value));
  };
  const auto add_number = [&](std::string_view key, double value) {
    if (value > 0) text += fmt::format("{}: {}\n", key, number_text(value));
  };
  add_text("processor", profile.processor);
  add_text("measured_by", profile.measured_by);
  add_text("time", profile.time);
  if (profile.memory_bytes_of_rank > 0)
    text += fmt::format("memory_bytes_of_rank: {}\n", profile.memory_bytes_of_rank);
  if (profile.disk_write_bytes_per_second > 0 && profile.disk_read_bytes_per_second > 0)
    text += fmt::format("disk: {{write_bytes_per_second: {}, read_bytes_per_second: {}}}\n",
                        number_text(profile.disk_write_bytes_per_second),
                        number_text(profile.disk_read_bytes_per_second));
  add_number("watts_of_rank", profile.watts_of_rank);
  add_number("hours_between_failures", profile.hours_between_failures);
  if (!profile.sources.empty()) text += "sources:\n";
  for (const auto& [figure, source] : profile.sources)
    text += fmt::format("  {}: {}\n", figure, quote_yaml(source));
  if (!profile.not_measured.empty()) text += "not_measured:\n";
  for (const std::string& what : profile.not_measured)
    text += fmt::format("  - {}\n", quote_yaml(what));
  text += "settings:\n";
  for (const MachineSetting& setting : profile.settings) text += setting_text(setting);
  return text;
}

}  // namespace switchyard
